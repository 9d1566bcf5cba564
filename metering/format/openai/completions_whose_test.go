package openai_test

import (
	"strings"
	"testing"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// A usage of all that a generic engine reports is believed in languages that have many
// bytes in a token, and so is the count of the completions unless their own text says
// that it is that of one.
func TestUsageOfLanguagesWithManyBytes(t *testing.T) {
	hindi := strings.Repeat("नदी और उसके किनारे ", 40)
	of := func(bytes, perToken int) int { return bytes / perToken }
	prompts := `["` + hindi + `","` + hindi + `"]`
	whole := 2 * len(hindi)
	some := hindi[:len(hindi)/2]
	word, long := hindi[:strings.Index(hindi, " ")], prose(40)
	for name, c := range map[string]struct {
		texts            [2]string
		prompt, said     int
		input, completed int
		source           metering.Source
	}{
		"all of Hindi":           {[2]string{some, some}, of(whole, 7), of(whole/2, 7), of(whole, 7), of(whole/2, 7), metering.SourceReported},
		"short words":            {[2]string{word, word}, of(whole, 7), 3, of(whole, 7), 3, metering.SourceReported},
		"in English":             {[2]string{long, long}, of(whole, 7), of(2*len(long), 4), of(whole, 7), of(2*len(long), 4), metering.SourceReported},
		"beyond any language":    {[2]string{long, long}, of(whole, 9), of(2*len(long), 4), of(whole, 9) + of(len(hindi), 4), of(2*len(long), 4), metering.SourceRunning},
		"of the first, by both":  {[2]string{long, long}, of(whole, 7), of(2*len(long), 9), of(whole, 7) + of(len(hindi), 4), 2 * of(2*len(long), 9), metering.SourceCounted},
		"of the first, if short": {[2]string{"four tokens of text", "four tokens of text"}, of(whole, 7), 4, of(whole, 7) + of(len(hindi), 4), 8, metering.SourceCounted},
	} {
		m := textMeter(t, `"max_tokens":2000,"prompt":`+prompts, format.MeterOptions{})
		if _, err := m.Unary([]byte(document(used(c.prompt, c.said), c.texts[0], c.texts[1]))); err != nil {
			t.Fatal(err)
		}
		u, source, clamped := m.Final(format.Complete, start)
		if onlyTokens(u) != tokens(int64(c.input), int64(c.completed)) || source != c.source || clamped {
			t.Errorf("%s: %v from %s, want %d and %d from %s", name, onlyTokens(u), source, c.input, c.completed, c.source)
		}
	}
}

// chunks are the events of choices that say so many words each, one after the other; after
// is what follows the end of each of them.
func chunks(word string, words []int, after ...string) (events []string) {
	for i, n := range words {
		for range n {
			events = append(events, say(i, word, ""))
		}
		events = append(events, stop(i, ""))
		if i < len(after) {
			events = append(events, after[i])
		}
	}
	return events
}

// A usage chunk that comes twice, or that grows, is that of all until then, as long as the
// text is no more than it says. Else each is that of one completion and its prompt,
// wherever it comes.
func TestWhoseUsageChunksAre(t *testing.T) {
	const one, two, three = `"prompt":"The gate is","n":2`, `"prompt":["The gate is","Water runs down"]`, `"prompt":["The gate is","Water runs down","It rains"]`
	long := prose(2) // 12 tokens of 4 bytes in an event
	for name, c := range map[string]struct {
		fields          string
		events          []string
		prompt, written int64
	}{
		"twice":                  {one, append(chunks("word", []int{4, 6}), alone(3, 10), alone(3, 10)), 3, 10},
		"twice, long events":     {one, append(chunks(long, []int{4, 6}), alone(3, 120), alone(3, 120)), 3, 120},
		"twice, two prompts":     {two, append(chunks("word", []int{4, 6}), alone(7, 10), alone(7, 10)), 7, 10},
		"growing":                {one, chunks("word", []int{4, 6}, alone(3, 4), alone(3, 10)), 3, 10},
		"growing, long events":   {one, chunks(long, []int{4, 6}, alone(3, 48), alone(3, 120)), 3, 120},
		"growing, two prompts":   {two, chunks("word", []int{4, 6}, alone(3, 4), alone(7, 10)), 7, 10},
		"each":                   {one, chunks("word", []int{4, 6}, alone(3, 4), alone(3, 6)), 3, 10},
		"each, long events":      {one, chunks(long, []int{4, 6}, alone(3, 48), alone(3, 72)), 3, 120},
		"each, of short tokens":  {one, chunks("12345678", []int{5, 5}, alone(3, 20), alone(3, 20)), 3, 40},
		"each, two prompts":      {two, chunks("word", []int{4, 6}, alone(3, 4), alone(4, 6)), 7, 10},
		"behind all, of two":     {two, append(chunks("word", []int{4, 6}), alone(3, 4), alone(4, 6)), 7, 10},
		"behind all, the other":  {two, append(chunks("word", []int{6, 4}), alone(3, 6), alone(4, 4)), 7, 10},
		"behind all, of three":   {three, append(chunks("word", []int{4, 6, 5}), alone(3, 4), alone(4, 6), alone(2, 5)), 9, 15},
		"behind all, of six":     {three + `,"n":2`, append(chunks("word", []int{4, 4, 4, 4, 4, 4}), alone(3, 4), alone(3, 4), alone(4, 4), alone(4, 4), alone(2, 4), alone(2, 4)), 9, 24},
		"behind all, one behind": {three, append(chunks("word", []int{4, 6, 5}), alone(3, 4), alone(4, 6)), 9, 15},
	} {
		m := textMeter(t, c.fields+`,"max_tokens":100,"stream":true`, format.MeterOptions{})
		listen(m, append(c.events, done)...)
		if u, _, clamped := m.Final(format.Complete, start); onlyTokens(u) != tokens(c.prompt, c.written) || clamped {
			t.Errorf("%s: %v, clamped %v, want %d and %d", name, onlyTokens(u), clamped, c.prompt, c.written)
		}
	}
}

// A stream with one usage is believed in the same way.
func TestOneUsageOfAStreamInManyBytes(t *testing.T) {
	hindi := strings.Repeat("नदी और उसके किनारे ", 40)
	first := int64(len(hindi) / 4)
	said := len(hindi) * 2 / 7
	for name, c := range map[string]struct {
		prompt, completion int
		want               int64
	}{
		"of all":                        {said, 10, int64(said)},
		"of one by its completion":      {said, 4, 2 * first},
		"of one, beyond any language":   {int(first) - 40, 10, 2 * first},
		"of all, though short of words": {said, 12, int64(said)},
	} {
		m := textMeter(t, `"max_tokens":100,"stream":true,"prompt":["`+hindi+`","`+hindi+`"]`, format.MeterOptions{})
		listen(m, append(chunks("word", []int{4, 6}), alone(c.prompt, c.completion), done)...)
		if u, _, clamped := m.Final(format.Complete, start); onlyTokens(u) != tokens(c.want, int64(max(c.completion, 10))) || clamped {
			t.Errorf("%s: %v, clamped %v, want %d", name, onlyTokens(u), clamped, c.want)
		}
	}
}
