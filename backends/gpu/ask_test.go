package gpu

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

func asking(b BackendConfig, input, output int64) BackendConfig {
	b.Ask = FixedAsk(card(input, output))
	return b
}

// card is a rate card in msat per million tokens.
func card(input, output int64) pricing.Rates {
	return pricing.Rates{pricing.InputTokens: input, pricing.OutputTokens: output}
}

func tokens(input, output int64) pricing.Units {
	return pricing.Units{pricing.InputTokens: input, pricing.OutputTokens: output}
}

func TestReverseAuction(t *testing.T) {
	a, b := newGauge("a"), newGauge("b")
	f := newFleet(t, Config{
		Backends: []BackendConfig{asking(server("a", 2, a), 1000, 1000), asking(server("b", 2, b), 500, 3000), asking(server("c", 9, nil), 9000, 9000)},
		Pools:    []PoolConfig{{Model: "m", Backends: []string{"a", "b", "c"}, QueueTimeout: 30 * time.Second}},
	})
	p := f.Pool("m")
	long, short := Bid{AtMost: tokens(1e6, 1e3)}, Bid{AtMost: tokens(1e3, 1e6)}
	for range 3 {
		goesTo(t, p, long, "b")
		goesTo(t, p, short, "a")
	}
	// Backend b cannot serve in time: 5 requests are before this one, take 20 s each, and run 2 at
	// once.
	p.pace = 20 * time.Second
	b.engine(2, 5, 0.5)
	goesTo(t, p, long, "a")
	// Backend a cannot serve in time either. Backend c asks a lot, and can serve in time.
	a.engine(2, 4, 0.5)
	goesTo(t, p, long, "c")
	// A request that does not pay what c asks goes to the sooner of a and b.
	long.Limit = 5e3
	goesTo(t, p, long, "a")
	a.engine(0, 0, 0)
	first, second := leaseFor(t, p, long), leaseFor(t, p, long)
	if first.Backend().Name() != "a" || second.Backend().Name() != "a" {
		t.Error("the cheapest has slots, and did not get both")
	}
	goesTo(t, p, long, "b") // b is late, but the request does not pay what c asks
	first.Done(Result{Status: 200})
}

func TestTooDear(t *testing.T) {
	f := newFleet(t, Config{
		Backends: []BackendConfig{asking(server("a", 1, nil), 1000, 0), server("own", 1, nil)},
		Pools:    []PoolConfig{{Model: "m", Backends: []string{"a"}}, {Model: "n", Backends: []string{"a", "own"}}},
	})
	poor := Bid{AtMost: tokens(1e6, 0), Limit: 999}
	if _, err := f.Pool("m").AdmitBid(Key{}, poor); !errors.Is(err, ErrTooDear) || !errors.Is(err, ErrNoBackend) {
		t.Errorf("admitted for less than is asked: %v", err)
	}
	goesTo(t, f.Pool("n"), poor, "own") // the owner's own backend asks nothing
	if _, err := f.Pool("n").AdmitBid(Key{}, poor); err != nil {
		t.Error(err)
	}
	ticket, err := f.Pool("m").AdmitBid(Key{}, Bid{AtMost: tokens(1e6, 0), Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	ticket.bid = poor // as if the ask had risen meanwhile
	if _, err := ticket.Wait(t.Context()); !errors.Is(err, ErrTooDear) {
		t.Errorf("served for less than is asked: %v", err)
	}
	f.backend("a").checked(errors.New("down"))
	if _, err := f.Pool("m").AdmitBid(Key{}, poor); !errors.Is(err, ErrNoBackend) || errors.Is(err, ErrTooDear) {
		t.Errorf("nothing is well: %v", err)
	}
	idle(t, &Fleet{backends: f.backends, order: f.order[:1]})
}

// A request that waits for a cheap backend does not block the requests behind it that pay for the
// expensive backend.
func TestPoorTicketsArePassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, Config{
			Backends: []BackendConfig{asking(server("cheap", 1, nil), 1000, 0), asking(server("dear", 1, nil), 5000, 0)},
			Pools:    []PoolConfig{{Model: "m", Backends: []string{"cheap", "dear"}, QueueLimit: 9, QueueTimeout: time.Hour}},
		})
		p := f.Pool("m")
		cheap, dear := leaseFor(t, p, Bid{AtMost: tokens(1e6, 0)}), leaseFor(t, p, Bid{AtMost: tokens(1e6, 0)})
		wait := func(limit l402.Msat) <-chan *Lease {
			ticket, err := p.AdmitBid(Key{}, Bid{AtMost: tokens(1e6, 0), Limit: limit})
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan *Lease, 1)
			go func() {
				l, _ := ticket.Wait(context.Background())
				got <- l
			}()
			synctest.Wait()
			return got
		}
		poor, rich := wait(2000), wait(6000)
		dear.Done(Result{Status: 200})
		synctest.Wait()
		select {
		case l := <-rich:
			if l.Backend().Name() != "dear" {
				t.Errorf("the rich one is on %s", l.Backend().Name())
			}
		default:
			t.Fatal("the rich one waits behind the poor one")
		}
		cheap.Done(Result{Status: 200})
		if l := <-poor; l.Backend().Name() != "cheap" {
			t.Errorf("the poor one is on %s", l.Backend().Name())
		}
		// The hook has raised the ask meanwhile on another gateway, so waiting is of no use.
		again := wait(2000)
		f.backend("cheap").set.Ask = FixedAsk(card(4000, 0))
		f.dispatchAll()
		if l := <-again; l != nil {
			t.Errorf("served on %s for less than it asks", l.Backend().Name())
		}
	})
}

func (f *Fleet) dispatchAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.backends {
		f.dispatch(b)
	}
}

func TestAskForABid(t *testing.T) {
	for _, c := range []struct {
		ask     pricing.Rates
		in, out int64
		want    l402.Msat
	}{
		{card(1000, 2000), 500_000, 250_000, 1000},
		{card(1, 1), 1, 0, 1}, // rounded up
		{card(1, 1), 0, 0, 0},
		{card(1e15, 1e15), 1e9, 1e9, 2e18},
		{card(1e15, 1e15), 1 << 62, 1 << 62, beyond},
		{card(-5, 2), 1e6, 1e6, beyond},
		{card(1<<63-1, 1<<63-1), 1<<63 - 1, 1<<63 - 1, beyond},
	} {
		b := &Backend{set: settings{Ask: FixedAsk(c.ask)}}
		if got := b.ask(&Bid{AtMost: tokens(c.in, c.out)}); got != c.want {
			t.Errorf("%+v of %d and %d tokens is %d, want %d", c.ask, c.in, c.out, got, c.want)
		}
	}
	if (Bid{Limit: l402.MaxMsat}).pays(beyond) || !(Bid{}).pays(beyond) {
		t.Error("only a request without a limit pays whatever is asked")
	}
}

func TestAskFeed(t *testing.T) {
	answer, status := `{"input_msat_per_mtok":7,"output_msat_per_mtok":9,"currency":"msat"}`, 200
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	defer hook.Close()
	u, err := url.Parse(hook.URL)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	f, err := NewAskFeed(AskConfig{URL: u, Fallback: card(1, 1), Every: 10 * time.Second, Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	want := func(what string, rates pricing.Rates, own bool) {
		t.Helper()
		if got, live := f.Current(); got != rates || live != own {
			t.Errorf("%s: asks %+v, %v", what, got, live)
		}
	}
	want("before the first answer", card(1, 1), false)
	f.Poll(t.Context())
	want("answered", card(7, 9), true)
	if f.Rates() != card(7, 9) {
		t.Errorf("asks %+v", f.Rates())
	}
	now = now.Add(29 * time.Second)
	for _, bad := range []string{`{"input_msat_per_mtok":7}`, `{"input_msat_per_mtok":-7,"output_msat_per_mtok":9}`, `{"input_msat_per_mtok":7.5,"output_msat_per_mtok":9}`,
		`{"input_msat_per_mtok":7,"output_msat_per_mtok":1e16}`, `[]`, `null`, ``, `{"input_msat_per_mtok":1,"output_msat_per_mtok":2`} {
		answer = bad
		f.Poll(t.Context())
	}
	answer, status = `{"input_msat_per_mtok":1,"output_msat_per_mtok":2}`, 500
	f.Poll(t.Context())
	want("the last good answer counts a while", card(7, 9), true)
	if f.Failures() != 9 {
		t.Errorf("%d failures, want 9", f.Failures())
	}
	now = now.Add(time.Second)
	want("and then the configured one", card(1, 1), false)
	status = 200
	f.Poll(t.Context())
	want("answered again", card(1, 2), true)
	for _, cfg := range []AskConfig{{}, {URL: u, Fallback: card(-1, 0)}, {URL: u, Every: -1}} {
		if _, err := NewAskFeed(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestAskFeedDoesNotWait(t *testing.T) {
	stuck := make(chan struct{})
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stuck:
		case <-r.Context().Done():
		}
	}))
	defer hook.Close()
	defer close(stuck)
	u, err := url.Parse(hook.URL + "/?key=secret")
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewAskFeed(AskConfig{URL: u, Timeout: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.get(t.Context())
	if !errors.Is(err, context.DeadlineExceeded) || err.Error() != context.DeadlineExceeded.Error() {
		t.Errorf("a hook that hangs: %v", err)
	}
}

func FuzzAsk(f *testing.F) {
	f.Add([]byte(`{"input_msat_per_mtok":7,"output_msat_per_mtok":9}`))
	f.Add([]byte(`{"input_msat_per_mtok":null,"output_msat_per_mtok":1e3}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseAsk(body)
		if err != nil {
			return
		}
		if cost, err := r.Bound(tokens(1, 1)); err != nil || cost < 0 {
			t.Errorf("%s is %+v, which costs %v, %v", body, r, cost, err)
		}
	})
}
