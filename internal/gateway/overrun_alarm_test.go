package gateway_test

import (
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// TestHiddenReasoningBeyondTheCapIsAlarmed: nobody pays for hidden reasoning beyond the cap. It is
// counted, and the owner is told.
func TestHiddenReasoningBeyondTheCapIsAlarmed(t *testing.T) {
	for name, c := range map[string]struct {
		usage, says string
		tokens      float64
	}{
		"listed": {`{"prompt_tokens":50,"completion_tokens":2000,"completion_tokens_details":{"reasoning_tokens":1980}}`, "delivered more than its request could cost", 1900},
		"not":    {`{"prompt_tokens":50,"completion_tokens":2000}`, "a usage that its request cannot have", 0},
	} {
		r := playing(t, format.EngineGeneric, document(`,"usage":`+c.usage, strings.Repeat("abcd", 5)))
		k := r.buy(maxPurchase)
		r.chat(k, request("max_tokens", "100"))
		r.wantCharged(k, name, cost10(50, 100))
		if got := r.metric(`sluice_backend_overrun_tokens_total{backend="gpu0",direction="output"}`); got != c.tokens {
			t.Errorf("%s: %v tokens beyond the cap, want %v", name, got, c.tokens)
		}
		if got := r.metric(`sluice_unbilled_msat_total{model="demo"}`); got != 10*c.tokens {
			t.Errorf("%s: %v msat unbilled", name, got)
		}
		if !strings.Contains(r.log.String(), c.says) {
			t.Errorf("%s: no alarm", name)
		}
	}
}
