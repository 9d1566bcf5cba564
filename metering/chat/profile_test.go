package chat_test

import (
	"slices"
	"testing"

	"sluice.example/sluice/metering/chat"
)

// An engine that nobody knows is taken for the careful one, and what the owner
// says stands above what is known.
func TestProfileOfAnUnknownEngineIsTheCarefulOne(t *testing.T) {
	p := chat.ProfileOf("no-such-engine")
	if p.Engine != chat.EngineGeneric || p.Counting != chat.CountNone || p.ContinuousUsage || p.StopsUnary || p.RunningTimings {
		t.Errorf("an unknown engine is believed to do %+v", p)
	}
	if !slices.Equal(p.Caps, []string{"max_tokens", "max_completion_tokens"}) {
		t.Errorf("an unknown engine is capped by %q, so it may ignore the cap", p.Caps)
	}
}

func TestOwnersWordStandsAboveTheEngine(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		setting    chat.Setting
		found      chat.Engine
		engine     chat.Engine
		counting   chat.Counting
		continuous bool
		caps       []string
	}{
		"found":                    {chat.Setting{}, chat.EngineVLLM, chat.EngineVLLM, chat.CountVLLM, true, []string{"max_tokens"}},
		"named":                    {chat.Setting{Engine: chat.EngineLlamaCpp}, chat.EngineVLLM, chat.EngineLlamaCpp, chat.CountLlamaCpp, false, []string{"max_tokens"}},
		"no tokenizer":             {chat.Setting{Tokenize: &no}, chat.EngineVLLM, chat.EngineVLLM, chat.CountNone, true, []string{"max_tokens"}},
		"a tokenizer of its own":   {chat.Setting{Tokenize: &yes}, chat.EngineLlamaCpp, chat.EngineLlamaCpp, chat.CountLlamaCpp, false, []string{"max_tokens"}},
		"a tokenizer, unknown":     {chat.Setting{Tokenize: &yes}, chat.EngineGeneric, chat.EngineGeneric, chat.CountVLLM, false, []string{"max_tokens", "max_completion_tokens"}},
		"no running usage":         {chat.Setting{ContinuousUsage: &no}, chat.EngineSGLang, chat.EngineSGLang, chat.CountSGLang, false, []string{"max_tokens"}},
		"running usage and a name": {chat.Setting{ContinuousUsage: &yes, CapField: "max_completion_tokens"}, "", chat.EngineGeneric, chat.CountNone, true, []string{"max_completion_tokens"}},
	} {
		p := c.setting.Profile(c.found)
		if p.Engine != c.engine || p.Counting != c.counting || p.ContinuousUsage != c.continuous || !slices.Equal(p.Caps, c.caps) {
			t.Errorf("%s: got %+v", name, p)
		}
	}
}
