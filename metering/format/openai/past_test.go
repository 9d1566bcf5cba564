package openai_test

import (
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

// heardTokens is what a client pays, in tokens, who leaves after events with these texts.
func heardTokens(t *testing.T, texts ...string) int64 {
	t.Helper()
	r, err := openai.Parse(ask(`"stream":true,"max_tokens":4000`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Bound(format.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	m := openai.NewMeter(r, b, nil, format.MeterOptions{Start: start})
	for _, text := range texts {
		pass(m, content(text, ""))
	}
	u, _, _ := m.Final(format.ClientGone, start)
	return u[pricing.OutputTokens]
}

// Of a server that sends in each event all until now only what is new counts. A model
// that says the same again, in events that are as long or longer, is no such server.
func TestTextUntilNowAndTextAgain(t *testing.T) {
	until := func(text string) (all []string) {
		for i, c := range text {
			if c == ' ' || i == len(text)-1 {
				all = append(all, text[:i+1])
			}
		}
		return all
	}
	const said = "The river and its banks are wide today "
	last := until(said)[7]
	for name, c := range map[string]struct {
		texts       []string
		least, most int64
	}{
		"all until now":           {until(said), 8, 17},
		"and a word in pieces":    {append(until(said), last, last, last, last+"\\u00e9 "), 12, 21},
		"ha ha ha":                {append([]string{"ha ", "ha ha "}, times(50, strings.Repeat("ha ", 8))...), 300, 302},
		"signs":                   {append([]string{"=", "===="}, times(50, strings.Repeat("=", 32))...), 52, 402},
		"a line":                  {times(50, said), 500, 500},
		"ha, all until now":       {until(strings.Repeat("ha ", 60)), 60, 140},
		"a line, then all of it":  {append([]string{said}, times(50, strings.Repeat(said, 2))...), 1000, 1010},
		"all until now, no news":  {append(until(said), times(50, last)...), 58, 67},
		"until now, then a line":  {append(until(said), times(50, " and then")...), 58, 67},
		"until now, then another": {append(until(said), times(50, "The sea and its many shores")...), 58, 400},
	} {
		if got := heardTokens(t, c.texts...); got < c.least || got > c.most {
			t.Errorf("%s: %d tokens, want %d to %d", name, got, c.least, c.most)
		}
	}
}

// The event that ends an answer may repeat all of it.
func TestTheLastEventMayRepeatAll(t *testing.T) {
	for last, want := range map[string]string{`"stop"`: "nothing", `null`: "a token"} {
		r, _ := openai.Parse(ask(`"stream":true`))
		b, err := r.Bound(limits)
		if err != nil {
			t.Fatal(err)
		}
		m := openai.NewMeter(r, b, nil, format.MeterOptions{Start: start})
		var all string
		for _, word := range strings.Fields("The river and its banks are wide today") {
			all += " " + word
			pass(m, content(all, ""))
		}
		before, _ := m.Running()
		pass(m, `data: {"choices":[{"index":0,"delta":{"content":"`+all+`"},"finish_reason":`+last+"}]}\n\n")
		after, _ := m.Running()
		more := after[pricing.OutputTokens] - before[pricing.OutputTokens]
		if want == "nothing" && more != 0 || want == "a token" && more != 1 {
			t.Errorf("an event with all that was said and the reason %s costs %d tokens, want %s", last, more, want)
		}
	}
}
