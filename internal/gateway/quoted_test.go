package gateway_test

import (
	"net/http"
	"testing"

	"sluice.example/sluice/l402"
)

// TestQuotesOfEachAPI: a quote is for the API whose path is named. An API that writes no completion
// is quoted without one.
func TestQuotesOfEachAPI(t *testing.T) {
	r := newRig(t, reading)
	for query, want := range map[string]l402.Msat{
		"input_tokens=100":                                                 100 + 2*256, // the model is also sold through chat
		"input_tokens=100&max_tokens=50":                                   100 + 2*50,
		"input_tokens=100&max_tokens=50&path=/v1/chat/completions":         100 + 2*50,
		"input_tokens=100&path=/v1/embeddings":                             100,
		"input_tokens=100&max_tokens=50&path=/v1/embeddings":               100,
		"input_tokens=100&path=/v1/rerank&searches=2&documents=120":        100 + 2*10 + 120*3,
		"input_tokens=100&path=/v1/score&documents=2":                      100 + 2*3,
		"input_tokens=100&path=/rerank&searches=9223372036&documents=1000": 100 + 10*9223372036 + 3*1000,
	} {
		if a := r.do("GET", "/l402/quote?model=demo&"+query, "", nil); a.status != http.StatusOK || a.msat(t, "bound_msat") != want {
			t.Errorf("%s: %d %s, want %d msat", query, a.status, a.body, want)
		}
	}
	r.do("GET", "/l402/quote?model=demo&path=/v1/completions", "", nil).wantProblem(t, http.StatusNotFound, "invalid-request")
	for _, name := range []string{"input_tokens", "max_tokens", "searches", "documents"} {
		if p := r.do("GET", "/l402/quote?model=demo&"+name+"=-4", "", nil).wantProblem(t, http.StatusBadRequest, "invalid-request"); p["param"] != name {
			t.Errorf("%s: %v", name, p)
		}
	}
	only := newRig(t, reading, func(s *setup) {
		before := s.service
		s.service = func(svc *gatewayService) {
			before(svc)
			svc.Models[0].Formats, svc.Models[0].Limits.MaxCompletion = []string{"embeddings"}, 0
		}
	})
	if a := only.do("GET", "/l402/quote?model=demo&input_tokens=100&max_tokens=50", "", nil); a.msat(t, "bound_msat") != 100 || a.json(t)["max_tokens"] != 0.0 {
		t.Errorf("%s", a.body)
	}
	k := only.buy(minPurchase)
	if a := only.do("POST", embeddingsPath, `{"model":"demo","input":"The river."}`, k.with()); a.status != http.StatusOK {
		t.Errorf("without a cap: %d %s", a.status, a.body)
	}
}
