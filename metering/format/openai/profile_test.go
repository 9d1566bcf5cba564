package openai_test

import (
	"slices"
	"testing"

	"sluice.example/sluice/metering/format/openai"
)

// An engine that nobody knows is taken for the careful one, and what the owner
// says stands above what is known.
func TestProfileOfAnUnknownEngineIsTheCarefulOne(t *testing.T) {
	p := openai.ProfileOf("no-such-engine")
	if p.Engine != openai.EngineGeneric || p.Counting != openai.CountNone || p.ContinuousUsage || p.StopsUnary || p.RunningTimings {
		t.Errorf("an unknown engine is believed to do %+v", p)
	}
	if !slices.Equal(p.Caps, []string{"max_tokens", "max_completion_tokens"}) {
		t.Errorf("an unknown engine is capped by %q, so it may ignore the cap", p.Caps)
	}
}

func TestOwnersWordStandsAboveTheEngine(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		setting    openai.Setting
		found      openai.Engine
		engine     openai.Engine
		counting   openai.Counting
		continuous bool
		caps       []string
	}{
		"found":                    {openai.Setting{}, openai.EngineVLLM, openai.EngineVLLM, openai.CountVLLM, true, []string{"max_tokens"}},
		"named":                    {openai.Setting{Engine: openai.EngineLlamaCpp}, openai.EngineVLLM, openai.EngineLlamaCpp, openai.CountLlamaCpp, false, []string{"max_tokens"}},
		"no tokenizer":             {openai.Setting{Tokenize: &no}, openai.EngineVLLM, openai.EngineVLLM, openai.CountNone, true, []string{"max_tokens"}},
		"a tokenizer of its own":   {openai.Setting{Tokenize: &yes}, openai.EngineLlamaCpp, openai.EngineLlamaCpp, openai.CountLlamaCpp, false, []string{"max_tokens"}},
		"a tokenizer, unknown":     {openai.Setting{Tokenize: &yes}, openai.EngineGeneric, openai.EngineGeneric, openai.CountVLLM, false, []string{"max_tokens", "max_completion_tokens"}},
		"no running usage":         {openai.Setting{ContinuousUsage: &no}, openai.EngineSGLang, openai.EngineSGLang, openai.CountSGLang, false, []string{"max_tokens"}},
		"running usage and a name": {openai.Setting{ContinuousUsage: &yes, CapField: "max_completion_tokens"}, "", openai.EngineGeneric, openai.CountNone, true, []string{"max_completion_tokens"}},
	} {
		p := c.setting.Profile(c.found)
		if p.Engine != c.engine || p.Counting != c.counting || p.ContinuousUsage != c.continuous || !slices.Equal(p.Caps, c.caps) {
			t.Errorf("%s: got %+v", name, p)
		}
	}
}
