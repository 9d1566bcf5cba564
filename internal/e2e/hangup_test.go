package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/labtest"
)

// hungUp is what is known of a stream that its client left.
type hungUp struct {
	outcome
	pieces, bytes int // of text that the client has read
}

// leave reads a stream for so many events and hangs up. The backend must see
// it soon, and the charge must stand.
func leave(t *testing.T, q ask, events int) hungUp {
	t.Helper()
	k := lab.buy(t, 20_000)
	name := lab.newCase()
	s := lab.stream(t, k, q.body(), q.more(name)...)
	var h hungUp
	for _, data := range s.read(events) {
		if piece := textOf(t, data); piece != "" {
			h.pieces++
			h.bytes += len(piece)
		}
	}
	began := time.Now()
	s.hangUp()
	truth, reached := lab.truth(t, name)
	if !reached || truth.Outcome != "cancelled" {
		t.Errorf("the backend's request ended %q, want cancelled", truth.Outcome)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("the backend saw the hang-up only after %s", took)
	}
	h.truth = truth
	h.charge = lab.entry(t, k, s.requestID())
	if h.charge.Outcome != "client_gone" || h.charge.Provisional {
		t.Errorf("the charge is %+v, want one for a client that is gone", h.charge)
	}
	wantPriced(t, h.charge)
	if b := lab.idle(t, k); b.Charged != h.charge.Charged {
		t.Errorf("charged %d msat in all, %d for the stream", b.Charged, h.charge.Charged)
	}
	return h
}

// TestHangUpAtEvent leaves a stream at several events, however its tokens are
// counted. The backend stands still there, so what was delivered is known
// exactly. The event with the role is the first one; before it there is no header to
// wait for.
func TestHangUpAtEvent(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ model, fault, source string }{
		{"running", "", "running"},
		{"running", ",no-usage", "counted"},
		{"running", ",running-usage:zero", "counted"},
		{"plain", "", "counted"},
		{"tokenizer", "", "tokenizer"},
	} {
		for _, events := range []int{1, 2, 7, 30} {
			t.Run(fmt.Sprintf("%s%s/%d", row.model, row.fault, events), func(t *testing.T) {
				t.Parallel()
				q := ask{model: row.model, fault: fmt.Sprintf("stall:%d%s", events, row.fault), members: []string{"max_tokens", "200"}}
				h := leave(t, q, events)
				u, delivered, prompt := h.charge.Usage, int64(h.pieces), int64(h.truth.PromptTokens)
				if events > 1 && h.charge.Source != row.source {
					t.Errorf("the tokens' source is %q, want %q", h.charge.Source, row.source)
				}
				switch {
				case row.source == "running" && events > 0:
					if u.Input != prompt || u.Output != delivered {
						t.Errorf("charged for %d + %d tokens, delivered were %d + %d", u.Input, u.Output, prompt, delivered)
					}
				case row.source == "tokenizer" && u.Input != prompt:
					t.Errorf("charged for a prompt of %d tokens, its tokenizer says %d", u.Input, prompt)
				}
				// An estimate is within bounds: not below what is certain, and never
				// more tokens than bytes.
				if u.Output < delivered || u.Output > max(delivered, int64(h.bytes)) {
					t.Errorf("charged for %d tokens, delivered were %d of %d bytes", u.Output, delivered, h.bytes)
				}
				if u.Input < prompt/2 || u.Input > 3*prompt {
					t.Errorf("charged for a prompt of %d tokens, it has %d", u.Input, prompt)
				}
			})
		}
	}
}

// TestHangUpOfOddStreams leaves streams whose events are not one token each:
// several completions at once, reasoning, calls of tools, several tokens in an
// event, and such as have come to their end but for its marker.
func TestHangUpOfOddStreams(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, fault string
		events      int // that the client reads before it leaves
		each        int64
		members     []string
	}{
		{"three completions", "stall:24", 24, 1, []string{"n", "3", "max_tokens", "50"}},
		{"reasoning", "stall:12,reasoning:30", 12, 1, nil},
		{"a call of a tool", "stall:9,tool-calls", 9, 1, nil},
		{"several tokens in an event", "stall:6,merge:4", 6, 4, []string{"max_tokens", "100"}},
		{"after the finish reason", "stall:7", 7, 1, []string{"max_tokens", "5"}},
		{"after the usage, which is hidden", "stall:8", 7, 1, []string{"max_tokens", "5"}},
	} {
		for _, model := range []string{"running", "plain", "tokenizer"} {
			t.Run(row.name+"/"+model, func(t *testing.T) {
				t.Parallel()
				h := leave(t, ask{model: model, fault: row.fault, members: row.members}, row.events)
				u, delivered := h.charge.Usage, row.each*int64(h.pieces)
				if model == "running" && (u.Input != int64(h.truth.PromptTokens) || u.Output < delivered || u.Output > delivered+1) {
					t.Errorf("charged for %d + %d tokens, delivered were %d + %d", u.Input, u.Output, h.truth.PromptTokens, delivered)
				}
				// An estimate knows the events and the bytes. Other answers of the backend may
				// have taught it one token for each event, so that more in one are not seen.
				if u.Output < int64(h.pieces) || u.Output > max(delivered, int64(h.bytes)) {
					t.Errorf("charged for %d tokens, delivered were %d of %d bytes", u.Output, delivered, h.bytes)
				}
			})
		}
	}
}

// TestHangUpInFullFlow leaves streams that go on at their pace: what is charged
// is at least what was read and no more than what was generated.
func TestHangUpInFullFlow(t *testing.T) {
	t.Parallel()
	for _, model := range []string{"running", "plain"} {
		for _, events := range []int{1, 10, 40} {
			t.Run(fmt.Sprintf("%s/%d", model, events), func(t *testing.T) {
				t.Parallel()
				h := leave(t, ask{model: model, members: []string{"max_tokens", "256"}}, events)
				generated := int64(h.truth.CompletionTokens)
				if generated >= 256 {
					t.Errorf("the backend generated all of its tokens for nobody")
				}
				if got := h.charge.Usage.Output; got < int64(h.pieces) || model == "running" && got > generated {
					t.Errorf("charged for %d tokens: %d were read, %d generated", got, h.pieces, generated)
				}
			})
		}
	}
}

// TestHangUpOfUnaryCall leaves an answer that is made in one piece: the charge
// is the backend's measured pace times the time.
func TestHangUpOfUnaryCall(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	for range 10 { // accounts, of which each has one vote: they teach the pace
		lab.post(t, chat("model", `"liar"`, "max_tokens", "40"), lab.buy(t, 20_000).header()).want(t, http.StatusOK)
	}
	// Somebody else's stream shows that the backend works meanwhile.
	other := lab.stream(t, lab.buy(t, 20_000), chat("model", `"liar"`, "max_tokens", "250"))
	defer other.rest()
	name := lab.newCase()
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	q := ask{model: "liar", members: []string{"max_tokens", "250"}}
	_, err := lab.Open(ctx, http.MethodPost, chatPath, q.body(), k.header(q.more(name)...))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the answer came too soon for this test: %v", err)
	}
	truth, reached := lab.truth(t, name)
	if !reached || truth.Outcome != "cancelled" {
		t.Errorf("the backend's request ended %q, want cancelled", truth.Outcome)
	}
	var c charge
	labtest.Eventually(t, 10*time.Second, "it is charged", func() error {
		list := lab.charges(t, k)
		if len(list) != 1 {
			return fmt.Errorf("%d charges", len(list))
		}
		c = list[0]
		return nil
	})
	wantPriced(t, c)
	generated := int64(truth.CompletionTokens)
	if c.Outcome != "client_gone" || c.Source != "pace" || c.Usage.Output < generated/2 || c.Usage.Output > 250 {
		t.Errorf("the charge is %+v; %d tokens were generated", c, generated)
	}
	lab.idle(t, k)
}

// TestHangUpBeforeTheBackendAnswers costs the prompt at most.
func TestHangUpBeforeTheBackendAnswers(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	for _, fault := range []string{"stall-headers", "stall:0"} {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		body := `{"stream":true,` + strings.TrimPrefix(chat("model", `"running"`), "{")
		_, err := lab.Open(ctx, http.MethodPost, chatPath, body, k.header(caseHeader, lab.newCase(), "X-Fault", fault))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: the stream began: %v", fault, err)
		}
	}
	b := lab.idle(t, k)
	// Its prompt may have been read by then, no token was delivered.
	if list := lab.charges(t, k); len(list) > 2 || slices.ContainsFunc(list, func(c charge) bool { return c.Usage.Output != 0 }) {
		t.Errorf("charged %d msat: %+v", b.Charged, list)
	}
	if b.Charged > 400 {
		t.Errorf("charged %d msat, more than the two prompts", b.Charged)
	}
}
