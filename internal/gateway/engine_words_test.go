package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// TestEnginesWordsWithinAnAnswerAreFiltered: an engine's words within a 200 are filtered like its
// words with a 5xx.
func TestEnginesWordsWithinAnAnswerAreFiltered(t *testing.T) {
	const said = "upstream/demo failed at http://10.1.2.3:8000/v1 /opt/models/secret.py gpu-7.cluster.local: shape mismatch"
	fault := func(code string) string { return `{"error":{"message":"` + said + `"` + code + `}}` }
	padded := `{"error":{"message":"` + strings.Repeat("x ", 146) + `gpu-7.cluster.local:8000"}}`
	for name, c := range map[string]struct {
		body, words string
		status      int
	}{
		"within a stream":        {roleEvent + word("one ", "") + "data: " + fault("") + "\n\n" + doneEvent, "shape mismatch", http.StatusOK},
		"text within a stream":   {roleEvent + word("one ", "") + "data: " + said + "\n\n" + doneEvent, "shape mismatch", http.StatusOK},
		"at its cut":             {roleEvent + word("one ", "") + "data: " + padded + "\n\n" + doneEvent, "x x", http.StatusOK},
		"first in a stream":      {"data: " + fault("") + "\n\n" + doneEvent, "shape mismatch", http.StatusBadGateway},
		"a document":             {fault(""), "shape mismatch", http.StatusBadGateway},
		"the request's fault":    {fault(`,"code":400`), "shape mismatch", http.StatusBadRequest},
		"the same, in a stream":  {"data: " + fault(`,"code":400`) + "\n\n", "shape mismatch", http.StatusBadRequest},
		"in a choice":            {roleEvent + word("one ", "") + ending(`"error"`, `,"error":{"message":"`+said+`"}`), "shape mismatch", http.StatusOK},
		"in a reason of its own": {roleEvent + word("one ", "") + ending(`"error at http://10.1.2.3:8000/v1"`, ""), "finish_reason", http.StatusOK},
	} {
		r := playing(t, format.EngineGeneric, says("", c.body))
		k := r.buy(minPurchase)
		a := r.chat(k, asStream(24))
		if a.status != c.status || !strings.Contains(string(a.body), c.words) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		for _, secret := range []string{"upstream", "10.1.2.3", "/opt", "secret.py", "gpu-7", "cluster", "8000"} {
			if strings.Contains(string(a.body), secret) {
				t.Errorf("%s: the client learns %q: %s", name, secret, a.body)
			}
		}
	}
}
