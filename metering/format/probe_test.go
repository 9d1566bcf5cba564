package format_test

import (
	"testing"

	"sluice.example/sluice/metering/format"
)

// Each engine is told by an answer that it alone gives, and nothing else is taken
// for one.
func TestEnginesAreRecognised(t *testing.T) {
	for _, c := range []struct {
		path, answer string
		want         format.Engine
	}{
		{"/v1/models", `{"object":"list","data":[{"id":"m","object":"model","owned_by":"vllm","root":"m","max_model_len":4096}]}`, format.EngineVLLM},
		{"/v1/models", `{"object":"list","data":[{"id":"m","owned_by":"sglang","max_model_len":4096}]}`, format.EngineSGLang},
		{"/v1/models", `{"models":[{"name":"m"}],"object":"list","data":[{"id":"m","owned_by":"llamacpp","meta":{}}]}`, format.EngineLlamaCpp},
		{"/v1/models", `{"object":"list","data":[{"id":"m","owned_by":"tensorrt_llm"}]}`, format.EngineTRTLLM},
		{"/v1/models", `{"object":"list","data":[{"id":"m","owned_by":"openai"}]}`, ""},
		{"/v1/models", `{"object":"list","data":[]}`, ""},
		{"/v1/models", `<html>`, ""},
		{"/props", `{"default_generation_settings":{"n_ctx":4096},"total_slots":1,"chat_template":"x"}`, format.EngineLlamaCpp},
		{"/props", `{"props":true}`, ""},
		{"/get_server_info", `{"model_path":"m","mem_fraction_static":0.9,"tp_size":1}`, format.EngineSGLang},
		{"/server_info", `{"model_path":"m","mem_fraction_static":0.9}`, format.EngineSGLang},
		{"/info", `{"model_id":"m","max_total_tokens":4096,"router":"text-generation-router"}`, format.EngineTGI},
		{"/info", `{"model_id":"m","max_input_length":512,"model_type":{"embedding":{}}}`, ""},
		{"/api/version", `{"version":"0.33.0"}`, format.EngineOllama},
		{"/api/version", `{"version":"1.0","name":"some other product"}`, ""},
		{"/api/version", `{"version":""}`, ""},
	} {
		asked := false
		for _, p := range format.Probes() {
			if p.Path == c.path {
				asked = true
				if got := p.Recognise([]byte(c.answer)); got != c.want {
					t.Errorf("%s %s is taken for %q, want %q", c.path, c.answer, got, c.want)
				}
			}
		}
		if !asked {
			t.Errorf("nobody asks %s", c.path)
		}
	}
	for host, want := range map[string]format.Engine{"api.openai.com": format.EngineOpenAI, "x.openai.azure.com": format.EngineOpenAI, "notopenai.com": "", "10.0.0.1": ""} {
		if got := format.EngineOfHost(host); got != want {
			t.Errorf("%s is %q", host, got)
		}
	}
}
