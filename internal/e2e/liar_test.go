package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestLyingUsage has a backend report a usage that cannot be. The charge stays
// within its bounds, and the operator is told.
func TestLyingUsage(t *testing.T) {
	t.Parallel()
	const tokens = 12
	for _, row := range []struct {
		fault           string
		unary, streamed bool // counted as impossible
	}{
		{"usage:zero", false, false},
		{"usage:negative", true, true},
		{"usage:huge", true, true},
		{"usage:overflow", true, true},
		{"usage:text", false, false},
		{"usage:fraction", false, false},
		{"usage:null", false, false},
		{"no-usage", false, false},
		{"running-usage:huge", false, false}, // there is no text for it, and the final usage stands
		{"running-usage:negative", false, false},
		{"running-usage:zero", false, false},
		{"usage:huge,running-usage:huge", true, true},
	} {
		for _, streamed := range []bool{false, true} {
			before := lab.metric(t, `sluice_usage_clamped_total{model="liar"}`)
			o, _ := lab.run(t, ask{model: "liar", fault: row.fault, members: []string{"max_tokens", fmt.Sprint(tokens)}}, streamed)
			clamped := lab.metric(t, `sluice_usage_clamped_total{model="liar"}`) > before
			u, truth := o.charge.Usage, o.truth
			name := fmt.Sprintf("%s, streamed: %t", row.fault, streamed)
			if want := streamed && row.streamed || !streamed && row.unary; clamped != want {
				t.Errorf("%s: counted as impossible: %t, want %t (%+v)", name, clamped, want, o.charge)
			}
			wantPriced(t, o.charge)
			switch {
			case streamed && u.Output != tokens:
				// Every event had one token, and the cap is what was asked for.
				t.Errorf("%s: charged for %d tokens, want %d", name, u.Output, tokens)
			case u.Output < tokens/2 || u.Output > tokens:
				t.Errorf("%s: charged for %d tokens, %d were made and no more asked for", name, u.Output, tokens)
			case u.Input < int64(truth.PromptTokens)/2:
				t.Errorf("%s: charged for a prompt of %d tokens, it has %d", name, u.Input, truth.PromptTokens)
			}
		}
	}
}

// TestNothingUsed believes a usage of zero where nothing was delivered.
func TestNothingUsed(t *testing.T) {
	t.Parallel()
	for _, streamed := range []string{"false", "true"} {
		k := lab.buy(t, 4000)
		a := lab.post(t, chat("model", `"plain"`, "stream", streamed), k.header("X-Fault", "empty,usage:zero")).want(t, http.StatusOK)
		if !strings.Contains(string(a.body), "cost_msat=0") && a.header.Get("L402-Cost-Msat") != "0" {
			t.Errorf("streamed %s: nothing was used, yet %v\n%s", streamed, a.header, a.body)
		}
		lab.wantFree(t, k)
	}
}

// TestOddAnswers passes unusual but honest streams on unharmed, at the true
// price.
func TestOddAnswers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, fault, marker string }{
		{"CRLF", "crlf", ""},
		{"a line of 1 MiB", "huge-line", strings.Repeat("x", 1<<20)},
		{"comments", "comments", ": ping"},
		{"data on two lines", "split-data", ""},
		{"several tokens in an event", "merge:5", ""},
		{"usage with the last piece", "usage-on-finish", ""},
		{"reasoning", "reasoning:6", "reasoning_content"},
		{"a call of a tool", "tool-calls", "tool_calls"},
		{"cached prompt", "cached:7", ""},
		{"hop-by-hop headers", "hop-headers", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o, k := lab.run(t, ask{model: "running", fault: row.fault}, true)
			o.wantExact(t)
			if !strings.Contains(o.ended.raw, row.marker) {
				t.Errorf("the stream was changed on its way:\n%s", tail(o.ended.raw))
			}
			if !strings.HasSuffix(strings.TrimSpace(o.ended.raw), "data: [DONE]") || o.ended.cost != o.charge.Charged {
				t.Errorf("the stream says %d msat and ends with\n%s", o.ended.cost, tail(o.ended.raw))
			}
			if row.fault == "cached:7" {
				if want := cost(o.charge.Usage.Input, o.charge.Usage.Output) - 3; o.charge.Usage.Cached != 7 || o.charge.Charged != want {
					t.Errorf("charged %d msat with %d cached tokens, want %d", o.charge.Charged, o.charge.Usage.Cached, want)
				}
			}
			a := lab.post(t, chat("model", `"running"`), k.header("X-Fault", row.fault))
			if row.fault == "hop-headers" && (a.header.Get("X-Hop") != "" || a.header.Get("Proxy-Authenticate") != "" || a.header.Get("Upgrade") != "") {
				t.Errorf("hop-by-hop headers came through: %v", a.header)
			}
		})
	}
}

// TestGzip reads the usage of an answer that was compressed unasked, and
// passes it on in plain.
func TestGzip(t *testing.T) {
	t.Parallel()
	for _, streamed := range []bool{false, true} {
		for _, model := range []string{"running", "plain"} {
			o, _ := lab.run(t, ask{model: model, fault: "gzip"}, streamed)
			o.wantExact(t)
			if streamed {
				o.ended.complete(t)
			} else if o.answer.header.Get("Content-Encoding") != "" || o.answer.json(t)["choices"] == nil {
				t.Errorf("the answer is %v %q", o.answer.header, o.answer.body)
			}
		}
	}
}

// TestBrokenStreams charges for what came, even where it cannot be read.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ fault, outcome string }{
		{"no-done", "complete"},
		{"garbage:4", "backend_cut"}, // SDKs fail on an event that is no JSON
		{"after-done:3", "complete"},
		{"cr", "complete"},
	} {
		o, _ := lab.run(t, ask{model: "running", fault: row.fault}, true)
		if o.charge.Outcome != row.outcome || o.ended.cost != o.charge.Charged {
			t.Errorf("%s: the stream says %d msat, the ledger %+v", row.fault, o.ended.cost, o.charge)
		}
		last := o.ended.events[len(o.ended.events)-1]
		if row.outcome != "complete" {
			if !strings.Contains(last, `"error"`) || o.charge.Usage.Output != 3 {
				t.Errorf("%s: charged for %d tokens, 3 came before it ended with %s", row.fault, o.charge.Usage.Output, last)
			}
			continue
		}
		if last != "[DONE]" {
			t.Errorf("%s: after [DONE] came %s", row.fault, last)
		}
		o.wantExact(t)
	}
}
