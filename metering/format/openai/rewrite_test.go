package openai_test

import (
	"testing"

	"sluice.example/sluice/metering/format"
)

func TestRewrite(t *testing.T) {
	const start = `{"model":"up/m","messages":[{"role":"user","content":"Say hello."}]`
	force := format.Rewrite{Model: "up/m", Cap: 20, ForceUsage: true}
	for name, c := range map[string]struct {
		fields string
		how    format.Rewrite
		want   string
	}{
		"no cap":                           {``, force, `,"n":1,"max_tokens":20}`},
		"null cap":                         {`"max_tokens":null`, force, `,"n":1,"max_tokens":20}`},
		"minus one is no cap":              {`"max_tokens":-1`, force, `,"n":1,"max_tokens":20}`},
		"its own cap":                      {`"max_tokens":7,"seed":1`, force, `,"seed":1,"n":1,"max_tokens":7}`},
		"clamped":                          {`"max_tokens":7000`, force, `,"n":1,"max_tokens":20}`},
		"whole floats":                     {`"max_tokens":7.0,"n":1e0`, force, `,"n":1,"max_tokens":7}`},
		"another name":                     {`"max_completion_tokens":7000`, force, `,"n":1,"max_tokens":20}`},
		"both":                             {`"max_completion_tokens":30,"max_tokens":9`, force, `,"n":1,"max_tokens":9}`},
		"one of both null":                 {`"max_completion_tokens":null,"max_tokens":9`, force, `,"n":1,"max_tokens":9}`},
		"another API's name":               {`"n_predict":100000,"seed":1`, force, `,"seed":1,"n":1,"max_tokens":20}`},
		"another API's name beside":        {`"max_tokens":5,"max_new_tokens":100000`, force, `,"n":1,"max_tokens":5}`},
		"the backend's name":               {`"max_tokens":7`, format.Rewrite{Model: "up/m", Cap: 7, Profile: format.ProfileOf(format.EngineTGI)}, `,"n":1,"max_tokens":7}`},
		"OpenAI's names":                   {`"max_tokens":7,"top_k":3,"store":true`, format.Rewrite{Model: "up/m", Cap: 7, Profile: format.ProfileOf(format.EngineOpenAI)}, `,"n":1,"max_completion_tokens":7,"store":false}`},
		"every name":                       {`"max_completion_tokens":70`, format.Rewrite{Model: "up/m", Cap: 20, Profile: format.ProfileOf(format.EngineGeneric)}, `,"n":1,"max_tokens":20,"max_completion_tokens":20}`},
		"a cap is never less than 1":       {``, format.Rewrite{Model: "up/m", Cap: -4}, `,"n":1,"max_tokens":1}`},
		"a floor is never above the cap":   {`"min_tokens":100`, force, `,"min_tokens":20,"n":1,"max_tokens":20}`},
		"llama.cpp's n":                    {`"n":null,"n_cmpl":8,"best_of":null,"max_tokens":1`, force, `,"n":8,"max_tokens":1}`},
		"unary has no usage to force":      {`"stream":false,"max_tokens":1`, force, `,"stream":false,"n":1,"max_tokens":1}`},
		"unary has no options":             {`"stream_options":{"include_usage":true},"max_tokens":1`, force, `,"n":1,"max_tokens":1}`},
		"a stream":                         {`"stream":true,"max_tokens":1`, force, `,"stream":true,"n":1,"max_tokens":1,"stream_options":{"include_usage":true}}`},
		"include_usage false":              {`"stream":true,"stream_options":{"include_usage":false},"max_tokens":1`, force, `,"stream":true,"n":1,"max_tokens":1,"stream_options":{"include_usage":true}}`},
		"null options":                     {`"stream":true,"stream_options":null,"max_tokens":1`, force, `,"stream":true,"n":1,"max_tokens":1,"stream_options":{"include_usage":true}}`},
		"continuous":                       {`"stream":true,"max_tokens":1`, format.Rewrite{Model: "up/m", Cap: 1, ForceUsage: true, ContinuousUsage: true}, `,"stream":true,"n":1,"max_tokens":1,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`},
		"continuous, asked for":            {`"stream":true,"stream_options":{"continuous_usage_stats":true},"max_tokens":1`, force, `,"stream":true,"n":1,"max_tokens":1,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`},
		"not forced":                       {`"stream":true,"stream_options":{},"max_tokens":1`, format.Rewrite{Model: "up/m", Cap: 1}, `,"stream":true,"n":1,"max_tokens":1}`},
		"OpenAI's padding":                 {`"stream":true,"stream_options":{"include_obfuscation":true},"max_tokens":1`, format.Rewrite{Model: "up/m", Cap: 1, ForceUsage: true, Profile: format.ProfileOf(format.EngineOpenAI)}, `,"stream":true,"n":1,"max_completion_tokens":1,"store":false,"stream_options":{"include_usage":true,"include_obfuscation":false}}`},
		"running timings":                  {`"stream":true,"max_tokens":1`, format.Rewrite{Model: "up/m", Cap: 1, ForceUsage: true, Profile: format.ProfileOf(format.EngineLlamaCpp)}, `,"stream":true,"n":1,"max_tokens":1,"stream_options":{"include_usage":true},"timings_per_token":true}`},
		"everything else, byte for byte":   {"\"seed\" : 12345678901234567890, \"user\":\n\"\\u00e9\\/\" , \"stop\":[ \"a\" ],\"max_tokens\":1", force, ",\"seed\" : 12345678901234567890,\"user\":\n\"\\u00e9\\/\",\"stop\":[ \"a\" ],\"n\":1,\"max_tokens\":1}"},
		"a model's name that needs quotes": {`"max_tokens":1`, format.Rewrite{Model: `a"b`, Cap: 1}, ``},
	} {
		got := string(parse(t, ask(c.fields)).Rewrite(c.how))
		want := start + c.want
		if c.want == "" {
			want = `{"model":"a\"b","messages":[{"role":"user","content":"Say hello."}],"n":1,"max_tokens":1}`
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	if got := string(parse(t, ask(`"max_tokens":3`)).Rewrite(format.Rewrite{Cap: 5})); got != string(ask(`"n":1,"max_tokens":3`)) {
		t.Errorf("without a name the model changed: %s", got)
	}
}
