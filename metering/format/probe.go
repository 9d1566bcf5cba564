package format

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Probe is one GET that tells an engine from others by its answer.
type Probe struct {
	Path      string
	recognise func(answer []byte) Engine // empty: it does not tell
}

// Recognise is the engine that answered so with a 200; empty: the answer does not
// tell. Only members that the engine alone writes count.
func (p *Probe) Recognise(answer []byte) Engine { return p.recognise(answer) }

// Probes lists what to ask a server of an unknown engine, in this order.
// GET /version is not among them: vLLM, TensorRT-LLM and many others answer it
// alike.
func Probes() []Probe {
	return []Probe{
		{"/v1/models", recogniseModels},
		{"/props", has2(EngineLlamaCpp, "default_generation_settings", "total_slots")},
		{"/server_info", has2(EngineSGLang, "mem_fraction_static", "model_path")},
		{"/get_server_info", has2(EngineSGLang, "mem_fraction_static", "model_path")},
		{"/info", has2(EngineTGI, "model_id", "max_total_tokens")},
		{"/api/version", recogniseOllama},
	}
}

// EngineOfHost is the engine behind a host that is known by its name; empty: none.
func EngineOfHost(host string) Engine {
	host = strings.ToLower(host)
	if host == "api.openai.com" || strings.HasSuffix(host, ".openai.azure.com") {
		return EngineOpenAI
	}
	return ""
}

// recogniseModels goes by the owner that each engine writes into its list of
// models.
func recogniseModels(answer []byte) Engine {
	var list struct {
		Data []struct {
			OwnedBy string `json:"owned_by"`
		} `json:"data"`
	}
	if json.Unmarshal(answer, &list) != nil || len(list.Data) == 0 {
		return ""
	}
	switch list.Data[0].OwnedBy {
	case "vllm":
		return EngineVLLM
	case "sglang":
		return EngineSGLang
	case "llamacpp":
		return EngineLlamaCpp
	case "tensorrt_llm":
		return EngineTRTLLM
	}
	return ""
}

// has2 recognises an engine by two members of one object.
func has2(e Engine, a, b string) func([]byte) Engine {
	return func(answer []byte) Engine {
		var o map[string]json.RawMessage
		if json.Unmarshal(answer, &o) != nil || o[a] == nil || o[b] == nil {
			return ""
		}
		return e
	}
}

// recogniseOllama: its answer is a version and nothing else.
func recogniseOllama(answer []byte) Engine {
	var o map[string]string
	if json.Unmarshal(bytes.TrimSpace(answer), &o) != nil || len(o) != 1 || o["version"] == "" {
		return ""
	}
	return EngineOllama
}
