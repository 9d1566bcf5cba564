package gpu

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fleetOf builds a fleet without health checks. slots holds the slots of each backend, by the backend's
// name.
func fleetOf(t testing.TB, slots map[string]int, pools ...PoolConfig) *Fleet {
	t.Helper()
	var cfg Config
	for name, n := range slots {
		cfg.Backends = append(cfg.Backends, BackendConfig{Name: name, URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Slots: n})
	}
	cfg.Pools = pools
	f, err := NewFleet(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func (f *Fleet) backend(name string) *Backend {
	for _, b := range f.backends {
		if b.cfg.Name == name {
			return b
		}
	}
	return nil
}

func mustLease(t testing.TB, p *Pool) *Lease {
	t.Helper()
	ticket, err := p.Admit(Key{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ticket.Wait(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// waitInQueue starts a request that waits, and returns once the request is in the queue.
func waitInQueue(t *testing.T, p *Pool) <-chan *Lease {
	t.Helper()
	return waitAs(t, p, Key{})
}

func waitAs(t *testing.T, p *Pool, key Key) <-chan *Lease {
	t.Helper()
	ticket, err := p.Admit(key)
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

// idle fails if a slot or a place is taken.
func idle(t *testing.T, f *Fleet) {
	t.Helper()
	for _, b := range f.backends {
		if b.inFlight != 0 {
			t.Errorf("backend %s has %d in flight", b.cfg.Name, b.inFlight)
		}
	}
	for _, p := range f.order {
		if p.places != 0 || p.queue.n != 0 || p.queue.head != nil || p.queue.tail != nil || len(p.queue.ends) != 0 || len(p.domain.shares) != 0 {
			t.Errorf("pool %s has %d places, %d waiting", p.cfg.Model, p.places, p.queue.n)
		}
	}
}

func TestLeastInFlightForItsSlots(t *testing.T) {
	f := fleetOf(t, map[string]int{"small": 2, "large": 6}, PoolConfig{Model: "m", Backends: []string{"small", "large"}})
	count := map[string]int{}
	for range 4 {
		count[mustLease(t, f.Pool("m")).Backend().Name()]++
	}
	if count["small"] != 1 || count["large"] != 3 {
		t.Errorf("4 requests went to %v, want 1 and 3", count)
	}
}

func TestTiesRotate(t *testing.T) {
	f := fleetOf(t, map[string]int{"a": 1, "b": 1, "c": 1}, PoolConfig{Model: "m", Backends: []string{"a", "b", "c"}})
	count := map[string]int{}
	for range 30 {
		l := mustLease(t, f.Pool("m"))
		count[l.Backend().Name()]++
		l.Done(Result{Status: 200})
	}
	if count["a"] != 10 || count["b"] != 10 || count["c"] != 10 {
		t.Errorf("requests one after another went to %v, want 10 each", count)
	}
}

func TestAdmitRefusesBeyondSlotsAndQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 2}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 1})
		p := f.Pool("m")
		start := time.Now()
		first := mustLease(t, p)
		time.Sleep(10 * time.Second)
		first.Done(Result{Status: 200, Took: time.Since(start)}) // gives the pool a pace of 10 s
		one, two := mustLease(t, p), mustLease(t, p)
		third, err := p.Admit(Key{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Admit(Key{})
		var full *FullError
		if !errors.As(err, &full) {
			t.Fatalf("error is %v, want *FullError", err)
		}
		// One request waits, and this would be the second. Two slots at a pace of 10 s free one slot
		// every 5 s.
		if full.RetryAfter != 10*time.Second {
			t.Errorf("retry after %v, want 10s", full.RetryAfter)
		}
		third.Cancel()
		third.Cancel()
		if _, err := third.Wait(context.Background()); !errors.Is(err, ErrSpent) {
			t.Errorf("wait after cancel: %v", err)
		}
		if third, err = p.Admit(Key{}); err != nil {
			t.Fatalf("the cancelled place is not free: %v", err)
		}
		third.Cancel()
		one.Done(Result{})
		one.Done(Result{})
		two.Done(Result{})
		idle(t, f)
	})
}

func TestRetryAfterIsAtLeastASecond(t *testing.T) {
	f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}})
	mustLease(t, f.Pool("m"))
	_, err := f.Pool("m").Admit(Key{})
	var full *FullError
	if !errors.As(err, &full) || full.RetryAfter != time.Second {
		t.Errorf("error is %v, want *FullError with 1s", err)
	}
}

func TestQueueIsFIFO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 3})
		p := f.Pool("m")
		running := mustLease(t, p)
		var waiting []<-chan *Lease
		for range 3 {
			waiting = append(waiting, waitInQueue(t, p))
		}
		for i, w := range waiting {
			running.Done(Result{Status: 200})
			synctest.Wait()
			for j := i + 1; j < len(waiting); j++ {
				if len(waiting[j]) != 0 {
					t.Fatalf("waiter %d came before %d", j, i)
				}
			}
			running = <-w
		}
		running.Done(Result{Status: 200})
		idle(t, f)
	})
}

func TestSharedBackendServesPoolsInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1},
			PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 2},
			PoolConfig{Model: "n", Backends: []string{"a"}, QueueLimit: 2})
		running := mustLease(t, f.Pool("m"))
		order := []<-chan *Lease{waitInQueue(t, f.Pool("n")), waitInQueue(t, f.Pool("m")), waitInQueue(t, f.Pool("n"))}
		for i, w := range order {
			running.Done(Result{Status: 200})
			if running = <-w; running == nil {
				t.Fatalf("waiter %d got no slot", i)
			}
		}
		running.Done(Result{Status: 200})
		idle(t, f)
	})
}

func TestQueueTimeoutAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 2, QueueTimeout: 7 * time.Second})
		p := f.Pool("m")
		running := mustLease(t, p)
		start := time.Now()
		late, err := p.Admit(Key{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := late.Wait(context.Background()); !errors.Is(err, ErrQueueTimeout) || time.Since(start) != 7*time.Second {
			t.Errorf("wait ended with %v after %v", err, time.Since(start))
		}
		gone, err := p.Admit(Key{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := gone.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait ended with %v", err)
		}
		running.Done(Result{})
		idle(t, f)
	})
}

func TestNextGoesElsewhereOnce(t *testing.T) {
	f := fleetOf(t, map[string]int{"a": 1, "b": 1}, PoolConfig{Model: "m", Backends: []string{"a", "b"}})
	l := mustLease(t, f.Pool("m"))
	l.Done(Result{Err: ErrNotTaken, Refused: true})
	second, err := l.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if second.Backend() == l.Backend() {
		t.Errorf("went to %s again", l.Backend().Name())
	}
	if _, err := second.Next(context.Background()); !errors.Is(err, ErrNoBackend) {
		t.Errorf("third try: %v, want ErrNoBackend", err)
	}
	idle(t, f)
}

func TestNextWaitsAheadOfLaterRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1, "b": 1}, PoolConfig{Model: "m", Backends: []string{"a", "b"}, QueueLimit: 2})
		p := f.Pool("m")
		refused, other := mustLease(t, p), mustLease(t, p)
		later := waitInQueue(t, p)
		moved := make(chan *Lease, 1)
		go func() {
			l, _ := refused.Next(context.Background())
			moved <- l
		}()
		// The slot that was given back goes to the next waiting request, which has not been on that
		// backend.
		if l := <-later; l.Backend() != refused.Backend() {
			t.Errorf("the freed slot was not used")
		}
		behind := waitInQueue(t, p)
		other.Done(Result{Status: 200})
		if l := <-moved; l == nil || l.Backend() != other.Backend() {
			t.Fatal("the moved request did not get the slot elsewhere")
		}
		if len(behind) != 0 {
			t.Error("a later request went ahead")
		}
	})
}

func TestCloseFailsWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 1}, PoolConfig{Model: "m", Backends: []string{"a"}, QueueLimit: 1})
		l := mustLease(t, f.Pool("m"))
		w := waitInQueue(t, f.Pool("m"))
		f.Close()
		if <-w != nil {
			t.Error("waiter got a slot of a closed fleet")
		}
		l.Done(Result{})
		if _, err := f.Pool("m").Admit(Key{}); !errors.Is(err, ErrNoBackend) {
			t.Errorf("admit after close: %v", err)
		}
		idle(t, f)
	})
}

// Many requests with every kind of end run on shared backends. Afterwards no slot may be taken, and
// never more requests ran than there are slots.
func TestNoSlotLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, map[string]int{"a": 3, "b": 2, "c": 1},
			PoolConfig{Model: "m", Backends: []string{"a", "b"}, QueueLimit: 5, QueueTimeout: time.Second},
			PoolConfig{Model: "n", Backends: []string{"b", "c"}, QueueLimit: 5, QueueTimeout: time.Second})
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, uint64(i)))
				time.Sleep(time.Duration(r.IntN(60)) * time.Second)
				oneRequest(f, r)
			})
		}
		wg.Wait()
		idle(t, f)
	})
}

func oneRequest(f *Fleet, r *rand.Rand) {
	ticket, err := f.Pool([]string{"m", "n"}[r.IntN(2)]).Admit(Key{byte(r.IntN(4))})
	if err != nil {
		return
	}
	if r.IntN(5) == 0 {
		ticket.Cancel()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(3000))*time.Millisecond)
	defer cancel()
	l, err := ticket.Wait(ctx)
	for err == nil {
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		if l.Backend().inFlightNow() > l.Backend().Slots() {
			panic(fmt.Sprintf("%d in flight on %s", l.Backend().inFlightNow(), l.Backend().Name()))
		}
		switch r.IntN(4) {
		case 0:
			l, err = l.Next(ctx)
			continue
		case 1:
			l.Done(Result{Err: errors.New("cut"), Status: 200})
		case 2:
			l.Done(Result{Status: 503})
		}
		l.Done(Result{Status: 200})
		return
	}
}

func (b *Backend) inFlightNow() int {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	return b.inFlight
}

func TestNewFleetRefuses(t *testing.T) {
	good := BackendConfig{Name: "a", URL: &url.URL{Scheme: "http", Host: "h"}, Slots: 1}
	with := func(change func(*BackendConfig)) []BackendConfig {
		b := good
		change(&b)
		return []BackendConfig{b}
	}
	for name, cfg := range map[string]Config{
		"no name":        {Backends: with(func(b *BackendConfig) { b.Name = "" })},
		"no slots":       {Backends: with(func(b *BackendConfig) { b.Slots = 0 })},
		"too many slots": {Backends: with(func(b *BackendConfig) { b.Slots = MaxSlots + 1 })},
		"no url":         {Backends: with(func(b *BackendConfig) { b.URL = nil })},
		"scheme":         {Backends: with(func(b *BackendConfig) { b.URL = &url.URL{Scheme: "ftp", Host: "h"} })},
		"key in url":     {Backends: with(func(b *BackendConfig) { b.URL = &url.URL{Scheme: "http", Host: "h", User: url.User("k")} })},
		"negative time":  {Backends: with(func(b *BackendConfig) { b.IdleTimeout = -1 })},
		"twice":          {Backends: []BackendConfig{good, good}},
		"unknown":        {Backends: []BackendConfig{good}, Pools: []PoolConfig{{Model: "m", Backends: []string{"z"}}}},
		"empty pool":     {Backends: []BackendConfig{good}, Pools: []PoolConfig{{Model: "m"}}},
		"named twice":    {Backends: []BackendConfig{good}, Pools: []PoolConfig{{Model: "m", Backends: []string{"a", "a"}}}},
		"pool twice":     {Backends: []BackendConfig{good}, Pools: []PoolConfig{{Model: "m", Backends: []string{"a"}}, {Model: "m", Backends: []string{"a"}}}},
		"no model":       {Backends: []BackendConfig{good}, Pools: []PoolConfig{{Backends: []string{"a"}}}},
		"negative share": {Backends: []BackendConfig{good}, Pools: []PoolConfig{{Model: "m", Backends: []string{"a"}, PerAccount: -1}}},
		"negative queue": {Backends: []BackendConfig{good}, Pools: []PoolConfig{{Model: "m", Backends: []string{"a"}, QueueLimit: -1}}},
	} {
		if _, err := NewFleet(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkAdmitWaitDone(b *testing.B) {
	f := fleetOf(b, map[string]int{"a": 1 << 10, "b": 1 << 10, "c": 1 << 10}, PoolConfig{Model: "m", Backends: []string{"a", "b", "c"}})
	p := f.Pool("m")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ticket, err := p.Admit(Key{})
			if err != nil {
				b.Fatal(err)
			}
			l, err := ticket.Wait(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			l.Done(Result{Status: 200, Took: time.Second})
		}
	})
}
