package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// document is an answer of one or more texts, with members beside the choices.
func document(more string, texts ...string) http.HandlerFunc {
	var choices []string
	for i, text := range texts {
		choices = append(choices, fmt.Sprintf(`{"index":%d,"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"}`, i, text))
	}
	return says("application/json", `{"choices":[`+strings.Join(choices, ",")+`]`+more+`}`)
}

// reports are the members of a usage.
func reports(prompt, completion int) string {
	return fmt.Sprintf(`,"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, prompt, completion, prompt+completion)
}

// pupil is a backend that gives some lessons, then an answer that the client leaves.
func pupil(t *testing.T, engine format.Engine, lessons int, lesson func(n int) http.HandlerFunc, then ...string) *rig {
	t.Helper()
	n := 0
	return playing(t, engine, func(w http.ResponseWriter, req *http.Request) {
		if n++; n <= lessons {
			lesson(n)(w, req)
			return
		}
		saysAndWaits(sse, then...)(w, req)
	})
}

// What one account asks for does not change how many tokens the events of others
// have, whoever came before it.
func TestOneAccountDoesNotTeachTokensPerEvent(t *testing.T) {
	for name, c := range map[string]struct {
		honest, odd, tokens int
		text                string
	}{
		"nobody before, hidden reasoning": {0, 6, 300, "abcd"},
		"nobody before, long events":      {0, 6, 300, strings.Repeat("abcd ", 30)},
		"three before":                    {3, 60, 300, strings.Repeat("abcd ", 30)},
		"five before":                     {5, 60, 300, strings.Repeat("abcd ", 30)},
		"seven before":                    {7, 60, 300, "abcd"},
	} {
		r := pupil(t, format.EngineGeneric, c.honest+c.odd, func(n int) http.HandlerFunc {
			if n <= c.honest {
				return says(sse, strings.Repeat(word("abcd", ""), 50), finishEvent, usageEvent(12, 50), doneEvent)
			}
			return says(sse, strings.Repeat(word(c.text, ""), 10), finishEvent, usageEvent(12, c.tokens), doneEvent)
		}, strings.Repeat(word("abcd", ""), 200))
		for range c.honest {
			r.chat(r.buy(minPurchase), asStream(400))
		}
		odd := r.buy(maxPurchase)
		for range c.odd {
			r.chat(odd, asStream(400))
		}
		k := r.buy(maxPurchase)
		r.hangUp(k, asStream(8000), "abcd", 200)
		r.wantAbout(k, name, 15, 200)
	}
}

// No account decides what the events of others are, at any number of voters: not
// between the tokens that they have shown and the default, nor by its own.
func TestNoAccountDecidesTokensPerEvent(t *testing.T) {
	const words = "a few of the words of a river " // 30 bytes, 7 tokens
	honest := says(sse, strings.Repeat(word(words, ""), 20), finishEvent, usageEvent(12, 140), doneEvent)
	for name, odd := range map[string]http.HandlerFunc{
		"nobody else":      nil,
		"one long word":    says(sse, strings.Repeat(word("internationaliza", ""), 20), finishEvent, usageEvent(12, 20), doneEvent),
		"many short words": says(sse, strings.Repeat(word(words, ""), 20), finishEvent, usageEvent(12, 500), doneEvent),
	} {
		for voters := range 9 {
			for _, first := range []bool{true, false} {
				answer := honest
				r := playing(t, format.EngineGeneric, func(w http.ResponseWriter, req *http.Request) { answer(w, req) })
				teach := func(accounts, times int, lesson http.HandlerFunc) {
					answer = lesson
					for range accounts {
						k := r.buy(maxPurchase)
						for range times {
							r.chat(k, asStream(600))
						}
					}
				}
				if first && odd != nil {
					teach(1, 3, odd)
				}
				teach(voters, 2, honest)
				if !first && odd != nil {
					teach(1, 3, odd)
				}
				k := r.buy(maxPurchase)
				answer = saysAndWaits(sse, strings.Repeat(word(words, ""), 20))
				r.hangUp(k, asStream(8000), words, 20)
				r.wantAbout(k, fmt.Sprintf("%s beside %d, first %t", name, voters, first), 15, 140)
			}
		}
	}
}

// Where an event is a token, it stays one, whatever the earlier answers were.
func TestLessonsDoNotSpoilOneTokenPerEvent(t *testing.T) {
	for name, c := range map[string]struct {
		lesson http.HandlerFunc
		stream string
		token  string
	}{
		"documents":       {document(reports(12, 100), strings.Repeat("abcd", 100)), "false", "Vorgang "},
		"streams alike":   {says(sse, strings.Repeat(word("abcd", ""), 100), finishEvent, usageEvent(12, 100), doneEvent), "true", "Donaudampf "},
		"long, then tiny": {says(sse, strings.Repeat(word("Donaudampf ", ""), 100), finishEvent, usageEvent(12, 100), doneEvent), "true", "ab"},
	} {
		r := pupil(t, format.EngineGeneric, 20, func(int) http.HandlerFunc { return c.lesson }, strings.Repeat(word(c.token, ""), 200))
		for range 20 {
			r.chat(r.buy(minPurchase), request("stream", c.stream, "max_tokens", "200"))
		}
		k := r.buy(maxPurchase)
		r.hangUp(k, asStream(2000), c.token, 200)
		r.wantAbout(k, name, 15, 200)
	}
}

// What a server held back comes in one event, and costs what it is.
func TestABurstAfterLessonsIsCountedByItsBytes(t *testing.T) {
	call := func(tokens int) string {
		return delta(`"delta":{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"write","arguments":"`+strings.Repeat("abcd", tokens)+`"}}]}`, "")
	}
	for name, c := range map[string]struct {
		events string
		tokens int
	}{
		"a call":             {call(1000), 1001},
		"reasoning":          {delta(`"delta":{"reasoning_content":"`+strings.Repeat("abcd", 500)+`"}`, "") + word("mark", ""), 501},
		"words, then a call": {strings.Repeat(word("a", ""), 100) + call(300), 401},
	} {
		for _, lessons := range []int{0, 20} {
			r := pupil(t, format.EngineOllama, lessons, func(n int) http.HandlerFunc {
				words := strings.Repeat(word("abcd", ""), 20+n) + strings.Repeat(word("ab", ""), n)
				return says(sse, words, finishEvent, usageEvent(12, 20+2*n), doneEvent)
			}, c.events)
			for range lessons {
				r.chat(r.buy(minPurchase), asStream(400))
			}
			k := r.buy(maxPurchase)
			r.hangUp(k, asStream(8000), `"choices"`, strings.Count(c.events, `"choices"`))
			r.wantAbout(k, fmt.Sprintf("%s after %d lessons", name, lessons), 15, c.tokens)
		}
	}
}
