package gpu

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
)

func wantGPU(t *testing.T, what string, l *Lease, want time.Duration) {
	t.Helper()
	got, ok := l.GPUTime(time.Now())
	if !ok || (got-want).Abs() > time.Microsecond {
		t.Errorf("%s: GPU time is %v, %v, want %v", what, got, ok, want)
	}
}

func TestGPUTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newGauge("node")
		f := newFleet(t, Config{
			Backends: []BackendConfig{server("one", 4, nil, GPU{node.feed, "0"}), server("both", 4, nil, GPU{node.feed, "0"}, GPU{node.feed, "GPU-b"}), server("blind", 1, nil)},
			Pools:    []PoolConfig{{Model: "m", Backends: []string{"one"}}, {Model: "n", Backends: []string{"both"}}, {Model: "o", Backends: []string{"blind"}}},
		})
		if _, ok := mustLease(t, f.Pool("o")).GPUTime(time.Now()); ok {
			t.Error("GPU time without a GPU")
		}
		early := mustLease(t, f.Pool("m"))
		if _, ok := early.GPUTime(time.Now()); ok {
			t.Error("GPU time before the first reading")
		}
		node.reading(device("GPU-a", 0, 0.5), device("GPU-b", 1, 1))
		wantGPU(t, "nothing has passed", early, 0)
		time.Sleep(2 * time.Second)
		wantGPU(t, "alone on one GPU", early, time.Second)
		late := mustLease(t, f.Pool("n")) // on GPU-a together with early, on GPU-b alone
		time.Sleep(2 * time.Second)
		wantGPU(t, "half of one GPU", early, 1500*time.Millisecond)
		wantGPU(t, "half of one GPU and all of the other", late, 2500*time.Millisecond)
		early.Done(Result{Status: 200})
		node.reading(device("GPU-a", 0, 1), device("GPU-b", 1, 0))
		time.Sleep(time.Second)
		wantGPU(t, "after its end", early, 1500*time.Millisecond)
		wantGPU(t, "alone", late, 3500*time.Millisecond)

		// The driver numbers the GPUs anew. Index 0 is now another GPU, which runs at a tenth. The
		// request's share continues from its former value.
		node.reading(device("GPU-c", 0, 0.1), device("GPU-b", 1, 0))
		time.Sleep(10 * time.Second)
		wantGPU(t, "on another GPU", late, 4500*time.Millisecond)
		another := mustLease(t, f.Pool("m"))
		time.Sleep(2 * time.Second)
		wantGPU(t, "beside another there", late, 4600*time.Millisecond)
		wantGPU(t, "beside the first there", another, 100*time.Millisecond)
		if len(f.dividers) != 2 {
			t.Errorf("%d dividers, want those of GPU-b and GPU-c", len(f.dividers))
		}

		// The feed stops. Its last utilization counts for 15 s, of which 12 s have passed. After that
		// nothing is known, and the time counts for no request's measured share.
		time.Sleep(time.Minute)
		if _, ok := late.GPUTime(time.Now()); ok {
			t.Error("GPU time from a stale reading")
		}
		node.reading(device("GPU-c", 0, 0.1), device("GPU-b", 1, 0))
		wantGPU(t, "seen again", late, 4750*time.Millisecond)
		node.reading(device("GPU-b", 1, 0))
		if _, ok := late.GPUTime(time.Now()); ok {
			t.Error("GPU time of a lost GPU")
		}
		node.reading(device("GPU-c", 0, none), device("GPU-b", 1, 0))
		if _, ok := late.GPUTime(time.Now()); ok {
			t.Error("GPU time without utilization")
		}
	})
}

// gpuModel is a GPU that works whenever it has requests, with pauses. It reports the mean utilization
// since the last report, as NVML does.
type gpuModel struct {
	uuid   string
	last   time.Time
	busy   float64 // seconds in all
	told   float64 // seconds of busy that were reported
	toldAt time.Time
	share  float64
}

func (g *gpuModel) pass(now time.Time) {
	g.busy += g.share * now.Sub(g.last).Seconds()
	g.last = now
}

// nodeModel is a machine with GPUs.
type nodeModel struct {
	mu   sync.Mutex
	gpus []*gpuModel
}

func (n *nodeModel) Sample(context.Context) (telemetry.Reading, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	var r telemetry.Reading
	for i, g := range n.gpus {
		g.pass(now)
		u := 0.0
		if d := now.Sub(g.toldAt).Seconds(); d > 0 {
			u = (g.busy - g.told) / d
		}
		g.told, g.toldAt = g.busy, now
		r.Devices = append(r.Devices, device(g.uuid, i, u))
	}
	return r, nil
}

// change lets the time until now pass, and then changes how much some GPUs work.
func (n *nodeModel) change(r *rand.Rand) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, g := range n.gpus {
		g.pass(time.Now())
		if r.IntN(4) == 0 {
			g.share = []float64{0, 1, r.Float64()}[r.IntN(3)]
		}
	}
}

// TestSharesAddUp checks the rule of GPU-seconds. Requests come and go on backends that share GPUs and
// on backends that span several GPUs. The GPU-seconds billed to all requests equal the busy time of the
// GPUs within 1 %.
func TestSharesAddUp(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) { sharesAddUp(t, rand.New(rand.NewPCG(seed, 4))) })
	}
}

func sharesAddUp(t *testing.T, r *rand.Rand) {
	start := time.Now()
	node := &nodeModel{}
	for _, uuid := range []string{"GPU-a", "GPU-b", "GPU-c"} {
		node.gpus = append(node.gpus, &gpuModel{uuid: uuid, last: start, toldAt: start})
	}
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "node", Sampler: node, Every: 200 * time.Millisecond})
	f := newFleet(t, Config{
		Backends: []BackendConfig{server("a", 8, nil, GPU{feed, "0"}), server("ab", 8, nil, GPU{feed, "GPU-a"}, GPU{feed, "1"}), server("c", 8, nil, GPU{feed, "2"})},
		Pools:    []PoolConfig{{Model: "m", Backends: []string{"a", "ab"}}, {Model: "n", Backends: []string{"ab", "c"}}},
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go feed.Run(ctx)
	synctest.Wait()
	// Every GPU has a request all the time, so that all busy time belongs to a request.
	leases := []*Lease{mustLease(t, f.Pool("m")), mustLease(t, f.Pool("m")), mustLease(t, f.Pool("n"))}
	base := leases
	var billed time.Duration
	end := func(l *Lease) {
		l.Done(Result{Status: 200})
		d, ok := l.GPUTime(time.Now())
		if !ok || d < 0 {
			t.Errorf("billed %v, %v", d, ok)
		}
		billed += d
	}
	for range 400 {
		node.change(r)
		if r.IntN(2) == 0 && len(leases) < 20 {
			if ticket, err := f.Pool([]string{"m", "n"}[r.IntN(2)]).Admit(Key{}); err == nil {
				l, err := ticket.Wait(ctx)
				if err != nil {
					t.Fatal(err)
				}
				leases = append(leases, l)
			}
		} else if i := r.IntN(len(leases)); i >= len(base) {
			end(leases[i])
			leases = append(leases[:i:i], leases[i+1:]...)
		}
		time.Sleep(time.Duration(r.ExpFloat64() * float64(300*time.Millisecond)))
	}
	for _, l := range leases {
		end(l)
	}
	stop()
	synctest.Wait()
	node.change(r)
	now, truth, counted := time.Now(), 0.0, 0.0
	for _, g := range node.gpus {
		truth += g.busy
		seen, _ := feed.Latest().Busy(g.uuid, now)
		counted += seen
	}
	if len(base) != 3 || truth < 10 {
		t.Fatalf("%v s of busy time are too few for a test", truth)
	}
	if off := math.Abs(billed.Seconds()-counted) / counted; off > 1e-6 {
		t.Errorf("billed %v, of %v s that were counted", billed, counted)
	}
	off := math.Abs(billed.Seconds()-truth) / truth
	t.Logf("%.1f s busy, %.4f %% off", truth, 100*off)
	if off > 0.01 {
		t.Errorf("billed %v, of %v s that the GPUs were busy: %.2f %% off", billed, truth, 100*off)
	}
	shared := 0.0
	for _, b := range f.Status() {
		for _, g := range b.GPUs {
			if b.Name != "a" { // the GPU of a is counted at ab already
				shared += g.Shared
			}
		}
	}
	if math.Abs(shared-billed.Seconds()) > 1e-3 {
		t.Errorf("the status says %v s were shared out, billed were %v", shared, billed)
	}
}
