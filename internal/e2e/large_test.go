package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/lab/proc"
)

const embeddingsPath = "/v1/embeddings"

// saleOfVectors sells the model demo for embeddings alone, 1 msat a token.
const saleOfVectors = `    models:
      - {name: demo, apis: [embeddings], backends: [one], context_tokens: 4096, prices: {input: 1000 sat/Mtok}, pricing: {policy: static}}
backends:
  - {name: one, url: «BACKEND», slots: 64, engine: generic}
limits: {write_stall: 2s}
`

// The largest batch: 2,048 vectors of 4,096 numbers, as text more than 90 MB.
const (
	largeTexts  = 2048
	largeVector = 4096
	largeTokens = 6 * largeTexts // as the backend counts
)

// largeBackend answers with the largest batch, and counts what it could write of it.
type largeBackend struct {
	vector string
	sent   atomic.Int64 // bytes
}

func newLargeBackend(t *testing.T) (*largeBackend, string) {
	b := &largeBackend{vector: strings.TrimSuffix(strings.Repeat("-0.0123456,", largeVector), ",")}
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	return b, s.URL
}

func (b *largeBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != embeddingsPath {
		http.NotFound(w, r)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	say := func(text string) bool {
		n, err := io.WriteString(w, text)
		b.sent.Add(int64(n))
		return err == nil
	}
	ok := say(`{"object":"list","model":"demo","data":[`)
	for i := 0; i < largeTexts && ok; i++ {
		comma := ","
		if i == 0 {
			comma = ""
		}
		ok = say(comma+`{"object":"embedding","index":`+strconv.Itoa(i)+`,"embedding":[`) && say(b.vector) && say("]}")
	}
	say(fmt.Sprintf(`],"usage":{"prompt_tokens":%d,"total_tokens":%d}}`, largeTokens, largeTokens))
}

// largeBatch is a request for the largest batch.
func largeBatch(t *testing.T) string {
	t.Helper()
	texts := make([]string, largeTexts)
	for i := range texts {
		texts[i] = "text " + strconv.Itoa(i)
	}
	body, err := json.Marshal(map[string]any{"model": "demo", "input": texts})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// peakMemory is the most memory that the gateway's process has had, in bytes; 0 where the
// system does not say.
func (g *own) peakMemory(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.server.Process().Pid()))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	kib, err := strconv.ParseInt(strings.Fields(line + " 0")[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// readLarge reads a whole answer and checks its cost, which is a trailer.
func (g *own) readLarge(ctx context.Context, k credential, body string) error {
	resp, err := g.Open(ctx, http.MethodPost, embeddingsPath, body, k.header())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	cost := resp.Trailer.Get("L402-Cost-Msat")
	if err != nil || resp.StatusCode != http.StatusOK || n < 90_000_000 || cost != strconv.Itoa(largeTokens) || resp.Header.Get("L402-Cost-Msat") != "" {
		return fmt.Errorf("status %d, %d bytes, cost %q (%v): %w", resp.StatusCode, n, cost, resp.Header, err)
	}
	return nil
}

// alone keeps a test of large answers to itself: it is not parallel, because its clients
// must read 90 MB within the gateway's limits of time. The race detector makes them too
// slow for that.
func alone(t *testing.T) {
	t.Helper()
	if proc.RaceDetector {
		t.Skip("the race detector reads too slowly")
	}
}

// TestLargeAnswers has eight clients read 90 MB of vectors each at the same time. All of
// them come whole, with their cost in the trailer, and the gateway's memory does not grow
// with them.
func TestLargeAnswers(t *testing.T) {
	alone(t)
	_, url := newLargeBackend(t)
	g := startGateway(t, func(s *setup) { s.BackendURL, s.Sale = url, saleOfVectors })
	k := g.buy(t, 1_000_000)
	body := largeBatch(t)
	before := g.peakMemory(t)
	const clients = 8
	var reading sync.WaitGroup
	for range clients {
		reading.Go(func() {
			if err := g.readLarge(t.Context(), k, body); err != nil {
				t.Error(err)
			}
		})
	}
	reading.Wait()
	if b := g.idle(t, k); b.Charged != clients*largeTokens {
		t.Errorf("charged %d msat, want %d", b.Charged, clients*largeTokens)
	}
	grown := g.peakMemory(t) - before
	t.Logf("%d answers of 90 MB: the gateway's memory grew by %d MiB from %d MiB", clients, grown>>20, before>>20)
	if grown > clients*largeShare {
		t.Errorf("the gateway's memory grew by %d MiB", grown>>20)
	}
	g.verify(t)
}

// largeShare is the most memory that one such answer may take, in bytes: what is held
// back of it (limits.unary_hold), as it grows and until it is collected.
const largeShare = 24 << 20

// TestLargeAnswerIsLeft: a client that hangs up in the middle of 90 MB pays for all of
// it, since the backend had made all of it.
func TestLargeAnswerIsLeft(t *testing.T) {
	alone(t)
	_, url := newLargeBackend(t)
	g := startGateway(t, func(s *setup) { s.BackendURL, s.Sale = url, saleOfVectors })
	k := g.buy(t, 100_000)
	ctx, hangUp := context.WithCancel(t.Context())
	resp, err := g.Open(ctx, http.MethodPost, embeddingsPath, largeBatch(t), k.header())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 40<<20); err != nil {
		t.Fatal(err)
	}
	hangUp()
	resp.Body.Close()
	c := g.entry(t, k, resp.Header.Get("L402-Request-Id"))
	if c.Outcome != "client_gone" || c.Charged != largeTokens || c.Source != "reported" {
		t.Errorf("left within: %+v", c)
	}
	g.idle(t, k)
	g.verify(t)
}

// TestLargeAnswerIsReadSlowly: a client that pauses gets all of its answer, which waits at
// the backend meanwhile; one that takes nothing for as long as write_stall is gone.
func TestLargeAnswerIsReadSlowly(t *testing.T) {
	alone(t)
	backend, url := newLargeBackend(t)
	g := startGateway(t, func(s *setup) { s.BackendURL, s.Sale = url, saleOfVectors })
	k, body := g.buy(t, 100_000), largeBatch(t)
	resp, err := g.Open(t.Context(), http.MethodPost, embeddingsPath, body, k.header())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	slow := io.LimitReader(resp.Body, 1<<20)
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Fatal(err)
	}
	settled := int64(-1)
	labtest.Eventually(t, 5*time.Second, "the backend waits", func() error {
		time.Sleep(200 * time.Millisecond) // what is on its way arrives
		now := backend.sent.Load()
		if now != settled {
			settled = now
			return fmt.Errorf("%d bytes were sent", now)
		}
		return nil
	})
	if settled > 48<<20 {
		t.Errorf("%d MiB were taken of the backend for a client that has read 1 MiB", settled>>20)
	}
	for range 4 { // slower than the backend, with pauses shorter than write_stall
		if _, err := io.CopyN(io.Discard, resp.Body, 4<<20); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // the pause of the client, which is what is tested
	}
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n < 60_000_000 || resp.Trailer.Get("L402-Cost-Msat") != strconv.Itoa(largeTokens) {
		t.Errorf("the rest has %d bytes: %v, trailer %v", n, err, resp.Trailer)
	}
	stalled, err := g.Open(t.Context(), http.MethodPost, embeddingsPath, body, k.header())
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Body.Close()
	c := g.entry(t, k, stalled.Header.Get("L402-Request-Id"))
	if c.Outcome != "client_gone" || c.Charged != largeTokens {
		t.Errorf("a client that takes nothing: %+v", c)
	}
	g.idle(t, k)
	g.verify(t)
}
