package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab"
	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/l402/client"
)

// Seen is one request as its client saw it.
type Seen struct {
	Gateway, Account, Ask int // indexes into the plan
	Status                int // 0: no answer
	Request               string
	Cost                  int64 // msat; −1: not told
	Pending               bool  // the gateway said that the charge is on its way
	Whole                 bool  // the answer is complete
	Tokens                int   // events with text, of a stream
	GaveUp                bool  // the client hung up, as planned
	Detail                string
	Err                   error
	Began, Ended          time.Time
}

// String is for messages.
func (s Seen) String() string {
	return fmt.Sprintf("gateway %d, request %q: status %d, cost %d, pending %t, whole %t after %s: %v %.200s", s.Gateway, s.Request,
		s.Status, s.Cost, s.Pending, s.Whole, s.Ended.Sub(s.Began).Round(time.Millisecond), s.Err, s.Detail)
}

// Paid says that the client got its whole answer.
func (s Seen) Paid() bool { return s.Status == http.StatusOK && s.Whole && (s.Cost >= 0 || s.Pending) }

// Refused says that the client got a clean refusal: a problem that says when to
// come back, or what to pay.
func (s Seen) Refused() bool {
	switch s.Status {
	case http.StatusPaymentRequired, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return strings.Contains(s.Detail, "urn:sluice:problem:")
	}
	return false
}

// CutShort says that a stream ended early and said why.
func (s Seen) CutShort() bool {
	return s.Status == http.StatusOK && !s.Whole && strings.HasPrefix(s.Detail, "outcome=")
}

// Send makes one chat and reads its answer, a stream or not.
func (g *Gateway) Send(ctx context.Context, k Credential, body string) Seen {
	s := Seen{Cost: -1, Began: time.Now()}
	resp, err := g.Open(ctx, http.MethodPost, ChatPath, body, k.Header())
	if err != nil {
		s.Err, s.Ended = err, time.Now()
		return s
	}
	defer resp.Body.Close()
	s.Status, s.Request = resp.StatusCode, resp.Header.Get("L402-Request-Id")
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		s.Err = s.read(resp.Body)
		s.Ended = time.Now()
		return s
	}
	content, err := io.ReadAll(resp.Body)
	a := &Answer{&lab.Answer{Status: resp.StatusCode, Header: resp.Header, Trailer: resp.Trailer, Body: content}}
	s.Cost, s.Pending = a.msat("L402-Cost-Msat"), resp.Header.Get("L402-Settlement") == "pending"
	s.Whole, s.Err = err == nil, err
	if s.Status != http.StatusOK {
		s.Detail = string(content)
	}
	s.Ended = time.Now()
	return s
}

// read reads a stream to its end.
func (s *Seen) read(body io.Reader) error {
	for events := client.NewEventReader(body); ; {
		event, err := events.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, comment := range event.Comments {
			s.note(comment)
		}
		switch {
		case string(event.Data) == "[DONE]":
			s.Whole = true
		case hasText(event):
			s.Tokens++
		}
	}
}

// note takes in a comment of the gateway.
func (s *Seen) note(comment string) {
	s.Pending = s.Pending || strings.HasPrefix(comment, ": l402 settlement=pending")
	if _, outcome, cut := strings.Cut(comment, " outcome="); cut {
		s.Detail = "outcome=" + outcome
	}
	if c, ok := client.ParseCostComment([]byte(comment)); ok && c.Cost != nil {
		s.Cost = int64(*c.Cost)
	}
}

// hasText says whether an event carries text: one token, at the backends used
// here.
func hasText(event client.Event) bool {
	_, text, ok := bytes.Cut(event.Data, []byte(`"content":"`))
	return ok && !bytes.HasPrefix(text, []byte(`"`))
}

// Plan is what a load does.
type Plan struct {
	Gateways []*Gateway
	Accounts []Credential
	Asks     []string // bodies
	Callers  int
	Limit    time.Duration // of each request; zero: 60 s
	GiveUp   bool          // a client may hang up at the limit
}

// Traffic is callers that send one request after the other, each to one gateway,
// over the plan's accounts and bodies in turn.
type Traffic struct {
	plan    Plan
	stop    atomic.Bool
	callers sync.WaitGroup
	mu      sync.Mutex
	seen    []Seen
	paid    []atomic.Int64 // by gateway
}

// Start starts the callers.
func Start(p Plan) *Traffic {
	if p.Limit == 0 {
		p.Limit = time.Minute
	}
	l := &Traffic{plan: p, paid: make([]atomic.Int64, len(p.Gateways))}
	for i := range p.Callers {
		l.callers.Go(func() { l.call(i) })
	}
	return l
}

func (l *Traffic) call(n int) {
	p := l.plan
	for i := n; !l.stop.Load(); i++ {
		g, a, q := n%len(p.Gateways), i%len(p.Accounts), (n/len(p.Gateways)+i)%len(p.Asks)
		ctx, cancel := context.WithTimeout(context.Background(), p.Limit)
		s := p.Gateways[g].Send(ctx, p.Accounts[a], p.Asks[q])
		cancel()
		s.Gateway, s.Account, s.Ask = g, a, q
		s.GaveUp = p.GiveUp && errors.Is(s.Err, context.DeadlineExceeded)
		l.mu.Lock()
		l.seen = append(l.seen, s)
		l.mu.Unlock()
		if s.Paid() {
			l.paid[g].Add(1)
		} else {
			time.Sleep(50 * time.Millisecond) // a polite client backs off
		}
	}
}

// AwaitPaid waits until n more requests were paid for at a gateway.
func (l *Traffic) AwaitPaid(t testing.TB, gateway int, n int64, limit time.Duration) {
	t.Helper()
	want := l.paid[gateway].Load() + n
	labtest.Eventually(t, limit, fmt.Sprintf("%d more answers of gateway %d", n, gateway), func() error {
		if got := l.paid[gateway].Load(); got < want {
			return fmt.Errorf("%d to go", want-got)
		}
		return nil
	})
}

// Stop lets the requests that run finish and returns all that was seen.
func (l *Traffic) Stop() []Seen {
	l.stop.Store(true)
	l.callers.Wait()
	return l.seen
}

// Summary counts what was seen, for the test's log.
func Summary(seen []Seen) string {
	count := map[string]int{}
	for _, s := range seen {
		switch {
		case s.Paid() && s.Pending:
			count["paid, charge pending"]++
		case s.Paid():
			count["paid"]++
		case s.GaveUp:
			count["hung up"]++
		case s.CutShort():
			count["cut short"]++
		case s.Status != 0:
			count[fmt.Sprint(s.Status)]++
		case errors.Is(s.Err, context.DeadlineExceeded):
			count["no answer in time"]++
		default:
			count["connection lost"]++
		}
	}
	return fmt.Sprintf("%d requests: %v", len(seen), count)
}

// WantClean wants each client to have got its answer or a clean refusal, if it
// waited for it.
func WantClean(t testing.TB, seen []Seen) {
	t.Helper()
	odd := 0
	for _, s := range seen {
		if s.Paid() || s.Refused() || s.GaveUp {
			continue
		}
		if odd++; odd <= 10 {
			t.Errorf("neither paid nor cleanly refused: %s", s)
		}
	}
	if odd > 0 {
		t.Errorf("%d of %d requests ended unclean", odd, len(seen))
	}
}

// Reconcile waits until nothing is held and compares what clients were told with
// what stands in the books; last, verify-ledger must find nothing.
func Reconcile(t testing.TB, seen []Seen, g *Gateway, accounts ...Credential) {
	t.Helper()
	books := make([]map[string]lab.Charge, len(accounts))
	for i, k := range accounts {
		b := g.Idle(t, k, 45*time.Second)
		books[i] = g.Charges(t, k)
		sum := int64(0)
		for _, c := range books[i] {
			sum += c.Charged
		}
		if b.Available < 0 || b.Available != b.Deposited-b.Charged || b.Charged != sum {
			t.Errorf("account %d: %+v, its charges sum up to %d msat", i, b, sum)
		}
	}
	wrong := 0
	for _, s := range seen {
		c, ok := books[s.Account][s.Request]
		switch {
		case s.Cost > 0 && (!ok || c.Charged != s.Cost):
		case s.Status != 0 && s.Status != http.StatusOK && ok && c.Charged > 0:
		default:
			continue
		}
		if wrong++; wrong <= 10 {
			t.Errorf("the books have %+v (found: %t) for %s", c, ok, s)
		}
	}
	if wrong > 0 {
		t.Errorf("%d requests differ from the books", wrong)
	}
	g.Verify(t)
}
