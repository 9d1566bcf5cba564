package gateway_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// slow makes streams so slow that a client can hang up between two events.
func slow(tokensPerSecond float64, faults string) func(*setup) {
	return func(s *setup) {
		s.inference = []inference.Config{{TokensPerSecond: tokensPerSecond, Record: true, AllowFaults: true, Seed: 7, Faults: faults}}
	}
}

func TestHangingUpPaysForWhatWasDelivered(t *testing.T) {
	for _, c := range []struct {
		name                 string
		faults               string
		continuous, tokenize bool
	}{
		{"with running usage", "", true, false},
		{"without usage", "no-usage", false, false},
		{"with a tokenizer", "no-usage", false, true},
	} {
		for _, events := range []int{1, 2, 6, 15} {
			r := newRig(t, slow(100, c.faults), func(s *setup) {
				s.profile = does(c.tokenize, c.continuous)
			})
			k := r.buy(minPurchase)
			ctx, hangUp := context.WithCancel(t.Context())
			resp := r.open(ctx, "POST", chatPath, request("stream", "true", "max_tokens", "200"), k.with())
			got := readEvents(t, resp.Body, events)
			hangUp()
			resp.Body.Close()
			r.until("the backend is cancelled", func() bool { return r.truth().Outcome == "cancelled" })
			e, rec := r.lastCharge(k), r.truth()
			if e.Outcome != metering.OutcomeClientGone {
				t.Errorf("%s, %d events: outcome %q", c.name, events, e.Outcome)
			}
			// One or two more tokens may have been on their way to the client.
			least, most := cost(rec.PromptTokens, contentEvents(got)), cost(rec.PromptTokens, rec.CompletionTokens)
			if !c.continuous && !c.tokenize {
				least, most = least/2, most*2
			}
			if e.Charged < least || e.Charged > most {
				t.Errorf("%s, %d events: charged %d (%+v), want %d to %d", c.name, events, e.Charged, e.Usage, least, most)
			}
			if rec.CompletionTokens > contentEvents(got)+60 {
				t.Errorf("%s: the backend went on for %d tokens", c.name, rec.CompletionTokens)
			}
		}
	}
}

func TestHangingUpBeforeTheFirstEvent(t *testing.T) {
	r := newRig(t, slow(100, "stall-headers"))
	k := r.buy(minPurchase)
	ctx, hangUp := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		req := r.newRequest("POST", chatPath, request("stream", "true"), k.with()).WithContext(ctx)
		if resp, err := r.client.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	r.until("the backend has it", func() bool { return len(r.backend.Requests()) == 1 })
	hangUp()
	<-done
	e := r.lastCharge(k)
	if e.Outcome != metering.OutcomeClientGone || e.Usage[pricing.OutputTokens] != 0 || e.Usage[pricing.InputTokens] == 0 {
		t.Errorf("entry %+v", e)
	}
}

func TestHangingUpDuringAUnaryAnswerPaysByPace(t *testing.T) {
	r := newRig(t, slow(60, ""))
	k := r.buy(minPurchase)
	r.chat(k, request("max_tokens", "30")) // teaches the gateway the backend's pace
	before := len(r.usage(k))
	other := r.buy(minPurchase)
	lives := r.open(t.Context(), "POST", chatPath, request("stream", "true", "max_tokens", "200"), other.with())
	defer lives.Body.Close()
	readEvents(t, lives.Body, 1)
	ctx, hangUp := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer hangUp()
	req := r.newRequest("POST", chatPath, request("max_tokens", "250"), k.with()).WithContext(ctx)
	if resp, err := r.client.Do(req); err == nil {
		resp.Body.Close()
		t.Fatal("answered")
	}
	r.until("the backend is cancelled", func() bool { return r.truth().Outcome == "cancelled" })
	go drainBody(lives)
	r.until("the charge is recorded", func() bool { return len(r.usage(k)) > before })
	e, rec := r.lastCharge(k), r.truth()
	if e.Source != metering.SourcePace || e.Outcome != metering.OutcomeClientGone {
		t.Errorf("entry %+v", e)
	}
	made := int64(rec.CompletionTokens)
	if e.Usage[pricing.OutputTokens] < made/2 || e.Usage[pricing.OutputTokens] > 2*made+20 {
		t.Errorf("charged %d tokens by pace, the backend made %d", e.Usage[pricing.OutputTokens], made)
	}
}

func TestHangingUpInTheQueueIsFree(t *testing.T) {
	r := newRig(t, slow(20, ""), func(s *setup) {
		s.backend = func(b *gpuBackend) { b.Slots = 1 }
	})
	k := r.buy(minPurchase)
	running := r.open(t.Context(), "POST", chatPath, request("stream", "true", "max_tokens", "200"), k.with())
	defer running.Body.Close()
	readEvents(t, running.Body, 1)
	other := r.buy(minPurchase)
	ctx, hangUp := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if resp, err := r.client.Do(r.newRequest("POST", chatPath, request(), other.with()).WithContext(ctx)); err == nil {
			resp.Body.Close()
		}
	}()
	r.until("it waits with its money held", func() bool { return r.balance(other).msat(t, "held_msat") > 0 })
	hangUp()
	<-gone
	r.wantSpent(other, 0)
}

// TestStalledReaderIsCut: a client that stops reading does not occupy the backend for ever.
func TestStalledReaderIsCut(t *testing.T) {
	r := newRig(t, slow(5000, "huge-line:4000000"), func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.WriteStall = 300 * time.Millisecond }
	})
	k := r.buy(minPurchase)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetReadBuffer(4096)
	body := request("stream", "true")
	io.WriteString(conn, "POST "+chatPath+" HTTP/1.1\r\nHost: x\r\nAuthorization: "+k.String()+"\r\nContent-Length: "+
		amountText(l402Msat(len(body)))+"\r\n\r\n"+body)
	e := r.lastCharge(k)
	if e.Outcome != metering.OutcomeClientGone {
		t.Errorf("entry %+v", e)
	}
	r.until("the slot is free", func() bool { return r.fleet.Status()[0].InFlight == 0 })
}

func TestSlowBodyIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.BodyTimeout = 200 * time.Millisecond }
	})
	k := r.buy(minPurchase)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST "+chatPath+" HTTP/1.1\r\nHost: x\r\nAuthorization: "+k.String()+"\r\nContent-Length: 5000\r\n\r\n{")
	answer, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("answer %.200q", answer)
	}
	r.wantSpent(k, 0)
}

func TestBodyLimits(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.MaxBody = 10_000 }
	})
	k := r.buy(minPurchase)
	r.chat(k, request("user", `"`+strings.Repeat("x", 20_000)+`"`)).wantProblem(t, http.StatusRequestEntityTooLarge, "invalid-request")
	req := r.newRequest("POST", chatPath, "", k.with())
	req.Body, req.ContentLength = io.NopCloser(strings.NewReader(request("user", `"`+strings.Repeat("x", 20_000)+`"`))), -1
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	drainBody(resp)
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked: status %d", resp.StatusCode)
	}
	r.chat(k, request(), "Content-Encoding", "gzip").wantProblem(t, http.StatusUnsupportedMediaType, "invalid-request")
	if a := r.do("GET", "/healthz", "", header{"X-Long": strings.Repeat("h", 100_000)}); a.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("long header: status %d", a.status)
	}
	r.wantSpent(k, 0)
}
