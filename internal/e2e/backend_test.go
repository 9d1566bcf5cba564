package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestBackendFailsBeforeItsFirstByte goes through the rows of "What is charged"
// in which a backend has delivered nothing: they cost nothing, unary and
// streamed alike.
func TestBackendFailsBeforeItsFirstByte(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, model, fault string
		status             int
		kind               string // of the problem; empty: the backend's own answer
	}{
		{"refuses the connection", "gone", "", 503, "backend-unavailable"},
		{"closes the connection", "plain", "drop", 502, "backend-unavailable"},
		{"500", "plain", "status:500", 502, "backend-unavailable"},
		{"502", "plain", "status:502", 502, "backend-unavailable"},
		{"503", "plain", "status:503", 503, "backend-unavailable"},
		{"504", "plain", "status:504", 502, "backend-unavailable"},
		{"no answer in time", "slow", "stall-headers", 504, "backend-unavailable"},
		{"redirects", "plain", "redirect:http://127.0.0.1:1/", 502, "backend-unavailable"},
		{"refuses our key", "plain", "status:401", 502, "backend-unavailable"},
		{"wants money itself", "plain", "status:402", 502, "backend-unavailable"},
		{"400", "plain", "status:400", 400, ""},
		{"404", "plain", "status:404", 404, ""},
		{"422", "plain", "status:422", 422, ""},
		{"429", "plain", "status:429:7", 429, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			k := lab.buy(t, 20_000)
			for _, streamed := range []string{"false", "true"} {
				q := ask{model: row.model, fault: row.fault, members: []string{"stream", streamed}}
				a := lab.post(t, q.body(), k.header(q.more(lab.newCase())...))
				if a.want(t, row.status); row.kind != "" {
					a.wantProblem(t, row.status, row.kind)
					continue
				}
				if !strings.Contains(string(a.body), "scripted fault") {
					t.Errorf("the backend's own words are lost: %s", a.body)
				}
				if got := a.msat(t, "L402-Cost-Msat"); got != 0 {
					t.Errorf("a refusal cost %d msat", got)
				}
			}
			lab.wantFree(t, k)
		})
	}
}

// TestCallFee charges the call price for a refused request where a service
// asks for it, and the token of one service does not pay for another.
func TestCallFee(t *testing.T) {
	t.Parallel()
	c := lab.post(t, chat("model", `"fee"`), header("Host", "fee.test")).challenge(t)
	if c.conds[0] != "services=fee:0" {
		t.Fatalf("the token is for %s", c.conds[0])
	}
	k := agent.pay(t, c)
	a := lab.post(t, chat("model", `"fee"`), k.header("Host", "fee.test", "X-Fault", "status:422")).want(t, 422)
	if got := a.msat(t, "L402-Cost-Msat"); got != 70 {
		t.Errorf("a refusal cost %d msat, want the call fee of 70", got)
	}
	a = lab.post(t, chat("model", `"fee"`), k.header("Host", "fee.test")).want(t, 200)
	e := lab.entry(t, k, a.header.Get("L402-Request-Id"))
	if want := 70 + cost(e.Usage.Input, e.Usage.Output); e.Charged != want {
		t.Errorf("charged %d msat with the call price, want %d", e.Charged, want)
	}
	// A 5xx is no answer to charge a fee for.
	lab.post(t, chat("model", `"fee"`), k.header("Host", "fee.test", "X-Fault", "status:500")).want(t, 502)
	if b := lab.idle(t, k); b.Charged != 70+e.Charged {
		t.Errorf("charged %d msat in all", b.Charged)
	}
	if other := lab.post(t, chat("model", `"running"`), k.header()).challenge(t); other.id.TokenID == k.id.TokenID || other.conds[0] != "services=inference:0" {
		t.Errorf("another service's token got a challenge for %s, %s", other.id.TokenID, other.conds[0])
	}
	lab.post(t, chat("model", `"fee"`), k.header()).want(t, http.StatusNotFound) // not sold under this host
}

// TestAnotherBackendTakesOver goes on to the next backend when the first did
// not take the request, and charges once.
func TestAnotherBackendTakesOver(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	for range 4 { // whichever is asked first
		name := lab.newCase()
		a := lab.post(t, chat("model", `"half-gone"`), k.header(caseHeader, name)).want(t, http.StatusOK)
		truth, _ := lab.truth(t, name)
		if got, want := a.msat(t, "L402-Cost-Msat"), cost(int64(truth.PromptTokens), int64(truth.CompletionTokens)); got != want {
			t.Errorf("charged %d msat, want %d", got, want)
		}
	}
	if got := len(lab.charges(t, k)); got != 4 {
		t.Errorf("%d charges for 4 answers", got)
	}
}

// TestBackendDiesInAStream charges the prompt and what was delivered.
func TestBackendDiesInAStream(t *testing.T) {
	t.Parallel()
	for _, model := range []string{"running", "plain", "tokenizer"} {
		for _, fault := range []string{"cut", "cut-mid", "reset", "error-event"} {
			for _, events := range []int{1, 2, 12} {
				if fault == "error-event" && events == 1 {
					continue // an error before any text: free, see below
				}
				t.Run(fmt.Sprintf("%s/%s:%d", model, fault, events), func(t *testing.T) {
					t.Parallel()
					o, _ := lab.run(t, ask{model: model, fault: fmt.Sprintf("%s:%d", fault, events)}, true)
					pieces, text := o.ended.content(t)
					u := o.charge.Usage
					if o.ended.cost != o.charge.Charged || o.charge.Outcome != "backend_cut" {
						t.Errorf("the stream says %d msat, the ledger %+v", o.ended.cost, o.charge)
					}
					if fault != "error-event" && o.ended.outcome != "backend_cut" {
						t.Errorf("the stream does not say how it ended: %s", tail(o.ended.raw))
					}
					if fault != "error-event" && strings.Contains(o.ended.raw, "[DONE]") {
						t.Error("half a stream looks whole")
					}
					if u.Output < int64(pieces) || u.Output > max(int64(pieces), int64(len(text))) {
						t.Errorf("charged for %d tokens, delivered were %d of %d bytes", u.Output, pieces, len(text))
					}
					if model == "running" && (u.Output != int64(pieces) || u.Input != int64(o.truth.PromptTokens)) && pieces > 0 {
						t.Errorf("charged for %d + %d tokens, delivered were %d + %d", u.Input, u.Output, o.truth.PromptTokens, pieces)
					}
					wantPriced(t, o.charge)
				})
			}
		}
	}
}

// TestBackendDiesBeforeTheFirstEvent charges nothing: as long as no event came
// there is no stream, and an error is no delivery.
func TestBackendDiesBeforeTheFirstEvent(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	for _, fault := range []string{"cut:0", "reset:0", "cut-mid:0", "error-event:0"} {
		lab.post(t, chat("model", `"plain"`, "stream", "true"), k.header("X-Fault", fault)).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	}
	e := lab.stream(t, k, chat("model", `"plain"`), "X-Fault", "error-event:1").rest()
	if n, _ := e.content(t); n != 0 || e.cost != 0 {
		t.Errorf("an error after the role: %d events, a cost of %d msat:\n%s", n, e.cost, tail(e.raw))
	}
	lab.wantFree(t, k)
}

// TestBackendDiesInAUnaryAnswer charges nothing: half a document is withheld.
func TestBackendDiesInAUnaryAnswer(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	for _, fault := range []string{"cut:0", "reset:0", "truncate"} {
		lab.post(t, chat("model", `"plain"`), k.header("X-Fault", fault)).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	}
	lab.wantFree(t, k)
	// What only takes its time is whole.
	lab.post(t, chat("model", `"plain"`), k.header("X-Fault", "slow-body:500ms")).want(t, http.StatusOK)
}

// TestBackendIgnoresItsCap cuts an answer that runs past what the client asked
// for: no charge exceeds its hold.
func TestBackendIgnoresItsCap(t *testing.T) {
	t.Parallel()
	for _, model := range []string{"running", "plain"} {
		o, _ := lab.run(t, ask{model: model, fault: "ignore-max:100", members: []string{"max_tokens", "10"}}, true)
		wantPriced(t, o.charge)
		if u := o.charge.Usage; u.Output > 10 || o.truth.CompletionTokens <= 10 {
			t.Errorf("%s: charged for %d tokens of at most 10; the backend made %d", model, u.Output, o.truth.CompletionTokens)
		}
		if model == "running" && (o.charge.Outcome != "hold_exhausted" || o.ended.outcome != "hold_exhausted") {
			t.Errorf("the stream ended %q, the ledger says %q", o.ended.outcome, o.charge.Outcome)
		}
	}
}
