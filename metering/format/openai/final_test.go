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

// estimated is the prompt of ask by the default ratio: its text, a template's
// overhead of 16 bytes, 4 bytes per token.
const estimated = (4 + 10 + 16 + 3) / 4

func TestFinal(t *testing.T) {
	use := func(p, c string) string { return `,"usage":{"prompt_tokens":` + p + `,"completion_tokens":` + c + `}` }
	usage := func(p, c string) string { return `data: {"choices":[]` + use(p, c) + "}\n\n" }
	finished := func(p, c string) string {
		return `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]` + use(p, c) + "}\n\n"
	}
	broken := `data: {"error":{"message":"out of memory"}}` + "\n\n"
	for name, c := range map[string]struct {
		events  []string
		end     format.End
		want    pricing.Units
		source  metering.Source
		clamped bool
	}{
		"complete":                           {[]string{role, content("a", ""), content("b", ""), finish, total, done}, format.Complete, tokens(12, 3), "reported", false},
		"complete without [DONE]":            {[]string{role, content("a", ""), finish, total}, format.Complete, tokens(12, 3), "reported", false},
		"complete, usage with the last word": {[]string{role, content("a", ""), finished("12", "5"), done}, format.Complete, tokens(12, 5), "reported", false},
		"complete, a lie below what came":    {[]string{content("a", ""), content("b", ""), content("c", ""), usage("12", "1"), done}, format.Complete, tokens(12, 3), "counted", false},
		"a usage before the text":            {[]string{usage("12", "1"), content("a", ""), content("b", ""), content("c", "")}, format.ClientGone, tokens(12, 4), "counted", false},
		"reasoning beside the completion":    {[]string{content("a", ""), `data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":2,"total_tokens":40}}` + "\n\n", done}, format.Complete, tokens(12, 28), "reported", false},
		"complete, hidden reasoning":         {[]string{content("a", ""), `data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":40}}}` + "\n\n", done}, format.Complete, tokens(12, 42), "reported", false},
		"complete, only a total":             {[]string{content("a", ""), `data: {"usage":{"prompt_tokens":12,"total_tokens":20}}` + "\n\n", done}, format.Complete, tokens(12, 8), "reported", false},
		"complete, fractions":                {[]string{content("a", ""), usage("12.0", "3.9e0"), done}, format.Complete, tokens(12, 3), "reported", false},
		"complete, no usage":                 {[]string{role, content("a", ""), content("12345678", ""), finish, done}, format.Complete, tokens(estimated, 2), "counted", false},
		"complete, running usage only":       {[]string{role, content("a", use("12", "1")), content("b", use("12", "2")), finish, done}, format.Complete, tokens(12, 2), "running", false},
		"complete, a usage that is none":     {[]string{content("a", ""), `data: {"choices":[],"usage":{"tokens":5}}` + "\n\n", done}, format.Complete, tokens(estimated, 1), "counted", false},
		"empty answer":                       {[]string{role, finish, usage("12", "0"), done}, format.Complete, tokens(12, 0), "reported", false},
		"final usage 0, nothing delivered":   {[]string{role, finish, usage("0", "0"), done}, format.Complete, tokens(0, 0), "reported", false},
		"final usage 0, but content":         {[]string{content("12345678", ""), usage("0", "0"), done}, format.Complete, tokens(estimated, 1), "counted", false},
		"final usage 0, running not":         {[]string{content("a", use("12", "1")), content("b", use("12", "2")), usage("0", "0"), done}, format.Complete, tokens(12, 2), "running", false},
		"final prompt 0":                     {[]string{content("a", ""), usage("0", "7"), done}, format.Complete, tokens(estimated, 7), "counted", false},
		"negative completion":                {[]string{content("12345678", ""), usage("12", "-5"), done}, format.Complete, tokens(12, 1), "counted", true},
		"negative prompt":                    {[]string{content("a", ""), usage("-12", "5"), done}, format.Complete, tokens(estimated, 5), "counted", true},
		"negative, with the last word":       {[]string{content("a", ""), finished("-12", "-5"), done}, format.Complete, tokens(estimated, 1), "counted", true},
		"completion above the bound":         {[]string{content("a", ""), usage("12", "257"), done}, format.Complete, tokens(12, 256), "reported", true},
		"prompt above the bound":             {[]string{content("a", ""), usage("5000", "5"), done}, format.Complete, tokens(prompt, 5), "reported", true},
		"beyond any number":                  {[]string{content("a", ""), usage("1e300", "99999999999999999999"), done}, format.Complete, tokens(prompt, 1), "counted", true},
		"running above the bound":            {[]string{content("a", use("5000", "9000"))}, format.BackendCut, tokens(prompt, 256), "running", true},
		"more delivered than the bound":      {[]string{content(strings.Repeat("a", 4000), "")}, format.BackendCut, tokens(estimated, 256), "counted", false},
		"final usage 0, an estimate above":   {[]string{content(strings.Repeat("a", 4000), ""), usage("0", "0"), done}, format.Complete, tokens(estimated, 256), "counted", false},
		"backend cut":                        {[]string{role, content("a", use("12", "1")), content("b", use("12", "2"))}, format.BackendCut, tokens(12, 2), "running", false},
		"backend cut, no usage":              {[]string{role, content("a", ""), content("b", "")}, format.BackendCut, tokens(estimated, 2), "counted", false},
		"backend cut after the role":         {[]string{role}, format.BackendCut, tokens(estimated, 0), "counted", false},
		"backend cut before anything":        {nil, format.BackendCut, tokens(0, 0), "none", false},
		"backend cut after a comment":        {[]string{": ping\n\n"}, format.BackendCut, tokens(0, 0), "none", false},
		"nothing but [DONE]":                 {[]string{done}, format.Complete, tokens(0, 0), "none", false},
		"an error instead of an answer":      {[]string{broken, done}, format.Complete, tokens(0, 0), "none", false},
		"an error after the role":            {[]string{role, broken, done}, format.Complete, tokens(0, 0), "none", false},
		"an error in the answer":             {[]string{role, content("a", use("12", "1")), broken, done}, format.Complete, tokens(12, 1), "running", false},
		"an error event":                     {[]string{"event: error\ndata: {}\n\n"}, format.BackendCut, tokens(0, 0), "none", false},
		"client gone":                        {[]string{role, content("a", ""), content("b", "")}, format.ClientGone, tokens(estimated, 2), "counted", false},
		"client gone before the first event": {nil, format.ClientGone, tokens(estimated, 0), "counted", false},
		"client gone after the answer":       {[]string{content("a", ""), finish, total}, format.ClientGone, tokens(12, 3), "reported", false},
		"hold exhausted":                     {[]string{content("a", use("12", "1"))}, format.HoldExhausted, tokens(12, 1), "running", false},
		"drained":                            {[]string{content("a", use("12", "1"))}, format.Drained, tokens(12, 1), "running", false},
		"unary client gone":                  {nil, format.UnaryClientGone, tokens(estimated, 195), "pace", false},
	} {
		m := meter(t, `"stream":true`, format.MeterOptions{ContinuousUsage: true})
		pass(m, c.events...)
		u, s, clamped := m.Final(c.end, start.Add(4*time.Second))
		if onlyTokens(u) != c.want || s != c.source || clamped != c.clamped {
			t.Errorf("%s: %d+%d %s, clamped %v; want %d+%d %s, %v", name, u[pricing.InputTokens], u[pricing.OutputTokens], s, clamped,
				c.want[pricing.InputTokens], c.want[pricing.OutputTokens], c.source, c.clamped)
		}
		if charged := c.want != tokens(0, 0); (u[pricing.Calls] == 1) != charged || (u[pricing.WallMicros] == 4_000_000) != charged || (!charged && u != pricing.Units{}) {
			t.Errorf("%s: %+v", name, u)
		}
	}
}

func TestALastWordThatWasNotDelivered(t *testing.T) {
	m := meter(t, `"stream":true`, format.MeterOptions{})
	pass(m, content("a", ""))
	m.Event([]byte(content("b", ""))) // the write failed
	m.Event([]byte(total))
	if u, s, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(12, 1) || s != metering.SourceCounted {
		t.Errorf("%+v %s; want one token, counted", u, s)
	}
	m = meter(t, `"stream":true,"stream_options":{"include_usage":true}`, format.MeterOptions{})
	pass(m, content("a", ""))
	m.Event([]byte(total)) // this write failed, but all text was delivered
	if u, s, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(12, 3) || s != metering.SourceReported {
		t.Errorf("%+v %s; want the reported usage", u, s)
	}
}

func TestFourCompletions(t *testing.T) {
	m := meter(t, `"stream":true,"n":4,"max_tokens":10`, format.MeterOptions{})
	for _, index := range []string{"0", "1", "2", "3", "0", "1"} {
		pass(m, `data: {"choices":[{"index":`+index+`,"delta":{"content":"abcdefgh"}}]}`+"\n\n")
	}
	if u, s, _ := m.Final(format.ClientGone, start); u[pricing.OutputTokens] != 6 || s != metering.SourceCounted {
		t.Errorf("%+v %s; want 6 tokens", u, s)
	}
	m = meter(t, `"n":4,"max_tokens":10`, format.MeterOptions{})
	if u, s, _ := m.Final(format.UnaryClientGone, start.Add(200*time.Millisecond)); u[pricing.OutputTokens] != 20 || s != metering.SourcePace {
		t.Errorf("%+v %s; want 5 tokens of each", u, s)
	}
	if u, _, _ := m.Final(format.UnaryClientGone, start.Add(time.Hour)); u[pricing.OutputTokens] != 40 {
		t.Errorf("%+v; want the bound", u)
	}
	if u, _, _ := m.Final(format.UnaryClientGone, start.Add(-time.Hour)); u[pricing.OutputTokens] != 0 || u[pricing.WallMicros] != 0 {
		t.Errorf("%+v; want nothing before the start", u)
	}
}

// Each completion ends with a usage of its own; events hold several tokens.
func TestUsageOfEachCompletion(t *testing.T) {
	words := func(index string) string {
		return `data: {"choices":[{"index":` + index + `,"delta":{"content":"five tokens in one"},"finish_reason":"stop"}]}` + "\n\n"
	}
	five := `data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}` + "\n\n"
	m := meter(t, `"stream":true,"n":2`, format.MeterOptions{UsagePerSequence: true})
	pass(m, words("0"), five, words("1"))
	if u, _ := m.Running(); u[pricing.OutputTokens] != 5+5 {
		t.Errorf("%+v; want 5 tokens and 18 bytes", u)
	}
	pass(m, five, done)
	if u, s, _ := m.Final(format.Complete, start); onlyTokens(u) != tokens(12, 10) || s != metering.SourceReported {
		t.Errorf("%+v %s; want 10 tokens", u, s)
	}
}

// No text is no tokens, and no token is less than a byte.
func TestTokenizerThatIsNotBelieved(t *testing.T) {
	for _, counts := range [][2]int64{{0, 0}, {-1, -1}, {0, 13}} {
		m := meter(t, `"stream":true`, format.MeterOptions{KeepText: true})
		pass(m, content("Hello, world", ""))
		m.Tokenized(counts[0], counts[1])
		if u, s, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(estimated, 1) || s != metering.SourceCounted {
			t.Errorf("%v: %+v %s", counts, u, s)
		}
	}
}

func TestCachedTokens(t *testing.T) {
	for details, c := range map[string]struct {
		want    int64
		clamped bool
	}{
		`"prompt_tokens_details":{"cached_tokens":8}`:              {8, false},
		`"prompt_tokens_details":{"cached_tokens":800}`:            {0, true},
		`"prompt_tokens_details":{"cached_tokens":-8}`:             {0, true},
		`"prompt_tokens_details":null`:                             {0, false},
		`"prompt_cache_hit_tokens":5,"prompt_cache_miss_tokens":7`: {5, false},
		`"prompt_cache_hit_tokens":-5`:                             {0, true},
	} {
		m := meter(t, `"stream":true`, format.MeterOptions{})
		pass(m, content("a", ""), `data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":1,`+details+"}}\n\n")
		if u, _, clamped := m.Final(format.Complete, start); u[pricing.CachedInputTokens] != c.want || u[pricing.InputTokens] != 12 || clamped != c.clamped {
			t.Errorf("%s: %+v, clamped %v", details, u, clamped)
		}
	}
}

func TestUnary(t *testing.T) {
	answer := func(more string) string {
		return `{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"Hello, world","tool_calls":[{"id":"x","function":{"name":"f","arguments":"{\"a\":1}"}}]},"finish_reason":"stop"}]` + more + `}`
	}
	for name, c := range map[string]struct {
		body    string
		want    pricing.Units
		source  metering.Source
		clamped bool
		broken  bool
	}{
		"reported":             {answer(`,"usage":{"prompt_tokens":12,"completion_tokens":9}`), tokens(12, 9), "reported", false, false},
		"no usage":             {answer(``), tokens(estimated, 5), "counted", false, false},
		"null usage":           {answer(`,"usage":null`), tokens(estimated, 5), "counted", false, false},
		"zero usage":           {answer(`,"usage":{"prompt_tokens":0,"completion_tokens":0}`), tokens(estimated, 5), "counted", false, false},
		"lying usage":          {answer(`,"usage":{"prompt_tokens":-1,"completion_tokens":100000}`), tokens(estimated, 256), "counted", true, false},
		"two choices":          {`{"choices":[{"index":0,"message":{"content":"12345678"}},{"index":1,"message":{"content":"1234"}}]}`, tokens(estimated, 3), "counted", false, false},
		"arguments as objects": {`{"choices":[{"message":{"tool_calls":[{"function":{"name":"get_time","arguments":{"a":[1]}}}]}}]}`, tokens(estimated, 5), "counted", false, false},
		"an error":             {`{"error":{"message":"x"}}`, tokens(0, 0), "none", false, true},
		"not a number":         {strings.Replace(answer(`,"usage":{"prompt_tokens":12,"completion_tokens":9}`), `"index":0`, `"index":NaN`, 1), tokens(12, 9), "reported", false, false},
		"another object":       {`{"detail":"not here"}`, tokens(0, 0), "none", false, true},
		"no choice":            {`{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":9}}`, tokens(0, 0), "none", false, true},
		"no text, no usage":    {`{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}`, tokens(estimated, 0), "counted", false, false},
		"no text, no end":      {`{"choices":[{"message":{"content":""}}],"usage":{"prompt_tokens":12,"completion_tokens":9}}`, tokens(0, 0), "none", false, true},
		"nothing at all":       {`{}`, tokens(0, 0), "none", false, true},
		"white space":          {"\n " + answer(`,"usage":{"prompt_tokens":12,"completion_tokens":9}`) + "\n", tokens(12, 9), "reported", false, false},
		"no JSON":              {`hello world!`, tokens(0, 0), "none", false, true},
		"cut":                  {answer(``)[:100], tokens(0, 0), "none", false, true},
		"huge":                 {`{"choices":[{"message":{"content":"` + strings.Repeat("word", 1<<20) + `"}}],"usage":{"prompt_tokens":12,"completion_tokens":200}}`, tokens(12, 256), "counted", false, false},
	} {
		m := meter(t, ``, format.MeterOptions{})
		if _, err := m.Unary([]byte(c.body)); (err != nil) != c.broken {
			t.Errorf("%s: error %v", name, err)
		}
		u, s, clamped := m.Final(format.Complete, start.Add(time.Second))
		if onlyTokens(u) != c.want || s != c.source || clamped != c.clamped {
			t.Errorf("%s: %+v %s, clamped %v; want %+v %s, %v", name, u, s, clamped, c.want, c.source, c.clamped)
		}
		if c.want != tokens(0, 0) && u[pricing.Bytes] != int64(len(c.body)) && !strings.Contains(c.body, "NaN") {
			t.Errorf("%s: %d bytes, want %d", name, u[pricing.Bytes], len(c.body))
		}
	}
}

func TestTokenizer(t *testing.T) {
	keep := format.MeterOptions{KeepText: true}
	m := meter(t, `"stream":true,"n":2`, keep)
	pass(m, role, content("Hello, ", ""), `data: {"choices":[{"index":1,"delta":{"content":"\u00e9t\u00e9"}}]}`+"\n\n", content("world", ""))
	m.Event([]byte(content(" not delivered", "")))
	prompt, text, ok := m.NeedsTokenizer()
	if !prompt || text != "Hello, worldété" || !ok {
		t.Errorf("%v %q %v", prompt, text, ok)
	}
	m.Tokenized(21, 6)
	if u, s, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(21, 6) || s != metering.SourceTokenizer {
		t.Errorf("%+v %s", u, s)
	}

	m = meter(t, `"stream":true`, keep) // the tokenizer failed
	pass(m, content("Hello, world", ""))
	m.Tokenized(-1, -1)
	if u, s, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(estimated, 1) || s != metering.SourceCounted {
		t.Errorf("%+v %s", u, s)
	}

	m = meter(t, `"stream":true`, keep) // the backend reports
	pass(m, content("Hello", `,"usage":{"prompt_tokens":12,"completion_tokens":2}`))
	if prompt, text, ok = m.NeedsTokenizer(); prompt || text != "" || ok {
		t.Errorf("with a running usage: %v %q %v", prompt, text, ok)
	}

	m = meter(t, `"stream":true`, keep) // nothing delivered: the prompt alone
	if prompt, text, ok = m.NeedsTokenizer(); !prompt || text != "" || !ok {
		t.Errorf("with nothing delivered: %v %q %v", prompt, text, ok)
	}

	m = meter(t, ``, keep)
	if _, err := m.Unary([]byte(`{"choices":[{"message":{"content":"Hello"}}]}`)); err != nil {
		t.Fatal(err)
	}
	if prompt, text, ok = m.NeedsTokenizer(); !prompt || text != "Hello" || !ok {
		t.Errorf("unary: %v %q %v", prompt, text, ok)
	}
}

func TestACountedPromptIsNotEstimated(t *testing.T) {
	r := parse(t, ask(`"stream":true`))
	b, err := r.Bound(limits)
	if err != nil {
		t.Fatal(err)
	}
	m := openai.NewMeter(r, b.WithInput(17), nil, format.MeterOptions{Start: start, KeepText: true})
	pass(m, content("Hello", ""))
	if prompt, text, ok := m.NeedsTokenizer(); prompt || text != "Hello" || !ok {
		t.Errorf("%v %q %v", prompt, text, ok)
	}
	if u, s, _ := m.Final(format.ClientGone, start); onlyTokens(u) != tokens(17, 1) || s != metering.SourceCounted {
		t.Errorf("%+v %s", u, s)
	}
}

func TestEndsHaveOutcomes(t *testing.T) {
	for end, want := range map[format.End]metering.Outcome{
		format.Complete: metering.OutcomeComplete, format.BackendCut: metering.OutcomeBackendCut, format.ClientGone: metering.OutcomeClientGone,
		format.UnaryClientGone: metering.OutcomeClientGone, format.HoldExhausted: metering.OutcomeHoldExhausted, format.Drained: metering.OutcomeDrained,
	} {
		if got := end.Outcome(); got != want {
			t.Errorf("%d: %s, want %s", end, got, want)
		}
	}
}
