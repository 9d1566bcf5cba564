package gpu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a network inside a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestActiveHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var status, asked atomic.Int32
		status.Store(500)
		network := newPipes()
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/health" {
				asked.Add(1)
			}
			w.WriteHeader(int(status.Load()))
		})}
		go func() { _ = srv.Serve(network) }()
		defer srv.Close()
		f, err := NewFleet(Config{
			Backends: []BackendConfig{{Name: "a", URL: &url.URL{Scheme: "http", Host: "a"}, Slots: 1, HealthPath: "/health", HealthEvery: 10 * time.Second}},
			Pools:    []PoolConfig{{Model: "m", Backends: []string{"a"}, QueueLimit: 5, QueueTimeout: time.Hour}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := f.Pool("m")
		f.backends[0].transport.DialContext = network.dial
		if f.Healthy("m") || f.Healthy("other") {
			t.Error("healthy before the first check")
		}
		mustLease(t, p).Done(Result{Status: 200}) // but requests are admitted
		f.Start(t.Context())
		synctest.Wait()
		if _, err := p.Admit(Key{}); !errors.Is(err, ErrNoBackend) {
			t.Fatalf("after one failed first check: %v, want ErrNoBackend", err)
		}
		status.Store(204)
		time.Sleep(11500 * time.Millisecond) // one check passed, which is not enough yet
		if f.Healthy("m") {
			t.Error("healthy after one good check")
		}
		time.Sleep(11 * time.Second)
		if !f.Healthy("m") {
			t.Fatal("not healthy after two good checks")
		}

		running := mustLease(t, p)
		waiter := waitInQueue(t, p)
		status.Store(503)
		time.Sleep(22 * time.Second)
		if l := <-waiter; l != nil {
			t.Error("a waiter got a slot where no backend is healthy")
		}
		running.Done(Result{Status: 200})
		if s := f.Status()[0]; s.Healthy || s.LastError != "backend a: health check answered 503" || !s.Checked {
			t.Errorf("status is %+v", s)
		}
		before := asked.Load()
		time.Sleep(1000 * time.Second)
		if n := asked.Load() - before; n < 95 || n > 105 {
			t.Errorf("asked %d times in 1000 s, want about 100", n)
		}
		idle(t, f)
	})
}

func TestPassiveEjectionAndBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"good": 9, "bad": 9}, PoolConfig{Model: "m", Backends: []string{"good", "bad"}})
		p, bad := f.Pool("m"), f.backend("bad")
		// ask sends requests until one has gone to bad, or ten have gone to good.
		ask := func(r Result) (wentToBad bool) {
			for range 10 {
				l := mustLease(t, p)
				if l.Backend() == bad {
					l.Done(r)
					return true
				}
				l.Done(Result{Status: 200})
			}
			return false
		}
		for _, r := range []Result{{Status: 400}, {Status: 429, Refused: true}, {Status: 404}, {Err: context.Canceled}, {Status: 429, Refused: true}} {
			if !ask(r) {
				t.Fatalf("ejected before %+v", r)
			}
		}
		for _, r := range []Result{{Status: 500}, {Err: ErrNotTaken, Refused: true}, {Err: ErrFirstByteTimeout}} {
			if !ask(r) {
				t.Fatalf("ejected before %+v", r)
			}
		}
		want := time.Second
		for range 8 {
			if ask(Result{Status: 500}) {
				t.Fatal("not ejected")
			}
			s := f.Status()[0]
			if s.Name != "bad" {
				s = f.Status()[1]
			}
			if !s.Ejected || s.Returns < want*8/10 || s.Returns > want*12/10 {
				t.Fatalf("ejected %v for %v, want about %v", s.Ejected, s.Returns, want)
			}
			time.Sleep(s.Returns)
			synctest.Wait()
			if !ask(Result{Status: 502}) { // one more failure is enough now
				t.Fatal("did not come back")
			}
			want = min(2*want, time.Minute)
		}
		time.Sleep(2 * time.Minute)
		if !ask(Result{Status: 200}) || !ask(Result{Status: 500}) || !ask(Result{Status: 500}) || !ask(Result{Status: 500}) {
			t.Error("a success did not clear the record")
		}
		if ask(Result{}) {
			t.Error("not ejected again")
		}
	})
}

func TestSuccessThatBeganBeforeTheTroubleProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 9}, PoolConfig{Model: "m", Backends: []string{"a"}})
		p := f.Pool("m")
		long := mustLease(t, p)
		time.Sleep(time.Second)
		for range ejectAfter {
			mustLease(t, p).Done(Result{Status: 500})
		}
		long.Done(Result{Status: 200})
		if !f.Status()[0].Ejected {
			t.Error("the end of an old stream restored the backend")
		}
	})
}

func TestAllEjectedTriesTheSoonestToReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1, "b": 1}, PoolConfig{Model: "m", Backends: []string{"a", "b"}, QueueLimit: 1})
		p, a, b := f.Pool("m"), f.backend("a"), f.backend("b")
		for _, bad := range []*Backend{a, b} {
			for range ejectAfter {
				l := mustLease(t, p)
				for l.Backend() != bad {
					l.Done(Result{Status: 200})
					l = mustLease(t, p)
				}
				l.Done(Result{Status: 500})
			}
			time.Sleep(300 * time.Millisecond) // shorter than any back-off
		}
		sooner := a
		if b.health.until.Before(a.health.until) {
			sooner = b
		}
		l := mustLease(t, p)
		if l.Backend() != sooner {
			t.Errorf("tried %s first", l.Backend().Name())
		}
		other := mustLease(t, p)
		l.Done(Result{Status: 200})
		if sooner.health.ejected {
			t.Error("a success did not end the ejection")
		}
		other.Done(Result{Status: 200})
		time.Sleep(time.Minute)
		idle(t, f)
	})
}

// A waiting request must get the slot of a backend whose ejection ends, although no request ended at
// that time.
func TestEndOfEjectionWakesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1, "b": 1}, PoolConfig{Model: "m", Backends: []string{"a", "b"}, QueueLimit: 1})
		p := f.Pool("m")
		for range ejectAfter {
			l := mustLease(t, p)
			for l.Backend() != f.backend("a") {
				l.Done(Result{Status: 200})
				l = mustLease(t, p)
			}
			l.Done(Result{Status: 500})
		}
		mustLease(t, p)
		start := time.Now()
		l := <-waitInQueue(t, p)
		if l == nil || l.Backend() != f.backend("a") || time.Since(start) > 2*time.Second {
			t.Errorf("waiter got %v after %v", l, time.Since(start))
		}
	})
}

func ExampleFleet() {
	u, _ := url.Parse("http://127.0.0.1:8000")
	fleet, err := NewFleet(Config{
		Backends: []BackendConfig{{Name: "gpu-1", URL: u, Slots: 64}},
		Pools:    []PoolConfig{{Model: "llama", Backends: []string{"gpu-1"}, QueueLimit: 64}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fleet.Close()
	ticket, err := fleet.Pool("llama").Admit(Key{})
	if err != nil {
		fmt.Println(err)
		return
	}
	lease, err := ticket.Wait(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lease.Done(Result{Status: http.StatusOK})
	fmt.Println(lease.Backend().Name(), fleet.Status()[0].InFlight)
	// Output: gpu-1 1
}
