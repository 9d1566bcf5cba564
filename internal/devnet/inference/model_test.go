package inference

import (
	"math"
	"slices"
	"testing"
	"unicode/utf8"
)

func generate(m *model, how sampling, question string, index, limit int) (ids []int, ended bool) {
	s := m.newSampler(how, m.openings(question, openingChoices), index)
	for len(ids) < limit {
		id, end := s.next()
		if end {
			return ids, true
		}
		ids = append(ids, id)
	}
	return ids, false
}

func TestSamplingIsDeterministic(t *testing.T) {
	a, b := fit(corpus), fit(corpus)
	for _, how := range []sampling{
		{Temperature: 0, TopP: 1}, {Temperature: 1, TopP: 1, Seed: 7}, {Temperature: 0.7, TopP: 0.9, Seed: 7}, {Temperature: 2, TopP: 0.5, Seed: 8},
		{Temperature: 0.001, TopP: 0.1, Seed: 9},
	} {
		for _, question := range []string{"", "Tell me about lightning", "what is a sluice gate?"} {
			x, _ := generate(a, how, question, 0, 400)
			y, _ := generate(b, how, question, 0, 400)
			if len(x) == 0 || !slices.Equal(x, y) {
				t.Errorf("%+v %q: two runs differ", how, question)
			}
			if text, err := a.tok.Decode(x); err != nil || !utf8.ValidString(text) {
				t.Errorf("%+v: %v, %q", how, err, text)
			}
		}
	}
}

func TestSamplingFollowsItsParameters(t *testing.T) {
	m := fit(corpus)
	warm := sampling{Temperature: 1, TopP: 1, Seed: 1}
	other := warm
	other.Seed = 2
	x, _ := generate(m, warm, "", 0, 100)
	if y, _ := generate(m, other, "", 0, 100); slices.Equal(x, y) {
		t.Error("two seeds, one text")
	}
	if y, _ := generate(m, warm, "", 1, 100); slices.Equal(x, y) {
		t.Error("two sequences of one seed, one text")
	}
	cold := sampling{Temperature: 0, TopP: 1, Seed: 1}
	greedy, ended := generate(m, cold, "", 0, 5000)
	if !ended {
		t.Error("a greedy answer never ends")
	}
	cold.Seed = 2
	if y, _ := generate(m, cold, "", 0, 5000); !slices.Equal(greedy, y) {
		t.Error("a greedy answer depends on its seed")
	}
	narrow := sampling{Temperature: 1, TopP: 1e-9, Seed: 3}
	if y, _ := generate(m, narrow, "", 0, 5000); !slices.Equal(greedy, y) {
		t.Error("a tiny top_p is not greedy")
	}
	ignore := warm
	ignore.IgnoreEOS = true
	if y, ended := generate(m, ignore, "", 0, 5000); ended || len(y) != 5000 {
		t.Errorf("ignore_eos ended after %d tokens", len(y))
	}
	for seed := range uint64(50) {
		atLeast := sampling{Temperature: 1, TopP: 1, Seed: seed, MinTokens: 120}
		if y, _ := generate(m, atLeast, "", 0, 150); len(y) < 120 {
			t.Errorf("min_tokens 120 gave %d", len(y))
		}
	}
}

func TestPredictionIsADistribution(t *testing.T) {
	m := fit(corpus)
	ids := m.tok.Encode(corpus[:3000])
	c := m.scratch.Get().(*candidates)
	history := emptyHistory()
	for _, id := range ids {
		m.predict(c, history)
		sum := 0.0
		for _, x := range c.ids {
			sum += c.of(x)
		}
		if len(c.ids) > 0 && math.Abs(sum-1) > 1e-9 {
			t.Fatalf("the continuations of %v sum to %v", history, sum)
		}
		c.reset()
		history = shift(history, tokenID(id))
	}
}

func BenchmarkNextToken(b *testing.B) {
	m := fit(corpus)
	for name, how := range map[string]sampling{
		"plain": {Temperature: 1, TopP: 1, Seed: 1, IgnoreEOS: true},
		"top_p": {Temperature: 0.7, TopP: 0.9, Seed: 1, IgnoreEOS: true},
	} {
		b.Run(name, func(b *testing.B) {
			s := m.newSampler(how, nil, 0)
			for b.Loop() {
				s.next()
			}
		})
	}
}
