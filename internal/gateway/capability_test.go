package gateway_test

import (
	"net/http"
	"testing"
)

// TestCapabilityOfScore: a token that is limited to rerank may call score, as the protocol says,
// and a token that is limited to score may not call rerank.
func TestCapabilityOfScore(t *testing.T) {
	r := newRig(t, reading)
	k := r.buy(maxPurchase)
	bodies := map[string]string{
		rerankPath:     `{"model":"demo","query":"a","documents":["a"]}`,
		scorePath:      `{"model":"demo","text_1":"a","text_2":["b"]}`,
		embeddingsPath: `{"model":"demo","input":"a"}`,
	}
	for capability, may := range map[string][]string{
		"rerank": {rerankPath, scorePath}, "score": {scorePath}, "embeddings": {embeddingsPath}, "embeddings,rerank": {rerankPath, scorePath, embeddingsPath},
	} {
		narrow := k.attenuate(t, "inference_capabilities="+capability)
		allowed := map[string]bool{}
		for _, path := range may {
			allowed[path] = true
		}
		for path, body := range bodies {
			a := r.do("POST", path, body, narrow.with())
			if allowed[path] != (a.status == http.StatusOK) {
				t.Errorf("%s with %s: %d %s", path, capability, a.status, a.body)
			}
			if !allowed[path] {
				a.wantProblem(t, http.StatusForbidden, "caveat-violation")
			}
		}
	}
}
