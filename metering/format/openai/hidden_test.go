package openai

import "testing"

func TestRemoveUsage(t *testing.T) {
	for in, want := range map[string]string{
		`{"usage":1}`:                             `{}`,
		`{ "usage" : {"a":[1,2]} }`:               `{  }`,
		`{"usage":null,"a":1}`:                    `{"a":1}`,
		`{"usage":null, "a":1}`:                   `{"a":1}`,
		`{"a":1,"usage":{"x":1}}`:                 `{"a":1}`,
		`{"a": 1, "usage": {"x": 1}, "b": 2}`:     `{"a": 1, "b": 2}`,
		`{"usage":1,"usage":2}`:                   `{}`,
		`{"usage":1,"a":1,"usage":2,"b":"x}"}`:    `{"a":1,"b":"x}"}`,
		`{"a":{"usage":1}}`:                       `{"a":{"usage":1}}`,
		`{"a":1,"usage":1,"usage":2,"\u0075b":3}`: `{"a":1,"\u0075b":3}`,
		`{"us\u0061ge":7,"a":1}`:                  `{"a":1}`,
	} {
		if got := removeHidden(nil, []byte(in), hidden{usage: true}, nil); string(got) != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
