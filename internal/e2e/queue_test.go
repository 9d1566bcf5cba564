package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab/labtest"
)

// saleOfOneSlot has one slot, and one place to wait for it.
const saleOfOneSlot = `    models:
      - {name: demo, backends: [one], context_tokens: 4096, max_completion_tokens: 256, min_completion_tokens: 8, prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}, queue: {limit: 1, timeout: 2s}}
backends:
  - {name: one, url: «BACKEND», slots: 1, tokenize: true, continuous_usage: true}
`

// TestQueue fills a backend and its queue: who finds both full is refused
// before any money is held, who waits in vain is let go without a charge.
func TestQueue(t *testing.T) {
	t.Parallel()
	server, slow := slowServer(t, 100)
	g := startGateway(t, slow, func(s *setup) { s.Sale = saleOfOneSlot })
	first, second := g.buy(t, 20_000), g.buy(t, 20_000)
	busy := g.stream(t, first, chat("max_tokens", "200"), "X-Fault", "stall:3")
	busy.read(3)
	g.balance(t, second)

	waiting := g.background(chat(), second.header())
	labtest.Eventually(t, 5*time.Second, "the second request waits", func() error {
		if b := g.balance(t, second); b.Held == 0 {
			return errors.New("nothing is held for it")
		}
		return nil
	})
	full := g.post(t, chat(), second.header())
	full.wantProblem(t, http.StatusTooManyRequests, "queue-full")
	if full.header.Get("Retry-After") == "" {
		t.Error("no Retry-After with a full queue")
	}
	(<-waiting).wantProblem(t, http.StatusServiceUnavailable, "queue-full")
	g.wantFree(t, second)

	// Who hangs up while waiting pays nothing either.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := g.Open(ctx, http.MethodPost, chatPath, chat(), second.header()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the waiting request was answered: %v", err)
	}
	g.wantFree(t, second)

	// A slot that comes free goes to who waits.
	waiting = g.background(chat(), second.header())
	labtest.Eventually(t, 5*time.Second, "the next request waits", func() error {
		if b := g.balance(t, second); b.Held == 0 {
			return errors.New("nothing is held for it")
		}
		return nil
	})
	busy.hangUp()
	(<-waiting).want(t, http.StatusOK)
	if c := g.entry(t, first, busy.requestID()); c.Usage.Output != 2 || c.Outcome != "client_gone" {
		t.Errorf("the stream that kept the slot: %+v", c)
	}
	if got := len(chats(server)); got != 2 {
		t.Errorf("the backend got %d chats, want 2", got)
	}
	g.verify(t)
}

// background sends a chat request and delivers its answer; one that failed has
// the status 0.
func (g *gateway) background(body string, h http.Header) <-chan *answer {
	done := make(chan *answer, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
		defer cancel()
		a := &answer{}
		defer func() { done <- a }()
		resp, err := g.Open(ctx, http.MethodPost, chatPath, body, h)
		if err != nil {
			a.body = []byte(err.Error())
			return
		}
		defer resp.Body.Close()
		if content, err := io.ReadAll(resp.Body); err == nil {
			*a = answer{resp.StatusCode, resp.Header, resp.Trailer, content}
		}
	}()
	return done
}

// chats are the chat requests that a server got.
func chats(s *inference.Server) (list []inference.Recorded) {
	for _, r := range s.Requests() {
		if r.Path == chatPath {
			list = append(list, r)
		}
	}
	return list
}

// TestUsagePages reads the charges page by page, and from a moment on.
func TestUsagePages(t *testing.T) {
	t.Parallel()
	k := lab.buy(t, 20_000)
	var requests []string
	for range 5 {
		a := lab.post(t, chat("model", `"running"`, "max_tokens", "2"), k.header()).want(t, http.StatusOK)
		requests = append([]string{a.header.Get("L402-Request-Id")}, requests...)
	}
	type page struct {
		Charges []charge
		Next    string
	}
	read := func(query string) page {
		t.Helper()
		return decode[page](t, lab.do(t, http.MethodGet, "/l402/usage"+query, "", k.header()).want(t, http.StatusOK).body)
	}
	all := read("").Charges
	var paged []charge
	for next := "?limit=2"; next != ""; {
		p := read(next)
		if len(p.Charges) > 2 {
			t.Errorf("a page of 2 has %d charges", len(p.Charges))
		}
		paged = append(paged, p.Charges...)
		if next = ""; p.Next != "" {
			next = "?limit=2&next=" + p.Next
		}
	}
	for i, want := range requests { // newest first
		if len(all) != 5 || len(paged) != 5 || all[i].Request != want || paged[i].Request != want {
			t.Fatalf("charges %v, by pages %v, want %v", ids(all), ids(paged), requests)
		}
	}
	since := fmt.Sprintf("?since=%s", all[1].At.UTC().Format(time.RFC3339Nano))
	if got := ids(read(since).Charges); len(got) != 2 || got[0] != requests[0] || got[1] != requests[1] {
		t.Errorf("since the second last: %v, want %v", got, requests[:2])
	}
}

func ids(list []charge) (names []string) {
	for _, c := range list {
		names = append(names, c.Request)
	}
	return names
}
