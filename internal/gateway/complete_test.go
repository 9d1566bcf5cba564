package gateway_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

func TestUnaryAnswerIsChargedBeforeItIsSent(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	a := r.chat(k, request())
	if a.status != http.StatusOK {
		t.Fatalf("status %d\n%s", a.status, a.body)
	}
	charged := r.trueCost()
	if got := amountHeader(t, a.header, "L402-Cost-Msat"); got != charged {
		t.Errorf("cost %d, want %d", got, charged)
	}
	if got := amountHeader(t, a.header, "L402-Balance-Msat"); got != minPurchase-charged {
		t.Errorf("balance %d, want %d", got, minPurchase-charged)
	}
	if a.header.Get("L402-Price-Epoch") != "3" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", a.header)
	}
	r.wantSpent(k, charged)
	e := r.lastCharge(k)
	if e.ID.String() != a.header.Get("L402-Request-Id") || e.Outcome != metering.OutcomeComplete || e.Source != metering.SourceReported ||
		e.Charged != charged || e.Model != testModel || e.Service != testService || e.Epoch != 3 || e.Rates != testRates {
		t.Errorf("entry %+v", e)
	}
	if rec := r.truth(); rec.CompletionTokens != 24 || e.Usage[pricing.OutputTokens] != 24 || e.Usage[pricing.InputTokens] != int64(rec.PromptTokens) {
		t.Errorf("usage %+v, truth %+v", e.Usage, rec)
	}
}

func TestStreamIsChargedBeforeItsEnd(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	a := r.chat(k, request("stream", "true"))
	if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("status %d %v\n%s", a.status, a.header, a.body)
	}
	charged := r.trueCost()
	told, left := comment(t, a.body)
	if told != charged || left != minPurchase-charged {
		t.Errorf("comment says %d and %d, want %d and %d", told, left, charged, minPurchase-charged)
	}
	if got := amountHeader(t, a.trailer, "L402-Cost-Msat"); got != charged {
		t.Errorf("trailer %d, want %d", got, charged)
	}
	if held := amountHeader(t, a.header, "L402-Balance-Msat"); held >= minPurchase-charged {
		t.Errorf("the balance after the hold is %d", held)
	}
	if !bytes.HasSuffix(a.body, []byte("\n\n: l402 cost_msat="+a.trailer.Get("L402-Cost-Msat")+" balance_msat="+amountText(left)+"\ndata: [DONE]\n\n")) {
		t.Errorf("the comment is not right before the last event:\n%s", tail(a.body))
	}
	for _, data := range dataLines(a.body) {
		if strings.Contains(data, `"usage":{`) {
			t.Errorf("a usage that was not asked for was passed on: %s", data)
		}
	}
	r.wantSpent(k, charged)
}

func TestUsageChunkIsPassedOnOnlyWhenAskedFor(t *testing.T) {
	for _, c := range []struct {
		options string
		want    bool
	}{{`{"include_usage":true}`, true}, {`{"include_usage":false}`, false}, {`{}`, false}, {`null`, false}} {
		for _, continuous := range []bool{false, true} {
			r := newRig(t, func(s *setup) { s.profile = does(false, continuous) })
			k := r.buy(minPurchase)
			a := r.chat(k, request("stream", "true", "stream_options", c.options))
			found := strings.Contains(string(a.body), `"usage":{`)
			if found != c.want {
				t.Errorf("options %s, continuous %v: usage passed on: %v\n%s", c.options, continuous, found, tail(a.body))
			}
			r.wantSpent(k, r.trueCost())
		}
	}
}

// TestNoWayToPayLessThanWasDelivered: a client can influence what it is told, but never what it pays.
func TestNoWayToPayLessThanWasDelivered(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.inference[0].ImageTokens = 50
	})
	k := r.buy(maxPurchase)
	image := `[{"role":"user","content":[{"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]`
	oneByte := `[{"role":"user","content":"` + strings.Repeat("§ !", 400) + `"}]`
	for name, body := range map[string]string{
		"include_usage false":   request("stream", "true", "stream_options", `{"include_usage":false}`),
		"usage null":            request("stream", "true", "stream_options", `{"include_usage":null,"continuous_usage_stats":false}`),
		"n 4":                   request("n", "4"),
		"n 4 streamed":          request("n", "4", "stream", "true"),
		"n of llama.cpp":        request("n_cmpl", "3"),
		"max_completion_tokens": request("max_tokens", "", "max_completion_tokens", "30"),
		"both caps":             request("max_tokens", "5", "max_completion_tokens", "40"),
		"no maximum":            request("max_tokens", ""),
		"no maximum streamed":   request("max_tokens", "", "stream", "true"),
		"huge maximum":          request("max_tokens", "7000"),
		"an image":              request("messages", image),
		"one-byte tokens":       request("messages", oneByte),
		"continuous asked for":  request("stream", "true", "stream_options", `{"include_usage":true,"continuous_usage_stats":true}`),
		"a whole float":         request("max_tokens", "40.0", "n", "2.0"),
	} {
		before := r.balance(k).msat(t, "charged_msat")
		a := r.chat(k, body)
		if a.status != http.StatusOK {
			t.Errorf("%s: status %d\n%s", name, a.status, a.body)
			continue
		}
		r.idle(k)
		if got, want := r.balance(k).msat(t, "charged_msat")-before, r.trueCost(); got != want {
			t.Errorf("%s: charged %d, want %d", name, got, want)
		}
		if rec := r.truth(); rec.CompletionTokens > 256*4 {
			t.Errorf("%s: %d tokens were generated: no cap was sent", name, rec.CompletionTokens)
		}
	}
	twice := strings.Replace(request(), `"max_tokens":24`, `"max_tokens":24,"max_tokens":2000`, 1)
	r.chat(k, twice).wantProblem(t, http.StatusBadRequest, "invalid-request")
}

func TestBackendSeesTheRewrittenRequestOnly(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	r.chat(k, request("stream", "true", "max_tokens", "", "user", `"someone"`),
		"Cookie", "session=1", "X-Custom", "yes", "L402-Max-Cost-Msat", "100000", "Accept-Encoding", "gzip", "Idempotency-Key", "k",
		"X-Forwarded-For", "10.0.0.1", "Connection", "X-Private", "X-Private", "secret", "Te", "trailers", "X-Api-Key", "sk-1",
		"X-Request-Id", "same", "X-Data-Parallel-Rank", "3", "OpenAI-Organization", "org", "X-Conversation-Id", "c", "User-Agent", "me/1")
	rec := r.truth()
	for _, name := range []string{"Cookie", "Macaroon", "L402-Max-Cost-Msat", "Accept-Encoding", "Idempotency-Key", "X-Forwarded-For", "X-Private", "Te", "X-Api-Key",
		"X-Data-Parallel-Rank", "Openai-Organization", "X-Conversation-Id"} {
		if rec.Header.Get(name) != "" {
			t.Errorf("the backend got %s: %q", name, rec.Header.Get(name))
		}
	}
	if id := rec.Header["X-Request-Id"]; len(id) != 1 || id[0] == "same" || id[0] == "" || rec.Header.Get("User-Agent") != "sluice" {
		t.Errorf("the backend got the id %q from %q", id, rec.Header.Get("User-Agent"))
	}
	if got := rec.Header.Get("Authorization"); got != "Bearer backend-key" {
		t.Errorf("authorization at the backend: %q", got)
	}
	if rec.Header.Get("X-Custom") != "yes" {
		t.Error("a header was lost that the service forwards")
	}
	var body map[string]any
	if err := json.Unmarshal(rec.Body, &body); err != nil {
		t.Fatal(err)
	}
	options, _ := body["stream_options"].(map[string]any)
	if body["model"] != "upstream/demo" || body["max_tokens"] != 256.0 || options["include_usage"] != true || body["user"] != "someone" {
		t.Errorf("the backend got %s", rec.Body)
	}
}

func TestResponseHeadersOfTheBackend(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	a := r.chat(k, request(), "X-Fault", "hop-headers")
	for _, name := range []string{"Keep-Alive", "X-Hop", "Proxy-Authenticate", "Proxy-Connection", "Upgrade", "Te", "Www-Authenticate", "Set-Cookie"} {
		if a.header.Get(name) != "" {
			t.Errorf("the client got %s: %q", name, a.header.Get(name))
		}
	}
}

func TestAllSourcesOfTokenCounts(t *testing.T) {
	for _, c := range []struct {
		name, faults         string
		continuous, tokenize bool
		source               metering.Source
		exact                bool
	}{
		{"final usage", "", false, false, metering.SourceReported, true},
		{"usage with the finish reason", "usage-on-finish", false, false, metering.SourceReported, true},
		{"running usage", "cut:12", true, false, metering.SourceRunning, true},
		{"tokenizer", "no-usage", false, true, metering.SourceTokenizer, false},
		{"counted", "no-usage", false, false, metering.SourceCounted, false},
		{"reasoning", "reasoning:5", false, false, metering.SourceReported, true},
		{"tool calls, counted", "tool-calls,no-usage", false, false, metering.SourceCounted, false},
		{"zero running usage means nothing", "running-usage:zero", true, false, metering.SourceReported, true},
	} {
		r := newRig(t, func(s *setup) {
			s.profile = does(c.tokenize, c.continuous)
		})
		k := r.buy(minPurchase)
		a := r.chat(k, request("stream", "true"), "X-Fault", c.faults)
		if a.status != http.StatusOK {
			t.Errorf("%s: status %d", c.name, a.status)
			continue
		}
		e := r.lastCharge(k)
		if e.Source != c.source {
			t.Errorf("%s: source %q, want %q (%+v)", c.name, e.Source, c.source, e)
		}
		want := r.trueCost()
		if strings.HasPrefix(c.faults, "cut") {
			want = cost(r.truth().PromptTokens, contentEvents(a.body))
		}
		if c.exact && e.Charged != want {
			t.Errorf("%s: charged %d, want %d", c.name, e.Charged, want)
		}
		if !c.exact && (e.Charged < want/2 || e.Charged > want*2) {
			t.Errorf("%s: charged %d, far from %d", c.name, e.Charged, want)
		}
	}
}

func TestUsageThatLies(t *testing.T) {
	for _, stream := range []string{"true", "false"} {
		for _, lie := range []string{"zero", "negative", "huge", "overflow", "text", "null"} {
			r := newRig(t)
			k := r.buy(minPurchase)
			if a := r.chat(k, request("stream", stream), "X-Fault", "usage:"+lie); a.status != http.StatusOK {
				t.Errorf("%s: status %d", lie, a.status)
			}
			e, rec := r.lastCharge(k), r.truth()
			most := cost(8192, 24)
			if e.Charged < cost(rec.PromptTokens/3, rec.CompletionTokens/2) || e.Charged > most {
				t.Errorf("stream %s, usage %s: charged %d for %d and %d tokens", stream, lie, e.Charged, rec.PromptTokens, rec.CompletionTokens)
			}
		}
	}
	r := newRig(t)
	k := r.buy(minPurchase)
	r.chat(k, request("stream", "true"), "X-Fault", "empty,usage:zero")
	r.wantSpent(k, 0)
}

func TestCachedPromptTokensHaveTheirOwnRate(t *testing.T) {
	rates := pricing.Rates{pricing.InputTokens: 10_000_000, pricing.CachedInputTokens: 1_000_000, pricing.OutputTokens: 2_000_000, pricing.Calls: 5}
	r := newRig(t, func(s *setup) { s.rates = &rates })
	k := r.buy(minPurchase)
	r.chat(k, request(), "X-Fault", "cached:6")
	rec := r.truth()
	want := cost(0, rec.CompletionTokens) + 10*l402Msat(rec.PromptTokens-6) + 6 + 5
	r.wantSpent(k, want)
}

func TestBackendThatIgnoresTheCapIsCut(t *testing.T) {
	r := newRig(t, func(s *setup) { s.profile = does(false, true) })
	k := r.buy(minPurchase)
	a := r.chat(k, request("stream", "true", "max_tokens", "10"), "X-Fault", "ignore-max:200")
	if n := contentEvents(a.body); n < 10 || n > 12 {
		t.Errorf("%d tokens were delivered of a cap of 10", n)
	}
	if strings.Contains(string(a.body), "[DONE]") || !strings.HasSuffix(string(a.body), " outcome=hold_exhausted\n\n") {
		t.Errorf("the stream was not cut:\n%s", tail(a.body))
	}
	e := r.lastCharge(k)
	if e.Outcome != metering.OutcomeHoldExhausted || e.Usage[pricing.OutputTokens] != 10 {
		t.Errorf("entry %+v", e)
	}
	r.until("the backend is told", func() bool { return r.truth().Outcome == "cancelled" })
}

func TestUnaryAnswerBeyondTheHoldBack(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.UnaryHoldBack = 64 << 10 }
	})
	k := r.buy(minPurchase)
	a := r.chat(k, request(), "X-Fault", "huge-line:150000")
	if a.status != http.StatusOK || len(a.body) < 150_000 {
		t.Fatalf("status %d, %d bytes", a.status, len(a.body))
	}
	charged := r.trueCost()
	if a.header.Get("L402-Cost-Msat") != "" || amountHeader(t, a.trailer, "L402-Cost-Msat") != charged {
		t.Errorf("header %v trailer %v, want a cost of %d as trailer", a.header, a.trailer, charged)
	}
	r.wantSpent(k, charged)
	a.json(t)
}

func TestHugeLinesAndEveryLineEnd(t *testing.T) {
	r := newRig(t)
	k := r.buy(maxPurchase)
	for _, fault := range []string{"huge-line:1200000", "crlf", "cr", "split-data", "comments", "merge:5", "after-done:3"} {
		before := r.balance(k).msat(t, "charged_msat")
		a := r.chat(k, request("stream", "true"), "X-Fault", fault)
		if a.status != http.StatusOK {
			t.Errorf("%s: status %d", fault, a.status)
			continue
		}
		told, _ := comment(t, bytes.ReplaceAll(a.body, []byte("\r"), []byte("\n")))
		r.idle(k)
		if got := r.balance(k).msat(t, "charged_msat") - before; got != told || got != r.trueCost() {
			t.Errorf("%s: charged %d, told %d, want %d", fault, got, told, r.trueCost())
		}
	}
}

func TestCompressedAnswersAreMetered(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	for _, stream := range []string{"true", "false"} {
		before := r.balance(k).msat(t, "charged_msat")
		a := r.chat(k, request("stream", stream), "X-Fault", "gzip")
		if a.status != http.StatusOK || a.header.Get("Content-Encoding") != "" || !bytes.Contains(a.body, []byte(`"choices"`)) {
			t.Fatalf("status %d %v\n%q", a.status, a.header, tail(a.body))
		}
		r.idle(k)
		if got := r.balance(k).msat(t, "charged_msat") - before; got != r.trueCost() {
			t.Errorf("charged %d, want %d", got, r.trueCost())
		}
	}
}

func TestSixtyFourAtATime(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.inference = []inference.Config{{TokensPerSecond: 500, Slots: 128}}
		s.backend = func(b *gpuBackend) { b.Slots = 64 }
		s.pool = func(p *gpuPool) { p.QueueLimit = 64 }
	})
	k := r.buy(maxPurchase)
	statuses := make(chan int, 128)
	for range 128 {
		go func() {
			resp, err := r.client.Do(r.newRequest("POST", chatPath, request("stream", "true"), k.with()))
			if err != nil {
				statuses <- 0
				return
			}
			drainBody(resp)
			statuses <- resp.StatusCode
		}()
	}
	for range 128 {
		if s := <-statuses; s != http.StatusOK {
			t.Errorf("status %d", s)
		}
	}
	r.idle(k)
	if n := len(r.usage(k)); n != 100 { // one page
		t.Errorf("%d charges on the first page", n)
	}
}
