package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/pricing"
)

// gauge is a feed whose next reading the test writes.
type gauge struct {
	telemetry.Reading
	err  error
	feed *telemetry.Feed
}

func (g *gauge) Sample(context.Context) (telemetry.Reading, error) { return g.Reading, g.err }

func newGauge(name string) *gauge {
	g := &gauge{}
	g.feed = telemetry.NewFeed(telemetry.FeedConfig{Name: name, Sampler: g})
	return g
}

func (g *gauge) engine(running, waiting, kv float64) {
	g.Engine = &telemetry.Engine{Kind: "vllm", Running: running, Waiting: waiting, KV: kv}
	g.feed.Poll(context.Background())
}

// reading sets the devices of the next reading.
func (g *gauge) reading(devices ...telemetry.Device) {
	g.Devices = devices
	g.feed.Poll(context.Background())
}

func device(uuid string, index int, utilization float64) telemetry.Device {
	d := telemetry.NewDevice(uuid)
	d.Index, d.Utilization = index, utilization
	return d
}

// server is a backend with its telemetry.
func server(name string, slots int, engine *gauge, gpus ...GPU) BackendConfig {
	b := BackendConfig{Name: name, URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Slots: slots, GPUs: gpus}
	if engine != nil {
		b.Engine = engine.feed
	}
	return b
}

func newFleet(t testing.TB, cfg Config) *Fleet {
	t.Helper()
	f, err := NewFleet(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func same(a, b float64) bool {
	return math.Abs(a-b) < 1e-9 || math.IsNaN(a) && math.IsNaN(b)
}

func wantLoad(t *testing.T, what string, got, want pricing.Load) {
	t.Helper()
	if !same(got.Running, want.Running) || !same(got.Waiting, want.Waiting) || !same(got.Capacity, want.Capacity) ||
		!same(got.InFlight, want.InFlight) || !same(got.Queued, want.Queued) || !same(got.KV, want.KV) || !same(got.SM, want.SM) ||
		!same(got.Utilization, want.Utilization) || !same(got.Energy, want.Energy) || got.Stale != want.Stale || got.Age != want.Age {
		t.Errorf("%s: load is\n%+v, want\n%+v", what, got, want)
	}
}

var none = math.NaN()

// A server whose engine is known may nevertheless offer no metrics. It counts as a server without
// metrics until it has shown some. From then on their absence is a failure.
func TestEngineThatNeverShowedMetricsIsNotStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newGauge("e")
		b := server("a", 4, e)
		b.EngineMayLack = true
		f := newFleet(t, Config{Backends: []BackendConfig{b}, Pools: []PoolConfig{{Model: "m", Backends: []string{"a"}}}})
		e.err = errors.New("404")
		e.feed.Poll(t.Context())
		time.Sleep(time.Minute)
		if l := f.Pool("m").Load(time.Now()); l.Stale || f.Status()[0].Telemetry != "" {
			t.Errorf("a server without metrics: %+v, %q", l, f.Status()[0].Telemetry)
		}
		e.err = nil
		e.engine(3, 1, 0.5)
		if l := f.Pool("m").Load(time.Now()); l.Stale || l.Running != 3 {
			t.Errorf("it shows some: %+v", l)
		}
		e.err = errors.New("connection refused")
		e.feed.Poll(t.Context())
		time.Sleep(time.Minute)
		if l := f.Pool("m").Load(time.Now()); !l.Stale || f.Status()[0].Telemetry == "" {
			t.Errorf("they are gone: %+v", l)
		}
	})
}

func TestLoadJoinsCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ea, eb := newGauge("a"), newGauge("b")
		f := newFleet(t, Config{
			Backends: []BackendConfig{server("a", 4, ea), server("b", 4, eb), server("c", 2, nil)},
			Pools:    []PoolConfig{{Model: "m", Backends: []string{"a", "b", "c"}, QueueLimit: 9}},
		})
		p := f.Pool("m")
		time.Sleep(time.Second)
		wantLoad(t, "before the first reading", p.Load(time.Now()), pricing.Load{Capacity: 10, KV: none, SM: none, Utilization: none, Energy: none, Stale: true, Age: time.Second})

		// Other gateways have requests at a. Nothing is known of b's cache.
		ea.engine(3, 5, 0.25)
		eb.engine(0, 0, none)
		time.Sleep(2 * time.Second)
		wantLoad(t, "others' requests", p.Load(time.Now()), pricing.Load{Running: 3, Waiting: 5, Capacity: 10, KV: 0.25, SM: none, Utilization: none, Energy: none, Age: 2 * time.Second})

		// All slots are taken, and one request waits in the gateway. The engine of a reports that it
		// has begun only 3 of this gateway's requests. The reading of b is older than b's requests.
		for range 10 {
			mustLease(t, p)
		}
		waitInQueue(t, p)
		ea.engine(3, 1, 0.5)
		wantLoad(t, "full", p.Load(time.Now()), pricing.Load{Running: 9, Waiting: 2, Queued: 1, Capacity: 10, InFlight: 10, KV: 0.5, SM: none, Utilization: none, Energy: none})
		wantLoad(t, "backend a", f.backend("a").Load(time.Now()), pricing.Load{Running: 3, Waiting: 1, Capacity: 4, InFlight: 4, KV: 0.5, SM: none, Utilization: none, Energy: none})

		// A stale reading is not used, so only the gateway's own count remains.
		time.Sleep(DefaultStaleAfter + time.Second)
		wantLoad(t, "stale", p.Load(time.Now()), pricing.Load{Running: 10, Waiting: 1, Queued: 1, Capacity: 10, InFlight: 10, KV: none, SM: none, Utilization: none, Energy: none, Stale: true, Age: DefaultStaleAfter + time.Second})

		f.backend("a").checked(errors.New("down"))
		eb.engine(2, 0, 0.75)
		wantLoad(t, "a is down", p.Load(time.Now()), pricing.Load{Running: 6, Waiting: 1, Queued: 1, Capacity: 6, InFlight: 6, KV: 0.75, SM: none, Utilization: none, Energy: none})
		f.backend("b").checked(errors.New("down"))
		f.backend("c").checked(errors.New("down"))
		if l := p.Load(time.Now()); l.Capacity != 0 || l.InFlight != 10 {
			t.Errorf("all down: %+v", l)
		}
	})
}

func TestLoadOfGPUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newGauge("node")
		shared := GPU{node.feed, "GPU-b"}
		f := newFleet(t, Config{
			Backends: []BackendConfig{server("a", 4, nil, GPU{node.feed, "0"}, shared), server("b", 4, nil, shared), server("c", 1, nil, GPU{node.feed, "GPU-b"}, GPU{node.feed, "1"})},
			Pools:    []PoolConfig{{Model: "m", Backends: []string{"a", "b"}}, {Model: "n", Backends: []string{"c"}}},
		})
		a, b := device("GPU-a", 0, 0.2), device("GPU-b", 1, 0.6)
		a.SM = 0.1
		node.reading(a, b)
		// GPU-b serves both backends and counts once.
		wantLoad(t, "pool m", f.Pool("m").Load(time.Now()), pricing.Load{Capacity: 8, KV: none, SM: 0.1, Utilization: 0.4, Energy: none})
		wantLoad(t, "pool n, one GPU under two names", f.Pool("n").Load(time.Now()), pricing.Load{Capacity: 1, KV: none, SM: none, Utilization: 0.6, Energy: none})
		node.reading(b)
		wantLoad(t, "a GPU is lost", f.Pool("m").Load(time.Now()), pricing.Load{Capacity: 8, KV: none, SM: none, Utilization: 0.6, Energy: none})

		st := f.Status()[0]
		if len(st.GPUs) != 2 || st.GPUs[0].Fresh || st.GPUs[0].Device != nil || !st.GPUs[1].Fresh || st.GPUs[1].Device.UUID != "GPU-b" {
			t.Errorf("status is %+v", st.GPUs)
		}
		node.err = errors.New("driver is gone")
		node.feed.Poll(t.Context())
		text, err := json.Marshal(f.Status())
		if err != nil || !strings.Contains(string(text), "driver is gone") {
			t.Errorf("status is %s, %v", text, err)
		}
		if _, err := json.Marshal(f.Pools()); err != nil {
			t.Error(err)
		}
	})
}

// A GPU's energy is shared out among the pools on it in proportion to their requests.
func TestEnergyIsSharedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newGauge("node")
		f := newFleet(t, Config{
			Backends: []BackendConfig{server("a", 4, nil, GPU{node.feed, "0"}), server("b", 4, nil, GPU{node.feed, "0"})},
			Pools:    []PoolConfig{{Model: "m", Backends: []string{"a"}}, {Model: "n", Backends: []string{"b"}}},
		})
		counter := 5e6
		consume := func(joules float64) {
			time.Sleep(time.Second)
			counter += joules
			d := device("GPU-a", 0, 0.5)
			d.Energy = counter
			node.reading(d)
		}
		want := func(what string, m, n float64) {
			t.Helper()
			now := time.Now()
			if em, en := f.Pool("m").Load(now).Energy, f.Pool("n").Load(now).Energy; !same(em, m) || !same(en, n) {
				t.Errorf("%s: energy is %v and %v, want %v and %v", what, em, en, m, n)
			}
		}
		want("nothing read", none, none)
		consume(0)
		want("the counter before our time", 0, 0)
		consume(100)
		want("idle", 50, 50)
		l := mustLease(t, f.Pool("m"))
		mustLease(t, f.Pool("m"))
		mustLease(t, f.Pool("m"))
		mustLease(t, f.Pool("n"))
		consume(400)
		want("three to one", 350, 150)
		l.Done(Result{Status: 200})
		counter = 0
		consume(10) // a driver reload
		want("a new counter", 350, 150)
		node.reading() // the GPU is lost
		want("lost", 350, 150)
		consume(300)
		want("found again", 550, 250)
	})
}

func TestGPUsNeedNames(t *testing.T) {
	feed := newGauge("x").feed
	for _, g := range []GPU{{nil, "0"}, {feed, ""}} {
		if _, err := NewFleet(Config{Backends: []BackendConfig{server("a", 1, nil, g)}}); err == nil {
			t.Errorf("%+v was taken", g)
		}
	}
}
