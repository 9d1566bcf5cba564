package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// Half of a long answer must not look like a whole one. The vectors that were delivered
// are charged by the share of their texts, and what was not delivered is free.
func TestLongEmbeddingsThatBreakOff(t *testing.T) {
	const texts512 = 512 * (6 + 2) // msat for all texts, as they are counted without a usage
	vector := `{"embedding":[` + strings.Repeat("0.1,", 1000) + `1]},`
	vectors := `{"data":[` + strings.TrimSuffix(strings.Repeat(vector, 511), ",")
	junk := `{"data":[` + strings.Repeat(`{"embedding":[null]},`, 1<<16)
	for name, c := range map[string]struct {
		play        http.HandlerFunc
		least, most l402.Msat
	}{
		"it ends within": {longEmbeddings(8<<20, func(sent int) {
			if sent > 4<<20 {
				panic(http.ErrAbortHandler)
			}
		}), texts512 * 45 / 100, texts512 * 52 / 100},
		"fewer than asked":      {says("application/json", vectors, `],"usage":{"prompt_tokens":5120}}`), 511 * 10, 511 * 10},
		"an error at the end":   {says("application/json", vectors, `,{"embedding":[1]}],"error":{"message":"out of memory"}}`), texts512, texts512},
		"the last one is null":  {says("application/json", vectors, `,{"embedding":null}],"usage":{"prompt_tokens":5120}}`), texts512 * 96 / 100, 511 * 8},
		"the last one is NaN":   {says("application/json", vectors, `,{"embedding":[NaN]}],"usage":{"prompt_tokens":5120}}`), texts512 * 96 / 100, 511 * 8},
		"the last one is words": {says("application/json", vectors, `,{"embedding":"out of memory"}]}`), texts512 * 96 / 100, 511 * 8},
		"no JSON in the midst":  {says("application/json", vectors, `}}}`, vectors), texts512 * 96 / 100, 511 * 8},
		"no vector at all":      {says("application/json", junk), 0, 0},
	} {
		r := readingFrom(t, c.play, keeping(1<<20, 0))
		k := r.buy(maxPurchase)
		resp, err := r.client.Do(r.newRequest("POST", embeddingsPath, `{"model":"demo","input":`+texts(512)+`}`, k.with()))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode == http.StatusOK {
			t.Errorf("%s: half an answer looks whole", name)
		}
		if c.most == 0 {
			r.wantSpent(k, 0)
			continue
		}
		e := r.lastCharge(k)
		if e.Charged < c.least || e.Charged > c.most || e.Outcome != metering.OutcomeBackendCut || e.Usage[pricing.Bytes] < int64(len(body)) {
			t.Errorf("%s: charged %d of %d..%d msat for %d bytes: %+v", name, e.Charged, c.least, c.most, len(body), e)
		}
		if got := int64(strings.Count(string(body), "},{")); got*8 > int64(e.Charged)*102/100 {
			t.Errorf("%s: %d vectors came, and %d msat are charged", name, got, e.Charged)
		}
		if s := r.fleet.Status()[0]; s.Failed == 0 {
			t.Errorf("%s: the backend is not blamed: %+v", name, s)
		}
	}
}
