package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type sampleFunc func(ctx context.Context) (Reading, error)

func (f sampleFunc) Sample(ctx context.Context) (Reading, error) { return f(ctx) }

func fixed(r Reading) Sampler {
	return sampleFunc(func(context.Context) (Reading, error) { return r, nil })
}

// believable fails if the snapshot holds a value that must not affect a price.
func believable(t *testing.T, s *Snapshot) {
	t.Helper()
	within := func(name string, v, most float64) {
		if !math.IsNaN(v) && (v < 0 || v > most) {
			t.Errorf("%s is %v", name, v)
		}
	}
	if e := s.Engine; e != nil {
		within("running", e.Running, maxRequests)
		within("waiting", e.Waiting, maxRequests)
		within("kv", e.KV, 1)
	}
	for i := range s.Devices {
		d := &s.Devices[i]
		for name, v := range map[string]float64{"utilization": d.Utilization, "memory": d.MemoryUtilization, "sm": d.SM,
			"occupancy": d.Occupancy, "tensor": d.Tensor, "dram": d.DRAM} {
			within(name, v, 1)
		}
		within("power", d.Power, maxPower)
		within("limit", d.PowerLimit, maxPower)
		within("temperature", d.Temperature, maxTemperature)
		within("energy", d.Energy, maxEnergy)
		if d.MemoryUsed < -1 || d.MemoryTotal < -1 || d.MemoryTotal >= 0 && d.MemoryUsed > d.MemoryTotal {
			t.Errorf("memory is %d of %d", d.MemoryUsed, d.MemoryTotal)
		}
		if _, ok := s.Device(d.UUID); !ok {
			t.Errorf("%q is not found", d.UUID)
		}
		if _, err := json.Marshal(d); err != nil {
			t.Error(err)
		}
	}
}

// scripted is a sampler whose next reading the test writes.
type scripted struct {
	Reading
	err error
}

func (s *scripted) Sample(context.Context) (Reading, error) { return s.Reading, s.err }

type clock struct{ now time.Time }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

func newScripted(t *testing.T) (*Feed, *scripted, *clock, *bytes.Buffer) {
	t.Helper()
	s, c, log := &scripted{}, &clock{time.Unix(1e9, 0)}, &bytes.Buffer{}
	f := NewFeed(FeedConfig{Name: "test", Sampler: s, Clock: func() time.Time { return c.now }, Log: slog.New(slog.NewTextHandler(log, nil))})
	return f, s, c, log
}

func gpu(uuid string, change func(d *Device)) Device {
	d := NewDevice(uuid)
	if change != nil {
		change(&d)
	}
	return d
}

func TestAbsurdReadings(t *testing.T) {
	inf := math.Inf(1)
	for field, change := range map[string]func(d *Device, e *Engine){
		"utilization":        func(d *Device, _ *Engine) { d.Utilization = 1.5 },
		"memory_utilization": func(d *Device, _ *Engine) { d.MemoryUtilization = -0.1 },
		"sm":                 func(d *Device, _ *Engine) { d.SM = inf },
		"occupancy":          func(d *Device, _ *Engine) { d.Occupancy = math.Inf(-1) },
		"tensor":             func(d *Device, _ *Engine) { d.Tensor = 100 },
		"dram":               func(d *Device, _ *Engine) { d.DRAM = 2 },
		"power":              func(d *Device, _ *Engine) { d.PowerLimit, d.Power = 300, 3001 },
		"power_limit":        func(d *Device, _ *Engine) { d.PowerLimit = 25e3 },
		"temperature":        func(d *Device, _ *Engine) { d.Temperature = 201 },
		"energy":             func(d *Device, _ *Engine) { d.Energy = -4 },
		"memory_used":        func(d *Device, _ *Engine) { d.MemoryTotal, d.MemoryUsed = 80<<30, 81<<30 },
		"memory_total":       func(d *Device, _ *Engine) { d.MemoryTotal = -2 },
		"running":            func(_ *Device, e *Engine) { e.Running = 1e9 },
		"waiting":            func(_ *Device, e *Engine) { e.Waiting = -1 },
		"kv_cache":           func(_ *Device, e *Engine) { e.KV = 1.2 },
		"uuid":               func(d *Device, _ *Engine) { d.UUID = "" },
	} {
		t.Run(field, func(t *testing.T) {
			f, s, _, log := newScripted(t)
			d, e := NewDevice("GPU-a"), Engine{"vllm", 1, 2, 0.5}
			change(&d, &e)
			s.Reading = Reading{Devices: []Device{d, NewDevice("GPU-b")}, Engine: &e}
			f.Poll(t.Context())
			f.Poll(t.Context())
			believable(t, f.Latest())
			if st := f.Stats(); st.Refused[field] != 2 || len(st.Refused) != 1 || st.Samples != 2 {
				t.Errorf("counted %+v", st)
			}
			if n := strings.Count(log.String(), "cannot be true"); n != 1 {
				t.Errorf("logged %d times:\n%s", n, log)
			}
			if _, ok := f.Latest().Device("GPU-b"); !ok {
				t.Error("the other GPU is lost")
			}
		})
	}
}

// Hardware counters are rounded, so a little over 1 counts as 1.
func TestRounding(t *testing.T) {
	f, s, _, _ := newScripted(t)
	s.Devices = []Device{gpu("a", func(d *Device) { d.SM = 1.0004 })}
	f.Poll(t.Context())
	if d, _ := f.Latest().Device("a"); d.SM != 1 || len(f.Stats().Refused) != 0 {
		t.Errorf("sm is %v, refused %v", d.SM, f.Stats().Refused)
	}
}

func TestFindingDevices(t *testing.T) {
	f, s, _, _ := newScripted(t)
	if _, ok := f.Latest().Device("0"); ok || f.Latest().Fresh(time.Now(), time.Hour) {
		t.Error("something is known before the first sample")
	}
	mig := gpu("MIG-1", func(d *Device) { d.Index, d.MIG, d.Parent = 0, true, "GPU-a" })
	s.Devices = []Device{gpu("GPU-a", func(d *Device) { d.Index = 0 }), mig, gpu("GPU-b", func(d *Device) { d.Index = 1 })}
	f.Poll(t.Context())
	old := f.Latest()
	for ref, want := range map[string]string{"0": "GPU-a", "1": "GPU-b", "MIG-1": "MIG-1", "GPU-b": "GPU-b"} {
		if d, ok := old.Device(ref); !ok || d.UUID != want {
			t.Errorf("%s is %+v", ref, d)
		}
	}
	// GPU-a is lost, and the driver numbers the GPUs anew.
	s.Devices = []Device{gpu("GPU-b", func(d *Device) { d.Index = 0 })}
	f.Poll(t.Context())
	f.Poll(t.Context())
	if d, ok := f.Latest().Device("0"); !ok || d.UUID != "GPU-b" {
		t.Errorf("0 is %+v", d)
	}
	if _, ok := f.Latest().Device("GPU-a"); ok || f.Stats().Vanished != 2 {
		t.Errorf("vanished devices: %+v", f.Stats())
	}
	if d, ok := old.Device("0"); !ok || d.UUID != "GPU-a" {
		t.Error("an older snapshot has changed")
	}
	// Two hosts are behind one page, so an index does not identify a device.
	s.Devices = []Device{gpu("GPU-a", func(d *Device) { d.Index, d.Labels = 0, map[string]string{"Hostname": "x"} }),
		gpu("GPU-b", func(d *Device) { d.Index, d.Labels = 0, map[string]string{"Hostname": "y"} })}
	f.Poll(t.Context())
	if d, ok := f.Latest().Device("0"); ok {
		t.Errorf("0 is %+v", d)
	}
	if d, ok := f.Latest().Device("Hostname=y"); !ok || d.UUID != "GPU-b" {
		t.Errorf("Hostname=y is %+v", d)
	}
}

func TestFailuresAge(t *testing.T) {
	f, s, c, log := newScripted(t)
	s.Engine = &Engine{"vllm", 1, 0, 0.1}
	f.Poll(t.Context())
	at := c.now
	s.err = errors.New("connection refused")
	for range 3 {
		c.pass(time.Second)
		f.Poll(t.Context())
	}
	l := f.Latest()
	if !l.At.Equal(at) || l.Err == nil || l.Engine.Running != 1 || l.Fresh(c.now, 2*time.Second) || !l.Fresh(c.now, 3*time.Second) {
		t.Errorf("after failures: %+v", l)
	}
	s.err = nil
	f.Poll(t.Context())
	if l := f.Latest(); l.Err != nil || !l.At.Equal(c.now) || f.Stats().Failures != 3 {
		t.Errorf("after it came back: %+v, %+v", l, f.Stats())
	}
	if text := log.String(); strings.Count(text, "telemetry fails") != 1 || strings.Count(text, "works again") != 1 {
		t.Errorf("logged:\n%s", text)
	}
}

// The feed does not call a sampler again while it hangs in the driver, and does not use what the
// hanging call returns.
func TestHangingSampler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		release := make(chan struct{})
		f := NewFeed(FeedConfig{Name: "hangs", Every: time.Second, Timeout: 500 * time.Millisecond,
			Sampler: sampleFunc(func(context.Context) (Reading, error) {
				n := float64(calls.Add(1))
				if n == 3 {
					<-release
				}
				return Reading{Engine: &Engine{"x", n, 0, 0}}, nil
			})})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { f.Run(ctx); close(done) }()
		f2 := make(chan struct{})
		go func() { synctest.Wait(); f.Run(ctx); close(f2) }() // a second Run does nothing
		time.Sleep(10*time.Second + 100*time.Millisecond)
		synctest.Wait()
		<-f2
		if l := f.Latest(); calls.Load() != 3 || l.Engine.Running != 2 || !errors.Is(l.Err, ErrTimeout) || l.Fresh(time.Now(), 9*time.Second) {
			t.Errorf("%d calls, %+v", calls.Load(), l)
		}
		if st := f.Stats(); st.Timeouts != 9 || st.Samples != 2 {
			t.Errorf("counted %+v", st)
		}
		close(release)
		time.Sleep(time.Second)
		synctest.Wait()
		if l := f.Latest(); l.Engine.Running != 4 || l.Err != nil {
			t.Errorf("after it came back: %+v", l.Engine)
		}
		cancel()
		<-done
	})
}

func TestJSONLeavesOutWhatIsNotReported(t *testing.T) {
	text, err := json.Marshal(gpu("GPU-a", func(d *Device) { d.Index, d.Utilization = 0, 0 }))
	if err != nil || string(text) != `{"uuid":"GPU-a","index":0,"utilization":0}` {
		t.Errorf("%s, %v", text, err)
	}
}

func BenchmarkLatest(b *testing.B) {
	f := NewFeed(FeedConfig{Name: "x", Sampler: fixed(Reading{Devices: eight()})})
	f.Poll(b.Context())
	now := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s := f.Latest()
			if d, ok := s.Device("GPU-h"); !ok || d.Utilization != 0.5 || !s.Fresh(now, time.Hour) {
				b.Error("not read")
			}
		}
	})
}

func eight() []Device {
	var list []Device
	for i := range 8 {
		list = append(list, gpu("GPU-"+string(rune('a'+i)), func(d *Device) { d.Index, d.Utilization, d.Energy = i, 0.5, 1e6 }))
	}
	return list
}

// BenchmarkPoll measures what the feed itself adds to a sample of 8 GPUs.
func BenchmarkPoll(b *testing.B) {
	f := NewFeed(FeedConfig{Name: "x", Sampler: fixed(Reading{Devices: eight()})})
	b.ReportAllocs()
	for b.Loop() {
		f.Poll(b.Context())
	}
}

func BenchmarkPage(b *testing.B) {
	s := NewExporterSampler(serve(b, nil), nil)
	text := bytes.Repeat(page(b, "dcgm.txt"), 4)
	b.ReportAllocs()
	for b.Loop() {
		found, err := parsePage(text, s.wanted)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.read(found); err != nil {
			b.Fatal(err)
		}
	}
}
