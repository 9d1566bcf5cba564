package chat_test

import (
	"errors"
	"testing"

	"sluice/metering/chat"
)

func TestRewrite(t *testing.T) {
	const start = `{"model":"up/m","messages":[{"role":"user","content":"Say hello."}]`
	force := chat.Rewrite{Model: "up/m", Cap: 20, ForceUsage: true}
	for name, c := range map[string]struct {
		fields string
		how    chat.Rewrite
		want   string
	}{
		"no cap":                           {``, force, `,"max_tokens":20}`},
		"null cap":                         {`"max_tokens":null`, force, `,"max_tokens":20}`},
		"its own cap":                      {`"max_tokens":7,"seed":1`, force, `,"seed":1,"max_tokens":7}`},
		"clamped":                          {`"max_tokens":7000`, force, `,"max_tokens":20}`},
		"another name":                     {`"max_completion_tokens":7000`, force, `,"max_tokens":20}`},
		"both":                             {`"max_completion_tokens":30,"max_tokens":9`, force, `,"max_tokens":9}`},
		"one of both null":                 {`"max_completion_tokens":null,"max_tokens":9`, force, `,"max_tokens":9}`},
		"another API's name":               {`"n_predict":100000,"seed":1`, force, `,"seed":1,"max_tokens":20}`},
		"another API's name beside":        {`"max_tokens":5,"max_new_tokens":100000`, force, `,"max_tokens":5}`},
		"the backend's name":               {`"max_tokens":7`, chat.Rewrite{Model: "up/m", Cap: 7, Caps: []string{"max_completion_tokens"}}, `,"max_completion_tokens":7}`},
		"the backend's name, given":        {`"max_completion_tokens":70,"max_tokens":5`, chat.Rewrite{Model: "up/m", Cap: 20, Caps: []string{"max_completion_tokens"}}, `,"max_completion_tokens":5}`},
		"every name":                       {`"max_completion_tokens":70`, chat.Rewrite{Model: "up/m", Cap: 20, Caps: []string{"max_tokens", "max_completion_tokens"}}, `,"max_tokens":20,"max_completion_tokens":20}`},
		"a cap is never less than 1":       {``, chat.Rewrite{Model: "up/m", Cap: -4}, `,"max_tokens":1}`},
		"null n":                           {`"n":null,"best_of":2,"max_tokens":1`, force, `,"best_of":2,"max_tokens":1}`},
		"unary has no usage to force":      {`"stream":false,"max_tokens":1`, force, `,"stream":false,"max_tokens":1}`},
		"unary keeps its options":          {`"stream_options":{"x":1},"max_tokens":1`, force, `,"stream_options":{"x":1},"max_tokens":1}`},
		"a stream":                         {`"stream":true,"max_tokens":1`, force, `,"stream":true,"max_tokens":1,"stream_options":{"include_usage":true}}`},
		"include_usage false":              {`"stream":true,"stream_options":{"include_usage":false},"max_tokens":1`, force, `,"stream":true,"stream_options":{"include_usage":true},"max_tokens":1}`},
		"null options":                     {`"stream":true,"stream_options":null,"max_tokens":1`, force, `,"stream":true,"stream_options":{"include_usage":true},"max_tokens":1}`},
		"other options stay":               {`"stream":true,"stream_options":{"a": [1, 2],"include_usage":false,"include_usage":null,"b":{}},"max_tokens":1`, force, `,"stream":true,"stream_options":{"a": [1, 2],"b":{},"include_usage":true},"max_tokens":1}`},
		"continuous":                       {`"stream":true,"max_tokens":1`, chat.Rewrite{Model: "up/m", Cap: 1, ForceUsage: true, ContinuousUsage: true}, `,"stream":true,"max_tokens":1,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`},
		"continuous, asked for":            {`"stream":true,"stream_options":{"continuous_usage_stats":true},"max_tokens":1`, force, `,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"max_tokens":1}`},
		"not forced":                       {`"stream":true,"stream_options":{},"max_tokens":1`, chat.Rewrite{Model: "up/m", Cap: 1}, `,"stream":true,"stream_options":{},"max_tokens":1}`},
		"everything else, byte for byte":   {"\"seed\" : 12345678901234567890, \"x\":\n\"\\u00e9\\/\" , \"stop\":[ \"a\" ],\"max_tokens\":1", force, ",\"seed\" : 12345678901234567890,\"x\":\n\"\\u00e9\\/\",\"stop\":[ \"a\" ],\"max_tokens\":1}"},
		"a model's name that needs quotes": {`"max_tokens":1`, chat.Rewrite{Model: `a"b`, Cap: 1}, ``},
	} {
		got := string(parse(t, ask(c.fields)).Rewrite(c.how))
		want := start + c.want
		if c.want == "" {
			want = `{"model":"a\"b","messages":[{"role":"user","content":"Say hello."}],"max_tokens":1}`
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	if got := string(parse(t, ask(`"max_tokens":3`)).Rewrite(chat.Rewrite{Cap: 5})); got != string(ask(`"max_tokens":3`)) {
		t.Errorf("without a name the model changed: %s", got)
	}
}

func TestTokenizeBodies(t *testing.T) {
	r := parse(t, ask(`"tools":[{"type":"function","function":{"name":"f"}}],"temperature":1,"chat_template_kwargs":{"a":true},"add_generation_prompt":null`))
	want := `{"model":"up/m","messages":[{"role":"user","content":"Say hello."}],"tools":[{"type":"function","function":{"name":"f"}}],"chat_template_kwargs":{"a":true}}`
	if got := string(r.TokenizePrompt("up/m")); got != want {
		t.Errorf("prompt: %s, want %s", got, want)
	}
	if got := parse(t, ask(`"documents":[]`)).TokenizePrompt("up/m"); got != nil {
		t.Errorf("a prompt that is more than text: %s", got)
	}
	want = `{"model":"up/m","prompt":"a\"b\n","add_special_tokens":false}`
	if got := string(chat.TokenizeText("up/m", "a\"b\n")); got != want {
		t.Errorf("text: %s, want %s", got, want)
	}
}

func TestParseTokenCount(t *testing.T) {
	for body, want := range map[string]int64{
		`{"count":5,"max_model_len":4096,"tokens":[1,2,3,4,5]}`: 5,
		`{"count":0,"tokens":[]}`:                               0,
		`{"tokens":[1,2,3]}`:                                    3,
		`{"tokens":[{"id":1,"piece":"a"}]}`:                     1,
		`{"tokens":[]}`:                                         0,
		`{"count":-1}`:                                          -1,
		`{"count":1e30}`:                                        -1,
		`{"count":1.5}`:                                         -1,
		`{"count":99999999999}`:                                 -1,
		`{"count":"5"}`:                                         -1,
		`{}`:                                                    -1,
		`{"tokens":null}`:                                       -1,
		`[]`:                                                    -1,
		``:                                                      -1,
		`{"error":{"message":"x"}}`:                             -1,
	} {
		n, err := chat.ParseTokenCount([]byte(body))
		if (want < 0) != errors.Is(err, chat.ErrTokenCount) || (want >= 0 && n != want) {
			t.Errorf("%s: %d, %v; want %d", body, n, err, want)
		}
	}
}
