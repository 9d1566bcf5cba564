package gpu

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// goesTo fails unless the next request of the pool goes to the named backend. It ends the request.
func goesTo(t *testing.T, p *Pool, bid Bid, name string) {
	t.Helper()
	l := leaseFor(t, p, bid)
	if got := l.Backend().Name(); got != name {
		t.Errorf("went to %s, want %s", got, name)
	}
	l.Done(Result{Err: context.Canceled}) // this result says nothing about pace or health
}

func leaseFor(t *testing.T, p *Pool, bid Bid) *Lease {
	t.Helper()
	ticket, err := p.AdmitBid(Key{}, bid)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ticket.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLeastExpectedWait(t *testing.T) {
	for name, set := range map[string]func(a, b *gauge, f *Fleet){
		"the engine has a queue": func(a, b *gauge, _ *Fleet) { a.engine(4, 3, 0.1); b.engine(6, 0, 0.1) },
		"others' requests there": func(a, b *gauge, _ *Fleet) { a.engine(5, 0, 0.1); b.engine(2, 0, 0.1) },
		"the KV cache is full":   func(a, b *gauge, _ *Fleet) { a.engine(1, 0, 0.97); b.engine(6, 0, 0.6) },
		"the KV cache is fuller": func(a, b *gauge, _ *Fleet) { a.engine(1, 0, 0.7); b.engine(3, 0, 0.3) },
		"someone else's work":    func(a, b *gauge, _ *Fleet) { a.reading(device("GPU-a", 0, 0.9)); b.engine(2, 0, 0) },
		"SMs are busy": func(a, b *gauge, _ *Fleet) {
			d := device("GPU-a", 0, 1)
			d.SM = 0.8
			a.engine(1, 0, 0)
			a.reading(d)
			b.engine(3, 0, 0)
			b.reading(device("GPU-b", 0, 1)) // utilization is high long before the GPU is full: 3 requests of 8 read as 0.75
		},
		"it is slower": func(a, b *gauge, f *Fleet) {
			a.engine(2, 1, 0)
			b.engine(3, 1, 0)
			f.pools["m"].pace, f.backend("a").pace, f.backend("b").pace = time.Second, 2*time.Second, time.Second/2
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newGauge("a"), newGauge("b")
			f := newFleet(t, Config{
				Backends: []BackendConfig{server("a", 8, a, GPU{a.feed, "0"}), server("b", 8, b, GPU{b.feed, "0"})},
				Pools:    []PoolConfig{{Model: "m", Backends: []string{"a", "b"}}},
			})
			p := f.Pool("m")
			goesTo(t, p, Bid{}, "a") // nothing is known and both are idle, so they take turns
			goesTo(t, p, Bid{}, "b")
			f.backend("a").idleAt = time.Now().Add(-time.Minute)
			set(a, b, f)
			for range 3 {
				goesTo(t, p, Bid{}, "b")
			}
		})
	}
}

// Utilization reflects a request for a while after the request's end.
func TestOwnAfterglow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newGauge("node")
		f := newFleet(t, Config{
			Backends: []BackendConfig{server("a", 8, nil, GPU{node.feed, "0"}), server("b", 8, nil, GPU{node.feed, "1"})},
			Pools:    []PoolConfig{{Model: "m", Backends: []string{"a", "b"}}},
		})
		p := f.Pool("m")
		goesTo(t, p, Bid{}, "a")
		node.reading(device("GPU-a", 0, 0.9), device("GPU-b", 1, 0))
		if w := pressureOf(f.backend("a")); w != 0 {
			t.Errorf("the end of our own work is a load of %v", w)
		}
		time.Sleep(2 * time.Second)
		node.reading(device("GPU-a", 0, 0.9), device("GPU-b", 1, 0))
		if w := pressureOf(f.backend("a")); w != 0.9 {
			t.Errorf("another's work is a load of %v", w)
		}
	})
}

func pressureOf(b *Backend) float64 {
	s := b.sense(time.Now())
	return b.pressure(&s)
}

// A backend that fails at once must not count as fast.
func TestFailuresAreNoPace(t *testing.T) {
	f := fleetOf(t, map[string]int{"a": 4}, PoolConfig{Model: "m", Backends: []string{"a"}})
	p, b := f.Pool("m"), f.backend("a")
	mustLease(t, p).Done(Result{Status: 200, Took: 10 * time.Second})
	mustLease(t, p).Done(Result{Status: 500, Took: time.Millisecond})
	mustLease(t, p).Done(Result{Err: context.Canceled, Took: time.Millisecond})
	mustLease(t, p).Done(Result{Err: ErrNotTaken, Refused: true, Took: time.Millisecond})
	if b.pace != 10*time.Second {
		t.Errorf("pace is %v", b.pace)
	}
	b.pace, p.pace = time.Millisecond, 8*time.Second
	if got := b.paceIn(p); got != 2 {
		t.Errorf("pace in the pool is %v s, want at most 4 times faster", got)
	}
}

// Many gateways read the same old numbers. If each gateway chose the backend that looks best, all would
// choose the same backend.
func TestTwoRandomChoices(t *testing.T) {
	cfg := Config{Rand: rand.New(rand.NewPCG(1, 2))}
	pool := PoolConfig{Model: "m"}
	var best *gauge
	for i := range 10 {
		g := newGauge(fmt.Sprint(i))
		g.engine(float64(50+i), 0, 0)
		if i == 0 {
			best = g
		}
		cfg.Backends = append(cfg.Backends, server(g.feed.Name(), 100, g))
		pool.Backends = append(pool.Backends, g.feed.Name())
	}
	best.engine(10, 0, 0)
	cfg.Pools = []PoolConfig{pool}
	f := newFleet(t, cfg)
	count := map[string]int{}
	const n = 4000
	for range n {
		l := mustLease(t, f.Pool("m"))
		count[l.Backend().Name()]++
		l.Done(Result{Err: context.Canceled})
	}
	// Backend i wins against the backends above it, which are (9-i)/45 of all pairs.
	for i := range 10 {
		want := float64(9-i) / 45 * n
		if got := float64(count[fmt.Sprint(i)]); got < want*0.8-5 || got > want*1.2+5 {
			t.Errorf("backend %d got %v of %d, want about %.0f", i, got, n, want)
		}
	}
}

// With two choices the load of the most loaded of many backends remains close to the mean.
func TestTwoChoicesBalance(t *testing.T) {
	cfg := Config{Rand: rand.New(rand.NewPCG(3, 4))}
	pool := PoolConfig{Model: "m"}
	for i := range 20 {
		cfg.Backends = append(cfg.Backends, server(fmt.Sprint(i), 50, nil))
		pool.Backends = append(pool.Backends, fmt.Sprint(i))
	}
	cfg.Pools = []PoolConfig{pool}
	f := newFleet(t, cfg)
	for range 400 {
		mustLease(t, f.Pool("m"))
	}
	most := 0
	for _, b := range f.backends {
		most = max(most, b.inFlight)
	}
	if most > 23 {
		t.Errorf("a backend has %d requests where the mean is 20", most)
	}
	for range 600 { // until the last slot is taken
		mustLease(t, f.Pool("m"))
	}
}

// BenchmarkChoose measures one choice among backends that each have an engine and 8 GPUs.
func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{2, 4, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			cfg := Config{}
			pool := PoolConfig{Model: "m"}
			for i := range n {
				g := newGauge(fmt.Sprint(i))
				var devices []telemetry.Device
				var gpus []GPU
				for j := range 8 {
					uuid := fmt.Sprintf("GPU-%d-%d", i, j)
					devices = append(devices, device(uuid, j, 0.5))
					gpus = append(gpus, GPU{g.feed, uuid})
				}
				g.engine(4, 1, 0.4)
				g.reading(devices...)
				cfg.Backends = append(cfg.Backends, server(fmt.Sprint(i), 64, g, gpus...))
				pool.Backends = append(pool.Backends, fmt.Sprint(i))
			}
			cfg.Pools = []PoolConfig{pool}
			f := newFleet(b, cfg)
			t := &Ticket{pool: f.Pool("m")}
			b.ReportAllocs()
			for b.Loop() {
				if best, _ := f.Pool("m").choose(t); best == nil {
					b.Fatal("nothing chosen")
				}
			}
		})
	}
}
