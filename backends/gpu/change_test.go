package gpu

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// change puts another configuration in force and returns the backends that leave.
func change(t testing.TB, f *Fleet, cfg Config) []*Backend {
	t.Helper()
	plan, err := f.Prepare(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return plan.Commit()
}

func at(name, host string, slots int) BackendConfig {
	return BackendConfig{Name: name, URL: &url.URL{Scheme: "http", Host: host}, Slots: slots}
}

func TestChangeKeepsWhatStaysTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := PoolConfig{Model: "m", Backends: []string{"a", "b"}, QueueLimit: 4}
		f := newFleet(t, Config{Backends: []BackendConfig{at("a", "h:1", 2), at("b", "h:2", 2)}, Pools: []PoolConfig{m}})
		p, a, b := f.Pool("m"), f.backend("a"), f.backend("b")
		a.pace, a.health.servedAt, a.served = time.Second, time.Now(), 7
		onA, onB := mustLease(t, p), mustLease(t, p)
		if onA.Backend() != a {
			onA, onB = onB, onA
		}
		m.QueueLimit, m.Backends = 9, []string{"a", "b", "c"}
		leaving := change(t, f, Config{Backends: []BackendConfig{at("a", "h:1", 5), at("b", "h:3", 2), at("c", "h:4", 1)}, Pools: []PoolConfig{m}})
		if f.Pool("m") != p || p.cfg.QueueLimit != 9 || f.backend("a") != a || a.Slots() != 5 || a.pace != time.Second || a.served != 7 {
			t.Errorf("what stays has lost something: %+v", a)
		}
		if !slices.Equal(leaving, []*Backend{b}) || f.backend("b") == b || b.Gone() || onB.Backend() != b {
			t.Errorf("%v leave", leaving)
		}
		if s := f.Status()[1]; s.Name != "b" || s.Leaving != 1 || s.InFlight != 0 {
			t.Errorf("status %+v", s)
		}
		for range 7 { // 4 requests go to a, 2 to the new b, 1 to c
			if l := mustLease(t, p); l.Backend() == b {
				t.Fatal("a request went to a backend that leaves")
			} else {
				defer l.Done(Result{Status: 200})
			}
		}
		onB.Done(Result{Status: 200})
		if ends, open := b.Ends(); !b.Gone() || !ends || open != 0 || len(f.leaving) != 0 {
			t.Error("a backend without requests has not left")
		}
		onA.Done(Result{Status: 200})
	})
}

func TestRefusedPlanChangesNothing(t *testing.T) {
	f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}})
	for name, cfg := range map[string]Config{
		"no slots":        {Backends: []BackendConfig{at("a", "h:1", 0)}},
		"twice":           {Backends: []BackendConfig{at("a", "h:1", 1), at("a", "h:2", 1)}},
		"unknown backend": {Backends: []BackendConfig{at("a", "h:1", 1)}, Pools: []PoolConfig{{Model: "m", Backends: []string{"b"}}}},
		"heavy":           {Backends: []BackendConfig{{Name: "a", URL: &url.URL{Scheme: "http", Host: "h"}, Slots: 1, Weight: MaxWeight + 1}}},
	} {
		if _, err := f.Prepare(cfg); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	before, p := f.backend("a"), f.Pool("m")
	if plan, err := f.Prepare(Config{Backends: []BackendConfig{at("b", "h:1", 1)}, Pools: []PoolConfig{{Model: "n", Backends: []string{"b"}}}}); err != nil || plan.Pool("n") == nil || plan.Pool("m") != nil {
		t.Errorf("%+v, %v", plan, err)
	}
	if f.backend("a") != before || f.Pool("m") != p || f.Pool("n") != nil {
		t.Error("a plan that was not committed has changed something")
	}
	mustLease(t, p).Done(Result{Status: 200})
}

func TestWaitersFollowAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, n := PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 4}, PoolConfig{Model: "n", Backends: []string{"b"}, QueueLimit: 4}
		a, b, c := at("a", "h:1", 1), at("b", "h:2", 1), at("c", "h:3", 1)
		f := newFleet(t, Config{Backends: []BackendConfig{a, b}, Pools: []PoolConfig{m, n}})
		pm, pn := f.Pool("m"), f.Pool("n")
		busyA, busyB := mustLease(t, pm), mustLease(t, pn)
		first, second := waitInQueue(t, pm), waitInQueue(t, pm)
		other := waitInQueue(t, pn)
		m.Backends = []string{"a", "c"}
		change(t, f, Config{Backends: []BackendConfig{a, b, c}, Pools: []PoolConfig{m, n}})
		synctest.Wait()
		joined := <-first // at once, on the backend that joined
		if joined.Backend().Name() != "c" {
			t.Errorf("the first who waits is at %s", joined.Backend().Name())
		}
		// Model n is removed. Its backend stays and serves m now. The request that waits for n is
		// served.
		m.Backends = []string{"a", "b", "c"}
		change(t, f, Config{Backends: []BackendConfig{a, b, c}, Pools: []PoolConfig{m}})
		if f.Pool("n") != nil || len(f.Pools()) != 1 {
			t.Error("a model that is gone is still there")
		}
		busyB.Done(Result{Status: 200})
		synctest.Wait()
		last := <-other
		if last == nil || last.Backend().Name() != "b" {
			t.Error("a request that waited for a model that goes was lost")
		}
		last.Done(Result{Status: 200})
		(<-second).Done(Result{Status: 200})
		joined.Done(Result{Status: 200})

		// Every backend leaves, and the request that waits gets an error.
		held, lost := waitAllTaken(t, f, pm)
		change(t, f, Config{Backends: []BackendConfig{at("d", "h:4", 1)}, Pools: []PoolConfig{{Model: "o", Backends: []string{"d"}}}})
		began := time.Now()
		if l := <-lost; l != nil || time.Since(began) > 0 {
			t.Errorf("a slot of a backend that leaves was given, or its waiter waited on for %v", time.Since(began))
		}
		busyA.Done(Result{Status: 200})
		if _, err := pm.Admit(Key{}); !errors.Is(err, ErrNoBackend) {
			t.Errorf("a request that began before is told %v", err)
		}
		for _, l := range held {
			l.Done(Result{Status: 200})
		}
		idle(t, f)
		if len(f.leaving) != 0 {
			t.Errorf("%d still leave", len(f.leaving))
		}
	})
}

// waitAllTaken takes every slot of a pool and lets one more request wait.
func waitAllTaken(t *testing.T, f *Fleet, p *Pool) (held []*Lease, waits <-chan *Lease) {
	t.Helper()
	for {
		f.mu.Lock()
		free, _ := p.free(&Bid{})
		f.mu.Unlock()
		if free == 0 {
			return held, waitInQueue(t, p)
		}
		held = append(held, mustLease(t, p))
	}
}

// A waiting request still counts for its account after a change makes pools share backends.
func TestSharesFollowAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 9, PerAccount: 2}
		n := PoolConfig{Model: "n", Backends: []string{"b"}, QueueLimit: 9, PerAccount: 2}
		servers := []BackendConfig{at("a", "h:1", 1), at("b", "h:2", 1)}
		f := newFleet(t, Config{Backends: servers, Pools: []PoolConfig{m, n}})
		pm, pn := f.Pool("m"), f.Pool("n")
		onA, onB := mustLease(t, pm), mustLease(t, pn)
		first, second := waitInQueue(t, pm), waitInQueue(t, pn)
		n.Backends = []string{"b", "a"}
		change(t, f, Config{Backends: servers, Pools: []PoolConfig{m, n}})
		for _, p := range []*Pool{pm, pn} {
			var full *FullError
			if _, err := p.Admit(Key{}); !errors.As(err, &full) || !full.Own {
				t.Errorf("an account with two that wait, in pools that share a backend: %v", err)
			}
		}
		onA.Done(Result{Status: 200})
		onB.Done(Result{Status: 200})
		(<-first).Done(Result{Status: 200})
		(<-second).Done(Result{Status: 200})
		idle(t, f)
	})
}

func TestOperatorDrainsAcrossChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := PoolConfig{Model: "m", Backends: []string{"a", "b"}, QueueLimit: 4}
		cfg := Config{Backends: []BackendConfig{at("a", "h:1", 4), at("b", "h:2", 4)}, Pools: []PoolConfig{m}}
		f := newFleet(t, cfg)
		p := f.Pool("m")
		if f.Drain("c", true) || !f.Drain("a", true) {
			t.Fatal("drain")
		}
		var running []*Lease
		onlyB := func(n int) {
			t.Helper()
			for range n {
				l := mustLease(t, p)
				if l.Backend().Name() != "b" {
					t.Errorf("a request went to %s", l.Backend().Name())
				}
				running = append(running, l)
			}
		}
		onlyB(3)
		cfg.Backends[0] = at("a", "h:9", 4)
		change(t, f, cfg)
		onlyB(1)
		if !slices.Equal(f.Drained(), []string{"a"}) || !f.Status()[0].Drained {
			t.Error("a change of the configuration has ended the operator's drain")
		}
		waiter := waitInQueue(t, p)
		if !f.Drain("a", false) {
			t.Fatal("undrain")
		}
		if l := <-waiter; l.Backend().Name() != "a" {
			t.Errorf("after the drain: at %s", l.Backend().Name())
		} else {
			l.Done(Result{Status: 200})
		}
		for _, l := range running {
			l.Done(Result{Status: 200})
		}
	})
}

func TestWeightsShareOutRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heavy, light := at("heavy", "h:1", 100), at("light", "h:2", 100)
		heavy.Weight = 3
		cfg := Config{Backends: []BackendConfig{heavy, light}, Pools: []PoolConfig{{Model: "m", Backends: []string{"heavy", "light"}}}}
		f := newFleet(t, cfg)
		p := f.Pool("m")
		took := func(n int) (heavy int) {
			for range n {
				l := mustLease(t, p)
				if l.Backend().Name() == "heavy" {
					heavy++
				}
				l.Done(Result{Status: 200})
			}
			return heavy
		}
		if n := took(400); n < 299 || n > 301 {
			t.Errorf("the heavy one took %d of 400, want 3 in 4", n)
		}
		f.Drain("light", true)
		took(100)
		f.Drain("light", false)
		if n := took(100); n < 74 || n > 76 {
			t.Errorf("after the light one was away, the heavy one took %d of 100: nothing is made up for", n)
		}
		cfg.Backends[0].Weight = 1
		change(t, f, cfg)
		if p.weighted || f.backend("heavy").served < 400 {
			t.Error("with equal weights the least wait decides, and the backend stays")
		}
	})
}

// Requests of every kind run while backends and models come and go. Afterwards no slot is taken.
func TestChangesUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := PoolConfig{Model: "m", Backends: []string{"a", "b"}, QueueLimit: 5, QueueTimeout: time.Second}
		n := PoolConfig{Model: "n", Backends: []string{"b", "c"}, QueueLimit: 5, QueueTimeout: time.Second}
		node := newGauge("node")
		node.reading(device("GPU-a", 0, 0.5))
		gpu := GPU{node.feed, "0"}
		variant := func(r *rand.Rand) Config {
			host := []string{"h:1", "h:2"}
			b := server("b", 2, nil, gpu)
			b.URL = &url.URL{Scheme: "http", Host: host[r.IntN(2)]}
			c := at("c", host[r.IntN(2)], 1)
			c.Weight = 1 + r.IntN(2)
			cfg := Config{Backends: []BackendConfig{server("a", 3, nil, gpu), b, c}, Pools: []PoolConfig{m, n}}
			switch r.IntN(4) {
			case 0:
				cfg.Pools[0].Backends, cfg.Pools[1].Backends = []string{"a"}, []string{"c"}
			case 1:
				cfg.Pools[1].Backends = []string{"a", "b", "c"}
			}
			return cfg
		}
		r := rand.New(rand.NewPCG(3, 4))
		f := newFleet(t, variant(r))
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, uint64(i)))
				time.Sleep(time.Duration(r.IntN(60)) * time.Second)
				oneRequest(f, r)
			})
		}
		for range 200 {
			time.Sleep(300 * time.Millisecond)
			change(t, f, variant(r))
		}
		wg.Wait()
		change(t, f, variant(r))
		idle(t, f)
		if len(f.leaving) != 0 || len(f.retired) != 0 {
			t.Errorf("%d backends still leave, %d pools are kept", len(f.leaving), len(f.retired))
		}
		for _, b := range f.backends {
			if len(b.pools) > 2 || slices.ContainsFunc(b.byPool, func(n int) bool { return n != 0 }) {
				t.Errorf("%s keeps %d pools, %v", b.Name(), len(b.pools), b.byPool)
			}
		}
		for _, m := range f.dividers {
			if m.inFlight != 0 || m.bound > 2 {
				t.Errorf("a divider has %d in flight for %d bindings", m.inFlight, m.bound)
			}
		}
	})
}

// If another exporter reads a GPU after a change, its time is still measured, for requests of the
// backend that leaves and of the backend that replaces it.
func TestGPUTimeGoesOnWithAnotherFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after := newGauge("before"), newGauge("after")
		m := PoolConfig{Model: "m", Backends: []string{"a"}}
		f := newFleet(t, Config{Backends: []BackendConfig{server("a", 4, nil, GPU{before.feed, "0"})}, Pools: []PoolConfig{m}})
		before.reading(device("GPU-a", 0, 1))
		after.reading(device("GPU-a", 0, 1))
		old := mustLease(t, f.Pool("m"))
		time.Sleep(2 * time.Second)
		change(t, f, Config{Backends: []BackendConfig{server("a", 4, nil, GPU{after.feed, "0"})}, Pools: []PoolConfig{m}})
		fresh := mustLease(t, f.Pool("m"))
		time.Sleep(2 * time.Second)
		wantGPU(t, "alone, then beside another", old, 3*time.Second)
		old.Done(Result{Status: 200})
		time.Sleep(30 * time.Second) // the former feed is silent
		after.reading(device("GPU-a", 0, 1))
		time.Sleep(2 * time.Second)
		wantGPU(t, "beside another, alone for as long as the last readings hold, and seen again", fresh, time.Second+11*time.Second+2*time.Second)
		fresh.Done(Result{Status: 200})
	})
}

// Health checks begin when a backend joins and end when it leaves.
func TestHealthChecksFollow(t *testing.T) {
	var asked [2]atomic.Int32
	var servers [2]*url.URL
	for i := range asked {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked[i].Add(1) })}
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { _ = s.Close() })
		servers[i] = &url.URL{Scheme: "http", Host: l.Addr().String()}
	}
	with := func(i int) Config {
		return Config{Backends: []BackendConfig{{Name: "a", URL: servers[i], Slots: 1, HealthPath: "/health", HealthEvery: 20 * time.Millisecond}},
			Pools: []PoolConfig{{Model: "m", Backends: []string{"a"}}}}
	}
	f := newFleet(t, with(0))
	f.Start(t.Context())
	waitUntil(t, func() bool { return asked[0].Load() > 1 && f.Healthy("m") })
	change(t, f, with(1))
	waitUntil(t, func() bool { return asked[1].Load() > 1 && f.Healthy("m") })
	n := asked[0].Load()
	m := asked[1].Load()
	waitUntil(t, func() bool { return asked[1].Load() > m+5 })
	if got := asked[0].Load(); got > n+1 {
		t.Errorf("a backend that left was asked %d times more", got-n)
	}
}

func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never")
		}
	}
}
