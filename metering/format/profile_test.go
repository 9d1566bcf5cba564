package format_test

import (
	"slices"
	"testing"

	"sluice.example/sluice/metering/format"
)

// An engine that nobody knows is taken for the careful one, and what the owner
// says stands above what is known.
func TestProfileOfAnUnknownEngineIsTheCarefulOne(t *testing.T) {
	p := format.ProfileOf("no-such-engine")
	if p.Engine != format.EngineGeneric || p.Counting != format.CountNone || p.ContinuousUsage || p.StopsUnary || p.RunningTimings {
		t.Errorf("an unknown engine is believed to do %+v", p)
	}
	if !slices.Equal(p.Caps, []string{"max_tokens", "max_completion_tokens"}) {
		t.Errorf("an unknown engine is capped by %q, so it may ignore the cap", p.Caps)
	}
}

func TestOwnersWordStandsAboveTheEngine(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		setting    format.Setting
		found      format.Engine
		engine     format.Engine
		counting   format.Counting
		continuous bool
		caps       []string
	}{
		"found":                    {format.Setting{}, format.EngineVLLM, format.EngineVLLM, format.CountVLLM, true, []string{"max_tokens"}},
		"named":                    {format.Setting{Engine: format.EngineLlamaCpp}, format.EngineVLLM, format.EngineLlamaCpp, format.CountLlamaCpp, false, []string{"max_tokens"}},
		"no tokenizer":             {format.Setting{Tokenize: &no}, format.EngineVLLM, format.EngineVLLM, format.CountNone, true, []string{"max_tokens"}},
		"a tokenizer of its own":   {format.Setting{Tokenize: &yes}, format.EngineLlamaCpp, format.EngineLlamaCpp, format.CountLlamaCpp, false, []string{"max_tokens"}},
		"a tokenizer, unknown":     {format.Setting{Tokenize: &yes}, format.EngineGeneric, format.EngineGeneric, format.CountVLLM, false, []string{"max_tokens", "max_completion_tokens"}},
		"no running usage":         {format.Setting{ContinuousUsage: &no}, format.EngineSGLang, format.EngineSGLang, format.CountSGLang, false, []string{"max_tokens"}},
		"running usage and a name": {format.Setting{ContinuousUsage: &yes, CapField: "max_completion_tokens"}, "", format.EngineGeneric, format.CountNone, true, []string{"max_completion_tokens"}},
	} {
		p := c.setting.Profile(c.found)
		if p.Engine != c.engine || p.Counting != c.counting || p.ContinuousUsage != c.continuous || !slices.Equal(p.Caps, c.caps) {
			t.Errorf("%s: got %+v", name, p)
		}
	}
}
