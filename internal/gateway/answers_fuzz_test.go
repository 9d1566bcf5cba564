package gateway_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// scripted is one answer of a backend as a stream, with the facts about it.
type scripted struct {
	stream string
	tokens int  // the number of tokens in the answer
	usage  bool // the answer ends with a usage
	mark   string
}

// scriptOf makes an answer in a random dialect, which decides where the text is, how events are
// separated, what comes between events, and what the usage says.
func scriptOf(rng *rand.Rand, whole, failing bool) scripted {
	s := scripted{tokens: 1 + rng.IntN(20), mark: "mark" + strings.Repeat("x", rng.IntN(8))}
	forms := [...]string{
		`"delta":{"content":"%s"}`,
		`"delta":{"reasoning_content":"%s"}`,
		`"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%s"}}]}`,
		`"delta":{},"logprobs":{"content":[{"token":"%s","logprob":-Infinity}]}`,
		`"delta":{"content":[{"type":"thinking","thinking":"%s"}]}`,
		`"delta":{"tomorrow":["%s"]}`,
	}
	form := forms[rng.IntN(len(forms))]
	between := [...]string{"", ": ping\n", "data: ping\n\n", "id: 4\nretry: 9\n", "event: tick\n\n"}[rng.IntN(5)]
	early := rng.IntN(4) == 0
	events := []string{roleEvent}
	if early {
		events = append(events, usageEvent(40, 1))
	}
	for range s.tokens {
		events = append(events, delta(fmt.Sprintf(form, s.mark), ""))
	}
	switch {
	case whole:
		events = append(events, finishEvent)
		if s.usage = rng.IntN(2) == 0; s.usage {
			events = append(events, usageEvent(40, s.tokens))
		}
		events = append(events, doneEvent)
	case failing:
		events = append(events, `data: {"error":{"message":"lost"}}`+"\n\n", doneEvent)
	}
	s.stream = between + strings.Join(events, between)
	switch rng.IntN(4) {
	case 0:
		s.stream = strings.ReplaceAll(s.stream, "\n", "\r\n")
	case 1:
		s.stream = strings.ReplaceAll(s.stream, "\n", "\r")
	}
	return s
}

// unlimited allows each execution to buy an account of its own.
var unlimited = intake.ChallengeLimits{
	Address: intake.Rate{PerSecond: 1e6, Burst: 1e6}, Subnet: intake.Rate{PerSecond: 1e6, Burst: 1e6},
	Network: intake.Rate{PerSecond: 1e6, Burst: 1e6}, Total: intake.Rate{PerSecond: 1e6, Burst: 1e6},
	Account: intake.Rate{PerSecond: 1e6, Burst: 1e6},
}

// FuzzAnswers lets a backend answer with a stream in some dialect over HTTP. The whole answer
// comes, the backend breaks off or fails, or the client hangs up. The charge must be exact if a
// usage came at the end. Otherwise it must be within a quarter, or one token, of what was
// delivered. Only a whole answer may look whole.
func FuzzAnswers(f *testing.F) {
	for seed := range uint64(24) {
		f.Add(seed, uint8(seed))
	}
	var answer atomic.Pointer[http.HandlerFunc]
	r := playing(f, format.EngineGeneric, func(w http.ResponseWriter, req *http.Request) { (*answer.Load())(w, req) },
		limitChallenges(unlimited))
	f.Fuzz(func(t *testing.T, seed uint64, how uint8) {
		end := how % 4 // 0 whole, 1 cut, 2 failing, 3 hung up
		s := scriptOf(rand.New(rand.NewPCG(seed, 2)), end == 0, end == 2)
		play := says(sse, s.stream)
		if end == 3 {
			play = saysAndWaits(sse, s.stream)
		}
		answer.Store(&play)
		mine := *r
		mine.t = t
		k := mine.buy(minPurchase)
		outcome := metering.OutcomeClientGone
		if end == 3 {
			mine.hangUp(k, asStream(1000), s.mark, s.tokens)
		} else {
			a := mine.chat(k, asStream(1000))
			name := fmt.Sprintf("seed %d, end %d", seed, end)
			if whole := strings.HasSuffix(string(a.body), "\ndata: [DONE]\n\n"); whole != (end == 0) {
				t.Fatalf("%s: it looks whole: %v\n%s", name, whole, a.body)
			}
			if outcome = metering.OutcomeComplete; end > 0 {
				outcome = metering.OutcomeBackendCut
				code := [...]string{"", "backend_cut", "backend_failed"}[end]
				wantErrorFrame(t, name, strings.ReplaceAll("\n"+string(a.body), "\n: ping", "")[1:], "backend-unavailable", code, "")
			}
		}
		e := mine.wantAbout(k, fmt.Sprintf("%q", s.stream), int(mine.lastCharge(k).Usage[pricing.InputTokens]), s.tokens)
		if e.Outcome != outcome || s.usage && e.Charged != cost10(40, s.tokens) {
			t.Fatalf("%+v for %d tokens, usage %v", e, s.tokens, s.usage)
		}
	})
}
