package openai_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

// class is a backend that teaches one calibration.
type class struct {
	t   *testing.T
	cal *format.Calibration
}

func (c class) meter(account uint64, now func() time.Time) *openai.Meter {
	a := asking()[1]
	return openai.NewMeter(a.request, a.bound, c.cal, format.MeterOptions{Start: start, Voter: account, Now: now})
}

// stream is a whole answer of some events, the first of which came after a while.
func (c class) stream(account uint64, begin time.Duration, usage string, texts ...string) {
	m := c.meter(account, func() time.Time { return start.Add(begin) })
	for _, text := range texts {
		pass(m, content(text, ""))
	}
	pass(m, finish, `data: {"choices":[],"usage":{"prompt_tokens":12,`+usage+"}}\n\n", done)
	m.Final(format.Complete, start.Add(begin+time.Second))
}

// left is what a client pays, in tokens, who leaves after some events.
func (c class) left(texts ...string) int64 {
	m := c.meter(1000, nil)
	for _, text := range texts {
		pass(m, content(text, ""))
	}
	u, _, _ := m.Final(format.ClientGone, start)
	return u[pricing.OutputTokens]
}

func times(n int, text string) []string {
	return strings.Split(strings.Repeat(text+"\x00", n), "\x00")[:n]
}

// One account may say what it likes, as often as it likes, before or after others:
// the tokens of an event and the time to begin stay as they say.
func TestNoSingleAccountMovesAnyEstimate(t *testing.T) {
	for _, honest := range []uint64{0, 3, 4, 5, 7, 8, 20} {
		for _, odd := range [][]string{times(10, strings.Repeat("abcd", 30)), times(10, "abcd"), times(40, "a")} {
			c := class{t, format.NewCalibration()}
			for account := range honest {
				c.stream(account, 100*time.Millisecond, `"completion_tokens":50`, times(50, "abcd")...)
			}
			for range 60 {
				c.stream(99, 30*time.Second, `"completion_tokens":180`, odd...)
				c.left("abcd") // someone reads the estimate
			}
			if got := c.left(times(100, "abcd")...); got != 100 {
				t.Errorf("%d others: 100 events are %d tokens after one account's answers", honest, got)
			}
			u, _, _ := c.meter(1000, nil).Final(format.UnaryClientGone, start.Add(2*time.Second))
			if want := int64((2 - format.DefaultBegin) * format.DefaultPace); u[pricing.OutputTokens] != want {
				t.Errorf("%d others: two seconds are %d tokens after one account's slow answers, want %d", honest, u[pricing.OutputTokens], want)
			}
		}
	}
}

// Reasoning that is not sent is no part of the events, whatever tells of it.
func TestHiddenReasoningTeachesNoTokensPerEvent(t *testing.T) {
	for _, usage := range []string{
		`"completion_tokens":180`,
		`"completion_tokens":40,"completion_tokens_details":{"reasoning_tokens":20}`,
		`"completion_tokens":20,"total_tokens":52`,
	} {
		c := class{t, format.NewCalibration()}
		for account := range uint64(20) {
			c.stream(account, time.Second, usage, times(20, "abcd")...)
		}
		if got := c.left(times(100, "abcd")...); got != 100 {
			t.Errorf("%s: 100 events are %d tokens", usage, got)
		}
	}
}

// Where events hold now few tokens and now many, their bytes count.
func TestUnsteadyEventsAreCountedByTheirBytes(t *testing.T) {
	c := class{t, format.NewCalibration()}
	for account := range uint64(20) {
		tokens := 1 + int(account)%4*5
		c.stream(account, time.Second, fmt.Sprintf(`"completion_tokens":%d`, 10*tokens), times(10, strings.Repeat("abc", tokens))...)
	}
	if got := c.left(times(10, strings.Repeat("abc", 5))...); got != 50 {
		t.Errorf("%d tokens of three bytes each, want 50", got)
	}
}

// An event that is far longer than those that were learned holds more tokens.
func TestEventsAreJudgedOneByOne(t *testing.T) {
	c := class{t, format.NewCalibration()}
	for account := range uint64(20) { // three tokens of four bytes in each event
		c.stream(account, time.Second, `"completion_tokens":60`, times(20, "abcdabcdabcd")...)
	}
	for events, want := range map[string]int64{
		"abcdabcdabcd":             3,
		strings.Repeat("abcd", 12): 3,
		strings.Repeat("abcd", 13): 13,
	} {
		if got := c.left(append(times(20, "abcdabcdabcd"), events)...); got != 60+want {
			t.Errorf("an event of %d bytes is %d tokens, want %d", len(events), got-60, want)
		}
	}
}

// A tokenizer that is a quarter off the events is not believed once several accounts
// have shown what those hold.
func TestATokenizerIsHeldToKnownEvents(t *testing.T) {
	for account, counts := range map[uint64]map[int64]int64{0: {350: 350, 100: 100, 1000: 100}, 20: {350: 100, 110: 110, 100: 100, 60: 100}} {
		cal := format.NewCalibration()
		for voter := range account {
			class{t, cal}.stream(voter, time.Second, `"completion_tokens":20`, times(20, "abcd")...)
		}
		for said, want := range counts {
			a := asking()[1]
			b := a.bound
			b.Output, b.Cap = 5000, 5000
			m := openai.NewMeter(a.request, b, cal, format.MeterOptions{Start: start, KeepText: true})
			for range 100 {
				pass(m, content("12 abcdefg", ""))
			}
			m.Tokenized(12, said)
			if u, _, _ := m.Final(format.ClientGone, start); u[pricing.OutputTokens] != want {
				t.Errorf("after %d lessons a tokenizer says %d for 100 events: %d, want %d", account, said, u[pricing.OutputTokens], want)
			}
		}
	}
}

// Prompts that the client has the engine cut teach nothing of how many bytes a token has.
func TestPromptsThatWereCutTeachNothing(t *testing.T) {
	texts := `"prompt":["` + prose(100) + `","` + prose(100) + `"]`
	chat := `"messages":[{"role":"user","content":"` + prose(200) + `"}]`
	for name, c := range map[string]struct {
		of     format.Format
		fields string
		learns bool
	}{
		"completions":      {openai.Completions, texts, true},
		"completions, cut": {openai.Completions, texts + `,"truncate_prompt_tokens":400`, false},
		"cut at the most":  {openai.Completions, texts + `,"truncate_prompt_tokens":-1`, false},
		"chat":             {openai.Chat, chat, true},
		"chat, cut":        {openai.Chat, chat + `,"truncate_prompt_tokens":800`, false},
	} {
		r, err := c.of.Parse(c.of.Paths()[0], []byte(`{"model":"m","max_tokens":8,`+c.fields+`}`), noPolicy)
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.Bound(limits)
		if err != nil {
			t.Fatal(err)
		}
		cal := format.NewCalibration()
		for account := range uint64(20) {
			m := r.Meter(b, cal, format.MeterOptions{Start: start, Voter: account, UsageOfAll: true})
			answer := `{"choices":[{"index":0,"text":"ab","message":{"content":"ab"},"finish_reason":"stop"},{"index":1,"text":"ab","message":{"content":"ab"},"finish_reason":"stop"}]` + used(800, 2) + "}"
			if _, err := m.Unary([]byte(answer)); err != nil {
				t.Fatal(err)
			}
			m.Final(format.Complete, start.Add(time.Second))
		}
		if learned := cal.Estimates().Prompt != format.NewCalibration().Estimates().Prompt; learned != c.learns {
			t.Errorf("%s: %v bytes in a token of a prompt", name, cal.Estimates().Prompt)
		}
	}
}
