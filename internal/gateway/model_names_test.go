package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// calling is a gateway before a backend that calls the model name and answers with
// play.
func calling(t *testing.T, name string, play *http.HandlerFunc) *rig {
	return playing(t, format.EngineGeneric, *play, func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Models = map[string]string{testModel: name} }
	})
}

// What an engine says names the model as the client does, and no word is changed that
// only has the same letters.
func TestOnlyTheModelIsRenamedInAnEnginesWords(t *testing.T) {
	for _, c := range []struct{ name, said, told string }{
		{"model", "this model cannot read images", "this model cannot read images"},
		{"model", "the model `model` cannot read images", "the model `demo` cannot read images"},
		{"model", `"model" cannot read 'model'`, `"demo" cannot read 'demo'`},
		{"m", "Image input is not for m: maximum 1", "Image input is not for m: maximum 1"},
		{"m", "'m' takes no images", "'demo' takes no images"},
		{"Q4", "Q4 takes no images, not even Q4.", "demo takes no images, not even demo."},
		{"Q4", "Q42, SQ4, Q4_K, Q4-x and x.Q4 take no images", "Q42, SQ4, Q4_K, Q4-x and x.Q4 take no images"},
		{"llama-3", "models/llama-3 is text only; try llama-3-vision or llama-3.1", "models/demo is text only; try llama-3-vision or llama-3.1"},
		{"llama-3", "(llama-3) and llama-3:latest are text only", "(demo) and demo:latest are text only"},
		{"Zoë1", "Zoë1 is text only, and so is Zoë1é", "demo is text only, and so is Zoë1é"},
		{"org/Big-1B", "org/Big-1B is text only - org/Big-1B", "demo is text only - demo"},
	} {
		r := calling(t, c.name, answers(400, fmt.Sprintf(`{"error":{"message":%q,"type":"BadRequestError"}}`, c.said)))
		a := r.chat(r.buy(minPurchase), request())
		if got := fmt.Sprint(a.json(t)["detail"]); a.status != http.StatusBadRequest || !strings.HasPrefix(got, c.told) {
			t.Errorf("a model called %s: %d %q, want %q", c.name, a.status, got, c.told)
		}
	}
}

// The operator reads the backend's own words, with the backend's name of the model.
func TestOperatorReadsTheBackendsOwnWords(t *testing.T) {
	for _, c := range []struct{ name, said string }{
		{"model", "The model model does not exist at gpu-7.cluster.local."},
		{"org/Big-1B", "org/Big-1B is not a known model"},
	} {
		r := calling(t, c.name, answers(404, fmt.Sprintf(`{"error":{"message":"model not found: %s"}}`, c.said)))
		r.chat(r.buy(minPurchase), request()).wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
		if log := r.log.String(); !strings.Contains(log, "reason=\"model not found: "+c.said+`"`) || !strings.Contains(log, "level=WARN") {
			t.Errorf("the log says %s", log)
		}
		if a := r.ask("GET", "/admin/backends", adminToken); !strings.Contains(string(a.body), `"unknown_models":{"demo":"model not found: `+c.said+`"`) {
			t.Errorf("the operator sees %s", a.body)
		}
	}
	r := calling(t, "org/Big-1B", answers(500, `{"error":{"message":"org/Big-1B: shape mismatch"}}`))
	a := r.chat(r.buy(minPurchase), request())
	if !strings.Contains(string(a.body), "demo: shape mismatch") || strings.Contains(string(a.body), "Big") {
		t.Errorf("the client reads %s", a.body)
	}
	if log := r.log.String(); !strings.Contains(log, "org/Big-1B: shape mismatch") {
		t.Errorf("the log says %s", log)
	}
}
