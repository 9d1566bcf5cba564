package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/apis"
	"sluice.example/sluice/metering/format/formattest"
	"sluice.example/sluice/pricing"
)

// recorded is a backend that sends the answer of a vector in small pieces.
func recorded(t testing.TB, v *formattest.Vector) string {
	kind := "application/json"
	if v.Streamed() {
		kind = sse
	}
	paths := pathsOf(v.API)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !slices.Contains(paths, req.URL.Path) {
			http.NotFound(w, req)
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		w.Header().Set("Content-Type", kind)
		size := max(97, len(v.Answer)/64)
		for piece := range slices.Chunk([]byte(v.Answer), size) {
			w.Write(piece)
			w.(http.Flusher).Flush()
		}
		if v.Cut {
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func pathsOf(api string) []string {
	all := apis.All()
	return all[slices.IndexFunc(all, func(f format.Format) bool { return f.Name() == api })].Paths()
}

// costComment matches the gateway's own comment in a stream.
var costComment = regexp.MustCompile(`(?m)^: l402 .*$`)

// TestVectorsOverHTTP plays the formats' recorded answers to a client that pays. The client gets
// what the vector says, byte for byte, and is charged for it.
func TestVectorsOverHTTP(t *testing.T) {
	for _, v := range formattest.Read(t, "../../metering/format/openai/testdata/vectors") {
		r := newRig(t, func(s *setup) {
			s.backendURLs = []string{recorded(t, v)}
			s.profile = format.Setting{Engine: v.Engine}
			s.rates = &pricing.Rates{pricing.InputTokens: 1_000_000, pricing.OutputTokens: 10_000_000, pricing.Searches: 100, pricing.Documents: 1000}
			s.backend = func(b *gpuBackend) { b.Models = map[string]string{testModel: testModel} }
			s.service = func(svc *gatewayService) {
				svc.Models[0].Formats = []string{v.API}
				svc.Models[0].Limits.TemplateBase = 100
			}
		})
		k := r.buy(maxPurchase)
		a := r.do("POST", pathsOf(v.API)[0], string(v.Request), k.with())
		if got := costComment.ReplaceAllString(string(a.body), ": l402"); a.status != http.StatusOK || got != v.Client {
			t.Errorf("%s: %d, the client gets\n%s\nwant\n%s", v.Name, a.status, got, v.Client)
		}
		e := r.lastCharge(k)
		want := pricing.Units{pricing.InputTokens: v.Input, pricing.OutputTokens: v.Output, pricing.Searches: v.Searches, pricing.Documents: v.Documents,
			pricing.Calls: 1, pricing.Bytes: e.Usage[pricing.Bytes], pricing.WallMicros: e.Usage[pricing.WallMicros]}
		outcome := metering.OutcomeComplete
		if v.Cut || v.Failed != "" {
			outcome = metering.OutcomeBackendCut
		}
		if e.Usage != want || e.Source != v.Source || e.Outcome != outcome {
			t.Errorf("%s: %v by %s, %s; want %v by %s", v.Name, e.Usage, e.Source, e.Outcome, want, v.Source)
		}
		told := a.header.Get("L402-Cost-Msat")
		if v.Streamed() {
			told = a.trailer.Get("L402-Cost-Msat")
		}
		right := v.Input + 10*v.Output + 100*v.Searches + 1000*v.Documents
		if int64(e.Charged) != right || told != amountText(e.Charged) || v.Streamed() && !strings.Contains(string(a.body), ": l402 cost_msat="+told) {
			t.Errorf("%s: charged %d msat, told %s, want %d", v.Name, e.Charged, told, right)
		}
	}
}
