package openai_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

// FuzzCompletion takes any body apart. What is accepted has a bound, and what a
// backend gets says the same: the same prompts, the same number of completions, and
// a cap.
func FuzzCompletion(f *testing.F) {
	for _, fields := range []string{
		`"prompt":"hello \u00e9"`, `"prompt":["a","b"],"n":2`, `"prompt":[1,2,3],"max_tokens":-1`, `"prompt":[[1],[2,3]],"n_predict":7`,
		`"prompt":"a","suffix":"b","stream":true,"stream_options":{"include_usage":true}`, `"prompt":["a",1]`, `"messages":[]`, `"prompt":"a","echo":true`,
	} {
		f.Add([]byte(`{"model":"m",` + fields + `}`))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := openai.Completions.Parse("", body, noPolicy)
		if err != nil {
			return
		}
		b, err := r.Bound(limits)
		if err != nil {
			t.Fatalf("%s: no bound: %v", body, err)
		}
		if b.Input < 0 || b.Cap < 1 || b.Sequences < 1 || b.Sequences > 128 || b.Output != b.Cap*b.Sequences {
			t.Fatalf("%s: bound %+v", body, b)
		}
		if fit := r.Fit(b, limits); fit.Cap > b.Cap || fit.Cap < 1 || fit.Input != b.Input {
			t.Fatalf("%s: %+v fits into %+v", body, fit, b)
		}
		for _, e := range format.Engines() {
			p := format.ProfileOf(e)
			sent := r.Rewrite(format.Rewrite{Model: "m", Cap: b.Cap, Profile: p})
			again, err := openai.Completions.Parse("", sent, noPolicy)
			if err != nil {
				t.Fatalf("%s: what %s gets cannot be read: %v\n%s", body, e, err, sent)
			}
			if c, err := again.Bound(limits); err != nil || !again.HasCap() || c.Sequences != b.Sequences || c.Cap != b.Cap || c.Input > b.Input {
				t.Fatalf("%s: %s gets %s, bound %+v for %+v (%v)", body, e, sent, c, b, err)
			}
			for _, q := range r.CountPrompt(p, "m", limits) {
				if !json.Valid(q.Body) {
					t.Fatalf("%s: the question is %s", body, q.Body)
				}
			}
		}
	})
}

// batch is a batch that is played: each event is one token.
type batch struct {
	prompts []int // tokens of each
	texts   bool  // they are sent as texts, not by their numbers
	n       int
	left    []int // tokens that each choice has still to say
	said    []int
	events  []string
}

// How engines say what they used.
const (
	inEach      = iota // of the choice and its prompt, in each event, and of all in the end
	withFinish         // of the choice and its prompt, with its last event
	atEnd              // of all in the end
	never              //
	afterFinish        // of the choice and its prompt, in an event behind its last one
	ways
)

// newBatch makes the stream of a batch, in an order that seed decides.
func newBatch(seed uint64, how int) *batch {
	random := rand.New(rand.NewPCG(seed, 1))
	b := &batch{n: 1 + random.IntN(3), texts: seed%2 == 1}
	input := 0
	for range 1 + random.IntN(4) {
		b.prompts = append(b.prompts, 1+random.IntN(20))
		input += b.prompts[len(b.prompts)-1]
	}
	var open []int
	for i := range len(b.prompts) * b.n {
		b.left = append(b.left, 1+random.IntN(8))
		open = append(open, i)
	}
	b.said = make([]int, len(open))
	all := 0
	for len(open) > 0 {
		at := random.IntN(len(open))
		i := open[at]
		b.said[i]++
		all++
		usage := used(b.prompts[i/b.n], b.said[i])
		last := b.said[i] == b.left[i]
		if how != inEach {
			usage = ""
		}
		b.events = append(b.events, say(i, "word", usage))
		if last {
			if how == withFinish {
				usage = used(b.prompts[i/b.n], b.said[i])
			}
			b.events = append(b.events, stop(i, usage))
			if how == afterFinish {
				b.events = append(b.events, alone(b.prompts[i/b.n], b.said[i]))
			}
			open = append(open[:at], open[at+1:]...)
		}
	}
	if how == inEach || how == atEnd {
		b.events = append(b.events, alone(input, all))
	}
	b.events = append(b.events, done)
	return b
}

// request asks for the batch. A text has as many bytes in a token as is usual.
func (b *batch) request() string {
	lists := make([]string, len(b.prompts))
	for i, n := range b.prompts {
		lists[i] = "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]"
		if b.texts {
			lists[i] = `"` + strings.Repeat("word", n) + `"`
		}
	}
	return fmt.Sprintf(`"stream":true,"max_tokens":10,"n":%d,"prompt":[%s]`, b.n, strings.Join(lists, ","))
}

// FuzzBatches cuts the stream of a batch anywhere, of a backend that is known or not.
// The charge is exact: the tokens of all prompts, because they were sent as tokens or
// have as many bytes as is usual, and an event for each token.
func FuzzBatches(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint8(seed*5), uint8(seed))
		f.Add(seed, uint8(seed*7), uint8(seed)|0x80)
		f.Add(seed, uint8(255), uint8(seed)|0x80)
	}
	f.Fuzz(func(t *testing.T, seed uint64, cut, how uint8) {
		way, known := int(how%ways), how&0x80 == 0
		b := newBatch(seed, way)
		var o format.MeterOptions
		if each := way == withFinish || way == afterFinish; known {
			o = format.MeterOptions{ContinuousUsage: way == inEach, UsagePerSequence: each, UsageOfAll: !each && way != never}
		}
		m := textMeter(t, b.request(), o)
		heard := b.events[:min(int(cut), len(b.events))]
		listen(m, heard...)
		want := int64(0)
		for _, n := range b.prompts {
			want += int64(n)
		}
		said := strings.Count(strings.Join(heard, ""), `"text":"word"`)
		end := format.ClientGone
		if len(heard) == len(b.events) {
			end = format.Complete
		}
		running, _ := m.Running()
		u, source, clamped := m.Final(end, start)
		if len(heard) == 0 {
			said = 0
		}
		if u[pricing.InputTokens] != want || u[pricing.OutputTokens] != int64(said) || clamped {
			t.Errorf("seed %d, way %d, %d of %d events: %v from %s (%v), want %d and %d", seed, way, len(heard), len(b.events), onlyTokens(u), source, clamped, want, said)
		}
		if len(heard) > 0 && onlyTokens(running) != onlyTokens(u) {
			t.Errorf("seed %d, way %d, %d of %d events: %v while it ran, %v in the end", seed, way, len(heard), len(b.events), onlyTokens(running), onlyTokens(u))
		}
		var document textDocument
		if err := json.Unmarshal(m.Document(false), &document); err != nil {
			t.Fatal(err)
		}
		words := 0
		for _, c := range document.Choices {
			words += strings.Count(c.Text, "word")
		}
		if words != said || end == format.Complete && way != never && (document.Usage.Prompt != want || document.Usage.Completion != int64(said)) {
			t.Errorf("seed %d, way %d: the document has %d words of %d, usage %+v", seed, way, words, said, document.Usage)
		}
	})
}

type textDocument struct {
	Choices []struct {
		Index int
		Text  string
	}
	Usage struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
	}
}
