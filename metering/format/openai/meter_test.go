package openai_test

import (
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

var start = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// content is a chunk with text, usage or other members behind it.
func content(text, more string) string {
	return `data: {"id":"c","choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}]` + more + "}\n\n"
}

const (
	role   = `data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"
	finish = `data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	total  = `data: {"id":"c","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}` + "\n\n"
	done   = "data: [DONE]\n\n"
)

// meter meters an answer to ask(fields), with two seconds on the clock.
func meter(t *testing.T, fields string, o format.MeterOptions) *openai.Meter {
	t.Helper()
	r := parse(t, ask(fields))
	b, err := r.Bound(limits)
	if err != nil {
		t.Fatal(err)
	}
	o.Start, o.Now = start, func() time.Time { return start.Add(2 * time.Second) }
	return openai.NewMeter(r, b, nil, o)
}

// pass lets events pass and returns what the client got.
func pass(m *openai.Meter, events ...string) string {
	var got strings.Builder
	for _, event := range events {
		out, last := m.Event([]byte(event))
		got.Write(out)
		if !last && out != nil {
			m.Delivered()
		}
	}
	return got.String()
}

// tokens is the part of a usage that most tests are about.
func tokens(input, output int64) pricing.Units {
	return pricing.Units{pricing.InputTokens: input, pricing.OutputTokens: output}
}

func onlyTokens(u pricing.Units) pricing.Units {
	return tokens(u[pricing.InputTokens], u[pricing.OutputTokens])
}

func TestWhatTheClientSees(t *testing.T) {
	const use = `,"usage":{"prompt_tokens":12,"completion_tokens":1}`
	const stream = `"stream":true,"stream_options":`
	forced := format.MeterOptions{ContinuousUsage: true}
	for name, c := range map[string]struct {
		fields    string
		o         format.MeterOptions
		in, wants string
	}{
		"content":   {`"stream":true`, forced, content("a", ""), content("a", "")},
		"role":      {`"stream":true`, forced, role, role},
		"done":      {`"stream":true`, forced, done, done},
		"a comment": {`"stream":true`, forced, ": ping\n\n", ": ping\n"},
		"a comment that only the gateway may make": {`"stream":true`, forced, ": l402 cost_msat=1 balance_msat=2\n", ""},
		"ids and retries":                          {`"stream":true`, forced, "id: 4\nretry: 10\n" + content("a", ""), content("a", "")},
		"a name and a comment":                     {`"stream":true`, forced, "event: message\n: c\n" + content("a", ""), "event: message\n: c\n" + content("a", "")},
		"the same and an id":                       {`"stream":true`, forced, "event: message\nid: 1\n: c\n" + content("a", ""), strings.TrimSuffix(content("a", ""), "\n") + "event: message\n: c\n\n"},
		"no blank line":                            {`"stream":true`, forced, strings.TrimSuffix(content("a", ""), "\n\n"), content("a", "")},
		"carriage returns":                         {`"stream":true`, forced, strings.ReplaceAll(content("a", ""), "\n", "\r"), content("a", "")},
		"numbers that are none":                    {`"stream":true`, forced, content("NaN", `,"a":[NaN,-Infinity,1]`), content("NaN", `,"a":[null,null,1]`)},
		"a heartbeat":                              {`"stream":true`, forced, "data: ping\n\n", ""},
		"an object of another kind":                {`"stream":true`, forced, `data: {"type":"ping"}` + "\n\n", ""},
		"timings":                                  {`"stream":true`, format.MeterOptions{Timings: true}, content("a", `,"timings":{"predicted_n":1,"prompt_n":5}`), content("a", "")},
		"timings that nobody forced":               {`"stream":true`, forced, content("a", `,"timings":{"predicted_n":1}`), content("a", `,"timings":{"predicted_n":1}`)},
		"an unknown event":                         {`"stream":true`, forced, "event: x\nid: 4\nretry: 10\n\n", ""},
		"a blank line":                             {`"stream":true`, forced, "\n", ""},
		"no JSON":                                  {`"stream":true`, forced, "data: {\"usage\":1\n\n", ""},
		"usage chunk, not asked for":               {`"stream":true`, forced, total, ""},
		"usage chunk, refused":                     {stream + `{"include_usage":false}`, forced, total, ""},
		"usage chunk, asked for":                   {stream + `{"include_usage":true}`, forced, total, total},
		"usage chunk, no choices":                  {`"stream":true`, forced, `data: {"usage":{"prompt_tokens":1}}` + "\n\n", ""},
		"running usage, not asked for":             {`"stream":true`, forced, content("a", use), content("a", "")},
		"running usage, first":                     {`"stream":true`, forced, `data:{ "usage" : {} , "choices":[{"index":0}]}` + "\r\n\r\n", `data: { "choices":[{"index":0}]}` + "\n\n"},
		"running usage, only the chunk":            {stream + `{"include_usage":true}`, forced, content("a", use), content("a", "")},
		"running usage, asked for":                 {stream + `{"include_usage":true,"continuous_usage_stats":true}`, forced, content("a", use), content("a", use)},
		"usage at the end, asked for":              {stream + `{"include_usage":true}`, format.MeterOptions{}, content("a", use), content("a", use)},
		"usage at the end, not asked for":          {`"stream":true`, format.MeterOptions{}, content("a", use), content("a", "")},
		"null usage, not asked for":                {`"stream":true`, forced, content("a", `,"usage":null`), content("a", "")},
		"null usage, asked for":                    {stream + `{"include_usage":true}`, forced, content("a", `,"usage":null`), content("a", `,"usage":null`)},
		"null usage without choices":               {`"stream":true`, forced, `data: {"choices":[],"prompt_filter_results":[],"usage":null}` + "\n\n", `data: {"choices":[],"prompt_filter_results":[]}` + "\n\n"},
		"an error":                                 {`"stream":true`, forced, `data: {"error":{"message":"x"},"usage":{"prompt_tokens":1}}` + "\n\n", ""},
		"data in two lines":                        {`"stream":true`, forced, "id: 7\ndata: {\"choices\":[{}],\ndata: \"usage\":null, \"a\":1}\n\n", "data: {\"choices\":[{}], \"a\":1}\n\n"},
		"data in two lines, nothing to hide":       {`"stream":true`, forced, "data: {\"choices\":[{}],\ndata: \"a\":1}\n\n", "data: {\"choices\":[{}], \"a\":1}\n\n"},
		"a usage within the text is no usage":      {`"stream":true`, forced, content(`\"usage\":{}`, ""), content(`\"usage\":{}`, "")},
		"a byte order mark":                        {`"stream":true`, forced, "\ufeff" + content("a", use), content("a", "")},
	} {
		m := meter(t, c.fields, c.o)
		event := []byte(c.in)
		out, last := m.Event(event)
		if string(out) != c.wants || (c.wants == "") != (out == nil) || last != (c.in == done) || string(event) != c.in {
			t.Errorf("%s:\n got %q, last %v\nwant %q", name, out, last, c.wants)
		}
	}
}

func TestOnlyWhatWasDeliveredCounts(t *testing.T) {
	m := meter(t, `"stream":true`, format.MeterOptions{ContinuousUsage: true})
	if u, s := m.Running(); u != (pricing.Units{}) || s != metering.SourceNone {
		t.Errorf("before anything: %+v %s", u, s)
	}
	event := content("hello ", `,"usage":{"prompt_tokens":12,"completion_tokens":1}`)
	out, _ := m.Event([]byte(event))
	if u, s := m.Running(); u != (pricing.Units{}) || s != metering.SourceNone {
		t.Errorf("before it was delivered: %+v %s", u, s)
	}
	sent := int64(len(out))
	m.Delivered()
	m.Delivered() // again changes nothing
	want := pricing.Units{pricing.InputTokens: 12, pricing.OutputTokens: 1, pricing.Calls: 1, pricing.Bytes: sent, pricing.WallMicros: 2_000_000}
	if u, s := m.Running(); u != want || s != metering.SourceRunning {
		t.Errorf("%+v %s, want %+v", u, s, want)
	}
	m.Event([]byte(content("world", `,"usage":{"prompt_tokens":12,"completion_tokens":2}`)))
	u, s, clamped := m.Final(format.ClientGone, start.Add(3*time.Second))
	want[pricing.WallMicros] = 3_000_000
	if u != want || s != metering.SourceRunning || clamped {
		t.Errorf("the client left before the second word: %+v %s %v, want %+v", u, s, clamped, want)
	}
}

// Each step is an event and the running count after it.
func TestRunning(t *testing.T) {
	use := func(n string) string { return `,"usage":{"prompt_tokens":12,"completion_tokens":` + n + `}` }
	at := func(index, text, n string) string {
		return `data: {"choices":[{"index":` + index + `,"delta":{"content":"` + text + `"}}]` + use(n) + "}\n\n"
	}
	type step struct {
		event  string
		output int64
		source metering.Source
	}
	for name, steps := range map[string][]step{
		"a usage in every chunk": {{role, 0, "counted"}, {content("a word of many bytes", use("1")), 1, "running"}, {content(" b", use("4")), 4, "running"}},
		"vLLM's first chunk": {{`data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":{"prompt_tokens":12,"completion_tokens":0}}` + "\n\n", 0, "running"},
			{content("x", use("1")), 1, "running"}},
		"zero in between means nothing":         {{content("aaaa", use("0")), 1, "counted"}, {content("bbbb", use("0")), 2, "counted"}, {content("c", use("3")), 3, "running"}, {content("d", use("0")), 4, "counted"}},
		"smaller in between means nothing":      {{content("a", use("5")), 5, "running"}, {content("b", use("2")), 5, "running"}, {content("c", use("6")), 6, "running"}},
		"a usage that stands still":             {{content("a", use("1")), 1, "running"}, {content("b", use("1")), 2, "counted"}, {content("c", use("1")), 3, "counted"}},
		"chunks without a usage after one with": {{content("a", use("1")), 1, "running"}, {content("12345678", ""), 2, "counted"}, {content("x", use("4")), 4, "running"}},
		"deltas":                                {{content("a", ""), 1, "counted"}, {content("b", ""), 2, "counted"}, {content("", ""), 2, "counted"}},
		"bytes":                                 {{content("1234567890123456", ""), 1, "counted"}, {content("12345678901234567", ""), 6, "counted"}},
		"two completions, each its own usage": {{at("0", "", "0"), 0, "running"}, {at("1", "", "0"), 0, "running"},
			{at("0", "a", "1"), 1, "running"}, {at("1", "b", "1"), 2, "running"}, {at("1", "c", "2"), 3, "running"}},
		"two completions, one usage": {{content("a", ""), 1, "counted"}, {at("1", "b", "9"), 9, "counted"}},
		"reasoning":                  {{`data: {"choices":[{"index":0,"delta":{"reasoning_content":"12345678"}}]}` + "\n\n", 1, "counted"}, {`data: {"choices":[{"index":0,"delta":{"reasoning":"abcd","reasoning_content":"abcd","content":null}}]}` + "\n\n", 2, "counted"}},
		"a tool call":                {{`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_12345678","type":"function","function":{"name":"get_time","arguments":""}}]}}]}` + "\n\n", 1, "counted"}, {`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\": 1}"}}]}}]}` + "\n\n", 2, "counted"}},
		"a function call":            {{`data: {"choices":[{"index":0,"delta":{"function_call":{"name":"f","arguments":"{}"}}}]}` + "\n\n", 1, "counted"}},
		"a refusal":                  {{`data: {"choices":[{"index":0,"delta":{"refusal":"I cannot"}}]}` + "\n\n", 1, "counted"}},
		"parts":                      {{`data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"12345678"}]}}]}` + "\n\n", 1, "counted"}},
		"text of the older format":   {{`data: {"choices":[{"index":0,"text":"12345678"}]}` + "\n\n", 1, "counted"}},
		"escapes":                    {{content(strings.Repeat(`\u00e9\u00e9\ud83d\ude00`, 3), ""), 6, "counted"}},
		"what is no JSON":            {{"data: hello world!\n\n", 0, "none"}},
		"tokens listed by logprobs":  {{`data: {"choices":[{"index":0,"delta":{},"logprobs":{"content":[{"token":"a","logprob":-1},{"token":"b","logprob":-Infinity}]}}]}` + "\n\n", 2, "counted"}},
		"tokens listed by their ids": {{`data: {"choices":[{"index":0,"delta":{},"token_ids":[1,2,3]}]}` + "\n\n", 3, "counted"}},
		"sound":                      {{`data: {"choices":[{"index":0,"delta":{"audio":{"id":"a","data":"` + strings.Repeat("AAAA", 100) + `"}}}]}` + "\n\n", 1, "counted"}},
		"a transcript":               {{`data: {"choices":[{"index":0,"delta":{"audio":{"transcript":"hello"}}}]}` + "\n\n", 1, "counted"}},
		"thinking parts":             {{`data: {"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"1234567890123456789012345"}]}]}}]}` + "\n\n", 7, "counted"}},
		"an unknown member":          {{`data: {"choices":[{"index":0,"delta":{"inner_voice":"hm"}}]}` + "\n\n", 1, "counted"}},
		"an unknown member above":    {{`data: {"words":"hm","choices":[{"index":0,"delta":{}}]}` + "\n\n", 1, "counted"}},
		"known members above":        {{`data: {"id":"hm","obfuscation":"xyz","choices":[{"index":0,"delta":{"role":"assistant"}}]}` + "\n\n", 0, "counted"}},
		"a picture":                  {{`data: {"choices":[{"index":0,"delta":{"images":[{"image_url":{"url":"data:image/png;base64,` + strings.Repeat("AAAA", 100) + `"}}]}}]}` + "\n\n", 1 + int64(format.DefaultPartTokens), "counted"}},
		"timings":                    {{content("a", `,"timings":{"cache_n":4,"prompt_n":8,"predicted_n":3}`), 3, "running"}},
		"what makes no sense":        {{`data: {"choices":[[1],"x",null,{"index":"a","delta":[{"content":"x"}]}],"usage":[]}` + "\n\n", 2, "counted"}},
	} {
		m := meter(t, `"stream":true,"n":2`, format.MeterOptions{ContinuousUsage: true})
		var last int64
		for i, step := range steps {
			pass(m, step.event)
			u, s := m.Running()
			if u[pricing.OutputTokens] != step.output || s != step.source {
				t.Errorf("%s, step %d: %d tokens, %s; want %d, %s", name, i, u[pricing.OutputTokens], s, step.output, step.source)
			}
			if u[pricing.OutputTokens] < last {
				t.Errorf("%s, step %d: the count shrank", name, i)
			}
			last = u[pricing.OutputTokens]
		}
	}
}

func TestFinished(t *testing.T) {
	two := `data: {"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	for name, c := range map[string]struct {
		events []string
		want   bool
	}{
		"nothing":       {nil, false},
		"text":          {[]string{content("a", "")}, false},
		"one of two":    {[]string{content("a", ""), finish}, false},
		"both":          {[]string{content("a", ""), finish, two}, true},
		"a usage alone": {[]string{content("a", ""), total}, false},
		"no reason":     {[]string{strings.Replace(finish, `"stop"`, `""`, 1), strings.Replace(two, `"stop"`, `"null"`, 1)}, false},
		"done":          {[]string{content("a", ""), done}, false},
		"one, and done": {[]string{content("a", ""), finish, done}, false},
		"both, no done": {[]string{content("a", ""), two, finish, total}, true},
	} {
		m := meter(t, `"stream":true,"n":2`, format.MeterOptions{})
		pass(m, c.events...)
		if m.Finished() != c.want {
			t.Errorf("%s: finished %v", name, !c.want)
		}
	}
}

func TestMemoryStaysBounded(t *testing.T) {
	m := meter(t, `"stream":true`, format.MeterOptions{})
	event := []byte(content("hello", ""))
	m.Event(event)
	m.Delivered()
	allocations := testing.AllocsPerRun(1000, func() {
		m.Event(event)
		m.Delivered()
		m.Running()
	})
	if allocations > 0 {
		t.Errorf("%v allocations per event", allocations)
	}
	var many strings.Builder
	for range 100_000 {
		many.WriteString(`{"index":-1},{"index":7000},`)
	}
	pass(m, `data: {"choices":[`+many.String()+`{}]}`+"\n\n")
	if u, _ := m.Running(); u[pricing.InputTokens] == 0 {
		t.Error("nothing was counted")
	}
}
