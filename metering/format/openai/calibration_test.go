package openai_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

// answer meters one unary answer of a text with a usage, which took a while, for
// an account of its own.
func answer(t *testing.T, cal *format.Calibration, fields, text, usage string, took time.Duration) {
	t.Helper()
	answerTo(t, cal, accounts.Add(1), fields, text, usage, took)
}

// accounts numbers those that tests have.
var accounts atomic.Uint64

// answerTo is answer for one account.
func answerTo(t *testing.T, cal *format.Calibration, account uint64, fields, text, usage string, took time.Duration) {
	t.Helper()
	r := parse(t, ask(fields))
	b, err := r.Bound(format.Limits{ContextTokens: 100_000, MaxCompletion: 100_000, TemplateBase: 100})
	if err != nil {
		t.Fatal(err)
	}
	m := openai.NewMeter(r, b, cal, format.MeterOptions{Start: start, Voter: account})
	part := len(text) / int(b.Sequences)
	choices := strings.Repeat(`{"message":{"content":"`+text[:part]+`"}},`, int(b.Sequences))
	if _, err := m.Unary([]byte(`{"choices":[` + choices[:len(choices)-1] + `],"usage":{` + usage + `}}`)); err != nil {
		t.Fatal(err)
	}
	m.Final(format.Complete, start.Add(took))
}

func near(a, b float64) bool { return math.Abs(a-b) < 0.05*b }

func TestCalibrationStartsWithItsDefaults(t *testing.T) {
	c := format.NewCalibration()
	if p, o := c.BytesPerToken(); p != format.DefaultBytesPerToken || o != format.DefaultBytesPerToken || c.Pace() != format.DefaultPace {
		t.Errorf("%v %v %v", p, o, c.Pace())
	}
}

func TestCalibrationLearnsFromCompleteAnswers(t *testing.T) {
	c := format.NewCalibration()
	for range 200 { // 30 bytes of prompt, 300 of answer, in two seconds
		answer(t, c, "", strings.Repeat("a", 300), `"prompt_tokens":15,"completion_tokens":100`, 2*time.Second)
	}
	prompt, completion := c.BytesPerToken()
	if !near(prompt, 2) || !near(completion, 3) || !near(c.Pace(), 50) {
		t.Errorf("%v bytes per prompt token, %v per completion token, %v tokens per second; want 2, 3, 50", prompt, completion, c.Pace())
	}
	for range 200 {
		answer(t, c, `"n":2`, strings.Repeat("a", 600), `"prompt_tokens":15,"completion_tokens":200`, 10*time.Second)
	}
	if !near(c.Pace(), 10) {
		t.Errorf("%v tokens per second and completion, want 10", c.Pace())
	}
}

func TestCalibrationLearnsNothingFromTheOddOnes(t *testing.T) {
	for name, a := range map[string]struct{ fields, text, usage string }{
		"more tokens than bytes": {"", "aaaaaaaa", `"prompt_tokens":1000,"completion_tokens":1000`},
		"hardly any tokens":      {"", "a", `"prompt_tokens":1,"completion_tokens":1`},
		"absurdly few":           {"", strings.Repeat("a", 1000), `"prompt_tokens":1,"completion_tokens":4`},
		"hidden reasoning":       {"", strings.Repeat("a", 50), `"prompt_tokens":1,"completion_tokens":40,"completion_tokens_details":{"reasoning_tokens":35}`},
		"an image":               {`"chat_template":"x"`, "a", `"prompt_tokens":20,"completion_tokens":1`},
		"an impossible usage":    {"", strings.Repeat("a", 50), `"prompt_tokens":10,"completion_tokens":-40`},
		"zero":                   {"", strings.Repeat("a", 50), `"prompt_tokens":0,"completion_tokens":0`},
	} {
		c := format.NewCalibration()
		for range 50 {
			answer(t, c, a.fields, a.text, a.usage, time.Second)
		}
		if p, o := c.BytesPerToken(); p != format.DefaultBytesPerToken || o != format.DefaultBytesPerToken {
			t.Errorf("%s: %v %v", name, p, o)
		}
	}
}

func TestCalibrationStaysWithinReason(t *testing.T) {
	c := format.NewCalibration()
	for range 500 {
		answer(t, c, "", strings.Repeat("a", 1000), `"prompt_tokens":33,"completion_tokens":1000`, time.Second)
	}
	if p, o := c.BytesPerToken(); p < 1 || o < 1 || o > 1.05 {
		t.Errorf("%v %v", p, o)
	}
}

func TestCalibrationUnderConcurrentUse(t *testing.T) {
	c := format.NewCalibration()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 50 {
				answer(t, c, "", strings.Repeat("a", 300), fmt.Sprintf(`"prompt_tokens":%d,"completion_tokens":100`, 10+i+j%3), time.Second)
				c.BytesPerToken()
				c.Pace()
			}
		})
	}
	wg.Wait()
}

// One buyer asks for what takes many bytes per token, or few, as often as it
// likes: what others pay stays as it was.
func TestNoSingleAccountMovesTheCalibration(t *testing.T) {
	for _, odd := range []int{150, 10} { // bytes of ten tokens
		c := format.NewCalibration()
		for range 100 {
			answerTo(t, c, 1, "", strings.Repeat("a", odd), `"prompt_tokens":15,"completion_tokens":10`, time.Second)
		}
		if _, got := c.BytesPerToken(); !near(got, format.DefaultBytesPerToken) {
			t.Errorf("%v bytes per token after one account alone", got)
		}
		for range 20 {
			answer(t, c, "", strings.Repeat("a", 70), `"prompt_tokens":15,"completion_tokens":10`, time.Second)
		}
		for range 100 {
			answerTo(t, c, 1, "", strings.Repeat("a", odd), `"prompt_tokens":15,"completion_tokens":10`, time.Second)
		}
		if _, got := c.BytesPerToken(); !near(got, 7) {
			t.Errorf("%v bytes per token, want 7, of which 20 accounts say so", got)
		}
	}
}

// An estimate stays what it was until no single account decides it.
func TestAnEstimateWaitsForAccountsThatAgree(t *testing.T) {
	c := format.NewCalibration()
	for i := range 30 {
		answer(t, c, "", strings.Repeat("a", 160), `"prompt_tokens":15,"completion_tokens":10`, time.Second)
		want := format.DefaultBytesPerToken
		if i >= 5 { // the default has four votes, and without one of six accounts are five
			want = 16
		}
		if _, got := c.BytesPerToken(); got != want {
			t.Errorf("answer %d: %v bytes per token, want %v", i, got, want)
		}
	}
}

// Servers that put several tokens into one event are counted by their events,
// whatever the text is.
func TestEventsOfSeveralTokensAreLearned(t *testing.T) {
	c := format.NewCalibration()
	stream := func(voter uint64, deltas int, text string) *openai.Meter {
		r := parse(t, ask(`"stream":true`))
		b, err := r.Bound(limits)
		if err != nil {
			t.Fatal(err)
		}
		m := openai.NewMeter(r, b, c, format.MeterOptions{Start: start, Voter: voter})
		for range deltas {
			pass(m, content(text, ""))
		}
		return m
	}
	for i := range 20 { // three tokens per event of 45 bytes
		m := stream(uint64(i), 8, strings.Repeat("a", 45))
		pass(m, finish, `data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":24}}`+"\n\n", done)
		m.Final(format.Complete, start)
	}
	m := stream(99, 20, "a few words")
	if u, _, _ := m.Final(format.ClientGone, start); u[pricing.OutputTokens] != 60 {
		t.Errorf("%+v; want 60 tokens", u)
	}
}

// A document that nobody waited for is at most twice the usual answer, and begins
// after the usual time to begin.
func TestAnAbandonedDocumentIsBounded(t *testing.T) {
	c := format.NewCalibration()
	r := parse(t, ask(``))
	b, err := r.Bound(format.Limits{ContextTokens: 100_000, MaxCompletion: 100_000, TemplateBase: 100})
	if err != nil {
		t.Fatal(err)
	}
	left := func(after time.Duration) int64 {
		u, _, _ := openai.NewMeter(r, b, c, format.MeterOptions{Start: start}).Final(format.UnaryClientGone, start.Add(after))
		return u[pricing.OutputTokens]
	}
	if got := left(time.Hour); got != 2*format.DefaultAnswer {
		t.Errorf("%d tokens in an hour, want twice the usual answer", got)
	}
	if got := left(2 * time.Second); got != (2-format.DefaultBegin)*format.DefaultPace {
		t.Errorf("%d tokens in two seconds", got)
	}
	for voter := range uint64(20) { // streams begin after a second and a half
		now := start
		m := openai.NewMeter(r, b, c, format.MeterOptions{Start: start, Voter: voter, Now: func() time.Time { return now }})
		now = start.Add(1500 * time.Millisecond)
		pass(m, content("a", ""), content("b", ""), content("c", ""), content("d", ""), finish,
			`data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":4}}`+"\n\n", done)
		m.Final(format.Complete, now)
	}
	if got := left(2 * time.Second); got != format.DefaultPace/2 {
		t.Errorf("%d tokens in two seconds, of which it began to answer after one and a half", got)
	}
	if got := left(time.Second); got != 0 {
		t.Errorf("%d tokens before it usually begins", got)
	}
}

// A stream counts by the ratio that the answers before it have taught.
func TestCountsFollowTheCalibration(t *testing.T) {
	c := format.NewCalibration()
	for range 300 {
		answer(t, c, "", strings.Repeat("a", 200), `"prompt_tokens":15,"completion_tokens":100`, time.Second)
	}
	r := parse(t, ask(`"stream":true`))
	b, err := r.Bound(limits)
	if err != nil {
		t.Fatal(err)
	}
	m := openai.NewMeter(r, b, c, format.MeterOptions{Start: start})
	pass(m, content(strings.Repeat("b", 100), ""))
	if u, _, _ := m.Final(format.BackendCut, start); u[pricing.OutputTokens] < 49 || u[pricing.OutputTokens] > 52 || u[pricing.InputTokens] != 15 {
		t.Errorf("%+v; want 15 and about 50 tokens", u)
	}
}
