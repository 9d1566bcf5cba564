package openai_test

import (
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

// Parsers read the names of members without their escapes. So does the gateway, of what
// costs and of what was used.
func TestEscapesHideNoMember(t *testing.T) {
	const model, messages = `"mod\u0065l":"m"`, `"m\u0065ssages":[{"r\u006fle":"user","cont\u0065nt":"Hi"}]`
	for f, text := range map[format.Format]string{openai.Chat: messages, openai.Completions: `"prom\u0070t":"Hi"`} {
		r, err := f.Parse("", []byte(`{`+model+`,`+text+`,"\u006e":3,"max_tok\u0065ns":7,"str\u0065am":true,"stream_opti\u006fns":{"include_us\u0061ge":true}}`), noPolicy)
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.Bound(limits)
		if err != nil || b.Sequences != 3 || b.Cap != 7 || !r.Stream() || r.Model() != "m" {
			t.Errorf("%s: %+v, model %q, stream %v: %v", f.Name(), b, r.Model(), r.Stream(), err)
		}
		sent := string(r.Rewrite(format.Rewrite{Model: "up", Cap: 5, ForceUsage: true}))
		for name, times := range map[string]int{`"model":"up"`: 1, `"n":3`: 1, `"max_tokens":5`: 1, `"stream_options"`: 1, `"m"`: 0, `\u0065l"`: 0, `\u006e"`: 0, `tok\u0065ns`: 0} {
			if strings.Count(sent, name) != times {
				t.Errorf("%s: %s is not there %d times: %s", f.Name(), name, times, sent)
			}
		}
		for _, twice := range []string{`"n":1,"\u006e":3`, `"max_tokens":1,"max_token\u0073":9`, `"stream":false,"strea\u006d":true`} {
			if _, err := f.Parse("", []byte(`{`+model+`,`+text+`,`+twice+`}`), noPolicy); err == nil || !strings.Contains(err.Error(), "given twice") {
				t.Errorf("%s: %s: %v", f.Name(), twice, err)
			}
		}
		for _, other := range []string{`"n\u0000":3`, `"\u212an":3`, `"n\ud800":3`} {
			if _, err := f.Parse("", []byte(`{`+model+`,`+text+`,`+other+`}`), noPolicy); err == nil {
				t.Errorf("%s: %s passes", f.Name(), other)
			}
		}
		r, _ = f.Parse("", []byte(`{`+model+`,`+text+`}`), noPolicy)
		m := r.Meter(b, nil, format.MeterOptions{Start: start})
		pass := `data: {"choic\u0065s":[{"ind\u0065x":0,"d\u0065lta":{"cont\u0065nt":"a"},"t\u0065xt":"a"}]}` + "\n\n" +
			`data: {"choices":[],"us\u0061ge":{"prompt_tok\u0065ns":3,"completion_t\u006fkens":1}}` + "\n\n"
		got := listen(m, strings.SplitAfter(pass, "\n\n")[:2]...)
		if u, _, _ := m.Final(format.Complete, start); onlyTokens(u) != tokens(3, 1) || strings.Contains(got, "prompt_tok") {
			t.Errorf("%s: %v for %s", f.Name(), onlyTokens(u), got)
		}
	}
}
