package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// inputRates: 1 msat per token read, 10 for a search, 3 for a document.
var inputRates = pricing.Rates{pricing.InputTokens: 1_000_000, pricing.OutputTokens: 2_000_000, pricing.Searches: 10, pricing.Documents: 3}

// reading sells a model through all APIs that read texts, and chat.
func reading(s *setup) {
	s.rates = &inputRates
	s.service = func(svc *gatewayService) {
		svc.Models[0].Formats = []string{"chat", "embeddings", "rerank", "score"}
		svc.Models[0].Limits = format.Limits{ContextTokens: 8192, MaxCompletion: 256}
	}
}

// readingFrom is a gateway before a backend that answers everything with play.
func readingFrom(t testing.TB, play http.HandlerFunc, more ...func(*setup)) *rig {
	backend := httptest.NewServer(play)
	t.Cleanup(backend.Close)
	return newRig(t, append([]func(*setup){reading, func(s *setup) { s.backendURLs = []string{backend.URL} }}, more...)...)
}

// texts is a JSON list of n texts.
func texts(n int) string {
	return "[" + strings.TrimSuffix(strings.Repeat(`"The river and its banks.",`, n), ",") + "]"
}

const embeddingsPath, rerankPath, scorePath = "/v1/embeddings", "/v1/rerank", "/v1/score"

// Each charge is the backend's own count, to the token.
func TestTextsReadCostWhatTheBackendCounts(t *testing.T) {
	r := newRig(t, reading)
	k := r.buy(maxPurchase)
	var spent l402.Msat
	for _, c := range []struct {
		path, body          string
		searches, documents int64
	}{
		{embeddingsPath, `{"model":"demo","input":"Tell me about the river."}`, 0, 0},
		{embeddingsPath, `{"model":"demo","input":` + texts(20) + `,"encoding_format":"float","dimensions":32}`, 0, 0},
		{embeddingsPath, `{"model":"demo","input":` + texts(2048) + `,"encoding_format":"base64"}`, 0, 0},
		{embeddingsPath, `{"model":"demo","input":[5,6,7],"user":"someone"}`, 0, 0},
		{embeddingsPath, `{"model":"demo","input":[[5,6,7],[8]]}`, 0, 0},
		{rerankPath, `{"model":"demo","query":"the river","documents":` + texts(120) + `,"top_n":3,"return_documents":true}`, 2, 120},
		{scorePath, `{"model":"demo","text_1":"the river","text_2":` + texts(2) + `}`, 0, 2},
	} {
		a := r.do("POST", c.path, c.body, k.with())
		requests := r.backend.Requests()
		counted := int64(requests[len(requests)-1].PromptTokens)
		e := r.lastCharge(k)
		want := l402.Msat(counted + 10*c.searches + 3*c.documents)
		spent += want
		u := e.Usage
		if a.status != http.StatusOK || u[pricing.InputTokens] != counted || counted == 0 || e.Charged != want || e.Source != metering.SourceReported ||
			u[pricing.OutputTokens] != 0 || u[pricing.Calls] != 1 || u[pricing.Searches] != c.searches || u[pricing.Documents] != c.documents {
			t.Errorf("%s %.60s: %d, charged %d for %v by %s, the backend counted %d\n%.300s", c.path, c.body, a.status, e.Charged, u, e.Source, counted, a.body)
		}
		if got := a.header.Get("L402-Cost-Msat"); got != fmt.Sprint(int64(want)) {
			t.Errorf("%s: the header says %q", c.path, got)
		}
	}
	r.wantSpent(k, spent)
}

func TestTextsThatTheBalanceDoesNotCover(t *testing.T) {
	r := newRig(t, reading)
	k := r.buy(minPurchase)
	body := `{"model":"demo","input":` + texts(2048) + `}`
	p := r.do("POST", embeddingsPath, body, k.with()).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	if need := p["required_msat"].(float64); need != float64(2048*(24+4)) {
		t.Errorf("%v msat are required", need)
	}
	r.do("POST", embeddingsPath, body, k.with("L402-Allow-Truncate", "1")).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	p = r.do("POST", rerankPath, `{"model":"demo","query":"river","documents":`+texts(900)+`}`, k.with("L402-Max-Cost-Msat", "1")).
		wantProblem(t, http.StatusPreconditionFailed, "cost-above-maximum")
	if need := p["required_msat"].(float64); need != float64(900*(24+5+6)+9*10+900*3) {
		t.Errorf("%v msat are required to rank", need)
	}
	r.do("POST", embeddingsPath, body, nil).wantProblem(t, http.StatusPaymentRequired, "payment-required")
	r.wantSpent(k, 0)
}

// A tokenizer finds that a balance covers what its bound in bytes does not.
func TestTokenizerBoundsTexts(t *testing.T) {
	for path, body := range map[string]string{
		embeddingsPath: `{"model":"demo","input":` + texts(2048) + `}`,
		rerankPath:     `{"model":"demo","query":"Where is the river, and what does it flow through?","documents":` + texts(900) + `}`,
	} {
		r := newRig(t, reading, func(s *setup) { s.profile = does(true, false) })
		k := r.buy(minPurchase)
		a := r.do("POST", path, body, k.with())
		requests := r.backend.Requests()
		if a.status != http.StatusOK || r.lastCharge(k).Usage[pricing.InputTokens] != int64(requests[len(requests)-1].PromptTokens) {
			t.Errorf("%s: %d %.300s", path, a.status, a.body)
		}
	}
}

// Without a usage the backend's tokenizer counts, else the bytes do.
func TestTextsReadWithoutUsage(t *testing.T) {
	for _, tokenize := range []bool{true, false} {
		r := newRig(t, reading, func(s *setup) { s.profile = does(tokenize, false) })
		k := r.buy(maxPurchase)
		for path, body := range map[string]string{
			embeddingsPath: `{"model":"demo","input":` + texts(50) + `}`,
			rerankPath:     `{"model":"demo","query":"the river","documents":` + texts(50) + `}`,
		} {
			a := r.do("POST", path, body, k.with("X-Fault", "no-usage"))
			e := r.lastCharge(k)
			var counted int64
			for _, rec := range r.backend.Requests() {
				if rec.Path == path {
					counted = int64(rec.PromptTokens)
				}
			}
			got, want := e.Usage[pricing.InputTokens], metering.SourceCounted
			if tokenize {
				want = metering.SourceTokenizer
			}
			if a.status != http.StatusOK || e.Source != want || 10*got < 7*counted || 10*got > 14*counted {
				t.Errorf("%s: %d, %d tokens by %s, the backend counted %d", path, a.status, got, e.Source, counted)
			}
		}
	}
}

// TEI and SGLang answer with a list, without an object around it.
func TestRerankAnswersWithAList(t *testing.T) {
	const list = `[{"index":1,"score":0.9},{"index":0,"score":0.1}]`
	r := readingFrom(t, says("application/json", "\n"+list))
	k := r.buy(maxPurchase)
	a := r.do("POST", "/rerank", `{"model":"demo","query":"river","texts":["bank","water"]}`, k.with())
	if a.status != http.StatusOK || string(a.body) != list {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r.wantCharged(k, "a list", 11+10+2*3)
	for path, body := range map[string]string{
		embeddingsPath: `{"model":"demo","input":"river"}`,
		chatPath:       request(),
	} {
		r.do("POST", path, body, k.with()).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	}
	r.wantSpent(k, 11+10+2*3)
}

// What is no answer is the backend's fault, and free.
func TestNoVectorsAreFree(t *testing.T) {
	for name, c := range map[string]struct {
		play   http.HandlerFunc
		status int
	}{
		"fewer than asked": {says("application/json", `{"object":"list","data":[{"embedding":[1]}],"usage":{"prompt_tokens":5}}`), http.StatusBadGateway},
		"no vectors":       {says("application/json", `{"object":"list","data":[{"index":0},{"index":1}]}`), http.StatusBadGateway},
		"an error":         {says("application/json", `{"error":{"message":"out of memory"}}`), http.StatusBadGateway},
		"a refusal":        {says("application/json", `{"error":{"message":"input is too long","code":400}}`), http.StatusBadRequest},
		"a page":           {says("text/html", `<html></html>`), http.StatusBadGateway},
		"events":           {says(sse, "data: {\"data\":[]}\n\n"), http.StatusBadGateway},
		"half a document":  {says("application/json", `{"data":[{"embedding":[1]},{"embe`), http.StatusBadGateway},
		"nothing":          {says("application/json"), http.StatusBadGateway},
		"vectors of nulls": {says("application/json", `{"data":[{"index":0,"embedding":[null]},{"index":1,"embedding":[null]}],"usage":{"prompt_tokens":5}}`), http.StatusBadGateway},
		"vectors of NaN":   {says("application/json", `{"data":[{"index":0,"embedding":[NaN]},{"index":1,"embedding":[NaN]}],"usage":{"prompt_tokens":5}}`), http.StatusBadGateway},
		"vectors of texts": {says("application/json", `{"data":[{"index":0,"embedding":["a"]},{"index":1,"embedding":["b"]}],"usage":{"prompt_tokens":5}}`), http.StatusBadGateway},
		"words":            {says("application/json", `{"data":[{"index":0,"embedding":"out of memory"},{"index":1,"embedding":"out of memory"}],"usage":{"prompt_tokens":5}}`), http.StatusBadGateway},
		"one text twice":   {says("application/json", `{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}],"usage":{"prompt_tokens":5}}`), http.StatusBadGateway},
		"a text not sent":  {says("application/json", `{"data":[{"index":1,"embedding":[1]},{"index":2,"embedding":[1]}],"usage":{"prompt_tokens":5}}`), http.StatusBadGateway},
	} {
		r := readingFrom(t, c.play)
		k := r.buy(maxPurchase)
		if a := r.do("POST", embeddingsPath, `{"model":"demo","input":["river","bank"]}`, k.with()); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		r.wantSpent(k, 0)
	}
}

// Scores that are no numbers rank nothing.
func TestNoScoresAreFree(t *testing.T) {
	for name, results := range map[string]string{
		"null":                `[{"index":0,"relevance_score":null},{"index":1,"relevance_score":null}]`,
		"NaN":                 `[{"index":0,"relevance_score":NaN},{"index":1,"relevance_score":NaN}]`,
		"one document twice":  `[{"index":1,"relevance_score":0.5},{"index":1,"relevance_score":0.5}]`,
		"a document not sent": `[{"index":0,"relevance_score":0.5},{"index":7,"relevance_score":0.5}]`,
	} {
		r := readingFrom(t, says("application/json", `{"results":`+results+`,"usage":{"prompt_tokens":9}}`))
		k := r.buy(maxPurchase)
		if a := r.do("POST", rerankPath, `{"model":"demo","query":"river","documents":["bank","water"]}`, k.with()); a.status != http.StatusBadGateway {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		r.wantSpent(k, 0)
	}
}

func TestRequestsForTextsAreRefused(t *testing.T) {
	r := newRig(t, reading)
	k := r.buy(minPurchase)
	p := r.do("POST", embeddingsPath, `{"model":"demo","input":"a","stream":true}`, k.with()).wantProblem(t, http.StatusBadRequest, "invalid-request")
	if p["param"] != "stream" {
		t.Errorf("%v", p)
	}
	chat := newRig(t)
	p = chat.do("POST", embeddingsPath, `{"model":"demo","input":"a"}`, chat.buy(minPurchase).with()).wantProblem(t, http.StatusNotFound, "invalid-request")
	if !strings.Contains(p["detail"].(string), chatPath) {
		t.Errorf("%v", p)
	}
	r.do("POST", rerankPath, `{"model":"demo","query":"a","documents":["a"]}`, k.attenuate(t, "inference_capabilities=embeddings").with()).
		wantProblem(t, http.StatusForbidden, "caveat-violation")
}

// A caller who hangs up while a batch is computed pays for what was read, and nothing
// where the backend showed nobody a sign of life.
func TestHangUpWhileABatchIsComputed(t *testing.T) {
	alive := func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		if strings.HasSuffix(req.URL.Path, "/embeddings") {
			<-req.Context().Done()
			return
		}
		says("application/json", `{"results":[{"index":0,"relevance_score":1}],"usage":{"prompt_tokens":9}}`)(w, req)
	}
	for name, sign := range map[string]bool{"others are served": true, "a stall": false} {
		r := readingFrom(t, alive)
		k, other := r.buy(maxPurchase), r.buy(maxPurchase)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(200*time.Millisecond, func() {
			if sign {
				r.do("POST", rerankPath, `{"model":"demo","query":"a","documents":["a"]}`, other.with())
			}
			cancel()
		})
		if _, err := r.client.Do(r.newRequest("POST", embeddingsPath, `{"model":"demo","input":["The river.","Its banks."]}`, k.with()).WithContext(ctx)); err == nil {
			t.Fatalf("%s: answered", name)
		}
		if sign {
			r.wantCharged(k, name, 5+2*2)
		} else {
			r.until("the backend is free again", func() bool { return r.fleet.Status()[0].InFlight == 0 })
			r.wantSpent(k, 0)
		}
	}
}

// longEmbeddings sends at least so many bytes of vectors, and a usage of 5,120 tokens.
// It waits for more after each.
func longEmbeddings(size int, more func(sent int)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		var body struct{ Input []string }
		_ = json.NewDecoder(req.Body).Decode(&body)
		w.Header().Set("Content-Type", "application/json")
		vector := strings.Repeat("-0.0123456,", size/len(body.Input)/11)
		io.WriteString(w, `{"object":"list","data":[`)
		for i, sent := 0, 0; i < len(body.Input); i++ {
			if i > 0 {
				io.WriteString(w, ",")
			}
			fmt.Fprintf(w, `{"object":"embedding","index":%d,"embedding":[`, i)
			io.WriteString(w, vector)
			io.WriteString(w, "1]}")
			sent += len(vector)
			more(sent)
		}
		io.WriteString(w, `],"usage":{"prompt_tokens":5120,"total_tokens":5120}}`)
	}
}

// An answer of 64 MB passes through little memory; its cost is in the trailer.
func TestLongEmbeddingsStream(t *testing.T) {
	const size = 64 << 20
	var most uint64
	watch := func(int) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
	}
	r := readingFrom(t, longEmbeddings(size, func(sent int) {
		if sent>>20%8 == 0 {
			watch(sent)
		}
	}), keeping(1<<20, 0))
	k := r.buy(maxPurchase)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	resp, err := r.client.Do(r.newRequest("POST", embeddingsPath, `{"model":"demo","input":`+texts(512)+`}`, k.with()))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n < size*9/10 || resp.Trailer.Get("L402-Cost-Msat") != "5120" || resp.Header.Get("L402-Cost-Msat") != "" {
		t.Errorf("%d bytes, %v, trailer %v", n, err, resp.Trailer)
	}
	resp.Body.Close()
	if grew := int64(most) - int64(before.HeapAlloc); grew > 24<<20 {
		t.Errorf("the heap grew by %d MiB", grew>>20)
	}
	r.wantCharged(k, "64 MB", 5120)
	if e := r.lastCharge(k); e.Usage[pricing.Bytes] != n || e.Source != metering.SourceReported {
		t.Errorf("%+v", e)
	}
}

// A client that hangs up within a long answer pays for all of it: the backend had made
// it before.
func TestHangUpWithinLongEmbeddings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stays  bool // the backend goes on after the client left
		charge l402.Msat
	}{
		"the usage comes in time": {true, 5120},
		"it does not":             {false, 512 * (6 + 2)},
	} {
		left := make(chan struct{})
		r := readingFrom(t, longEmbeddings(8<<20, func(sent int) {
			if sent == 4<<20 || sent > 4<<20 && sent < 4<<20+16<<10 {
				<-left
				if !c.stays {
					time.Sleep(4 * time.Second)
				}
			}
		}), keeping(1<<20, 0))
		k := r.buy(maxPurchase)
		resp, err := r.client.Do(r.newRequest("POST", embeddingsPath, `{"model":"demo","input":`+texts(512)+`}`, k.with()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, resp.Body, 2<<20); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		close(left)
		r.wantCharged(k, name, c.charge)
		if sent := r.lastCharge(k).Usage[pricing.Bytes]; sent < 2<<20 || sent > 7<<20 {
			t.Errorf("%s: %d bytes count as delivered", name, sent)
		}
	}
}
