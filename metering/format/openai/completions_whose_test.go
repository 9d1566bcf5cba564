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
