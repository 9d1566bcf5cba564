//go:build cgo && linux

package nvml

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
	"sluice.example/sluice/backends/gpu/telemetry"
)

// asJSON returns v as JSON, without values that are not reported.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	hopperWithoutGPM = `"name":"NVIDIA H100 80GB HBM3","index":0,"utilization":0.87,"memory_utilization":0.4,` +
		`"memory_used_bytes":64424509440,"memory_total_bytes":85899345920,"power_watts":512.345,"power_limit_watts":700,` +
		`"temperature_celsius":61,"energy_joules":123456.789,"throttle":["sw_power_cap"],` +
		`"processes":[{"pid":4711,"memory_bytes":1073741824},{"pid":4712,"memory_bytes":2147483648}]}`
	hopperGPM = `"sm_utilization":0.625,"sm_occupancy":0.25,"tensor_active":0.3125,"dram_active":0.5,`
)

func TestReadsAGPU(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a")}})
	want := `[{"uuid":"GPU-a",` + hopperWithoutGPM + `]`
	if got := asJSON(t, m.sample(0)); got != want {
		t.Errorf("first sample, without GPM for that takes two:\n%s\nwant\n%s", got, want)
	}
	want = strings.Replace(want, `"memory_used`, hopperGPM+`"memory_used`, 1)
	if got := asJSON(t, m.sample(time.Second)); got != want {
		t.Errorf("second sample:\n%s\nwant\n%s", got, want)
	}
	m.change(func(s *stub.State) { s.GPUs[0].Values["sm"], s.GPUs[0].Values["utilization"] = 10, 11 })
	if d := m.sample(gpmApart - 1)[0]; d.SM != 0.625 || d.Utilization != 0.11 {
		t.Errorf("samples closer than GPM allows: SM %v, utilization %v", d.SM, d.Utilization)
	}
	if d := m.sample(1)[0]; d.SM != 0.1 {
		t.Errorf("the next GPM sample: %v", d.SM)
	}
}

func TestReadsEveryGPUInOrder(t *testing.T) {
	second := hopper("GPU-b")
	second.Values = stub.Values{"utilization": 5, "memory_utilization": 1}
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a"), second}})
	devices := m.sample(0)
	if uuids(devices) != "GPU-a GPU-b" || devices[1].Index != 1 || devices[1].Labels["gpu"] != "1" {
		t.Fatalf("devices %+v", devices)
	}
	d := devices[1]
	if d.Utilization != 0.05 || !math.IsNaN(d.Power) || !math.IsNaN(d.Energy) || !math.IsNaN(d.PowerLimit) || d.MemoryTotal != -1 {
		t.Errorf("a GPU that supports little: %+v", d)
	}
}

func TestWithoutGPM(t *testing.T) {
	older := hopper("GPU-a")
	older.NoGPM = true
	m := newMachine(t, stub.State{GPUs: []stub.GPU{older}})
	for range 3 {
		if d := m.sample(time.Second)[0]; !math.IsNaN(d.SM) || d.Utilization != 0.87 {
			t.Fatalf("SM %v, utilization %v", d.SM, d.Utilization)
		}
	}
}

func migGPU() stub.GPU {
	g := stub.GPU{Device: stub.Device{UUID: "GPU-m", Name: "NVIDIA H100 80GB HBM3",
		Values: stub.Values{"power": 300_000, "power_limit": 700_000, "energy": 5000, "memory_total": 80000, "memory_used": 30000, "temperature": 50}}}
	g.Instances = []stub.Instance{
		{ID: 7, Device: stub.Device{UUID: "MIG-x", Name: "NVIDIA H100 MIG 1g.10gb", Processes: map[int]int64{12: 34},
			Values: stub.Values{"memory_total": 10000, "memory_used": 1000, "sm": 75, "dram": 12.5, "power": 1}}},
		{ID: 9, Device: stub.Device{UUID: "MIG-y", Values: stub.Values{"memory_total": 10000, "memory_used": 2000, "sm": 5}}},
	}
	return g
}

func TestMIG(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a"), migGPU()}})
	m.sample(0)
	devices := m.sample(time.Second)
	if uuids(devices) != "GPU-a GPU-m MIG-x MIG-y" {
		t.Fatalf("devices %s", uuids(devices))
	}
	if d := devices[1]; d.MIG || !math.IsNaN(d.Utilization) || d.Power != 300 || d.Energy != 5 {
		t.Errorf("the GPU: %+v", d)
	}
	want := `{"uuid":"MIG-x","name":"NVIDIA H100 MIG 1g.10gb","index":1,"mig":true,"parent":"GPU-m","sm_utilization":0.75,"dram_active":0.125,` +
		`"memory_used_bytes":1000,"memory_total_bytes":10000,"processes":[{"pid":12,"memory_bytes":34}]}`
	if got := asJSON(t, devices[2]); got != want {
		t.Errorf("an instance:\n%s\nwant\n%s", got, want)
	}
	if l := devices[3].Labels; l["gpu"] != "1" || l["GPU_I_ID"] != "9" {
		t.Errorf("labels %v", l)
	}
	if devices[3].SM != 0.05 {
		t.Errorf("SM of the other instance: %v", devices[3].SM)
	}
}

func TestAnInstanceOfWhichOnlyGPMIsKnownStays(t *testing.T) {
	g := migGPU()
	g.Instances = []stub.Instance{{ID: 7, Device: stub.Device{UUID: "MIG-x", Values: stub.Values{"sm": 75}}}}
	m := newMachine(t, stub.State{GPUs: []stub.GPU{g}})
	for _, apart := range []time.Duration{0, time.Second, gpmApart - 1} {
		if got := uuids(m.sample(apart)); got != "GPU-m MIG-x" {
			t.Errorf("%v after the last sample: %s", apart, got)
		}
	}
}

func TestMIGInstancesComeAndGo(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{migGPU()}})
	m.sample(0)
	m.change(func(s *stub.State) { s.GPUs[0].Instances = s.GPUs[0].Instances[:1] })
	if got := uuids(m.sample(time.Second)); got != "GPU-m MIG-x" {
		t.Errorf("after one was removed: %s", got)
	}
	m.change(func(s *stub.State) { s.GPUs[0].Instances = migGPU().Instances })
	m.sample(0)
	if got := uuids(m.sample(listEvery)); got != "GPU-m MIG-x MIG-y" {
		t.Errorf("after one was made: %s", got)
	}
	m.change(func(s *stub.State) { s.GPUs[0].Instances = nil })
	m.sample(time.Second)
	if got := uuids(m.sample(time.Second)); got != "GPU-m" {
		t.Errorf("after MIG was turned off: %s", got)
	}
	if m.said("lost") != 0 {
		t.Errorf("the log speaks of a loss:\n%s", &m.log)
	}
}

func TestAGPUIsLostBetweenTwoSamples(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a"), hopper("GPU-b")}})
	m.sample(0)
	m.change(func(s *stub.State) { s.GPUs[0].Lost = true })
	if devices := m.sample(time.Second); uuids(devices) != "GPU-b" || devices[0].Index != 1 || devices[0].SM != 0.625 {
		t.Fatalf("after the loss: %+v", devices)
	}
	for range 100 { // the library is opened again and again, and the other GPU is still read
		if got := uuids(m.sample(time.Second)); got != "GPU-b" {
			t.Fatalf("while lost: %s", got)
		}
	}
	m.change(func(s *stub.State) { s.GPUs[0].Lost = false })
	if got := uuids(m.sample(retryMost)); got != "GPU-a GPU-b" {
		t.Errorf("after the reset: %s", got)
	}
	if m.said("a GPU is lost") != 1 || m.said("a GPU is back") != 1 || m.said("cannot be read") != 0 {
		t.Errorf("the log:\n%s", &m.log)
	}
}

func TestALossThatAListingFinds(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a"), hopper("GPU-b")}})
	m.sample(0)
	m.change(func(s *stub.State) { s.GPUs[0].Lost = true })
	if got := uuids(m.sample(listEvery)); got != "GPU-b" || m.said("a GPU is lost") != 1 {
		t.Errorf("listed %s; the log:\n%s", got, &m.log)
	}
	m.change(func(s *stub.State) { s.GPUs[0].Lost = false })
	if got := uuids(m.sample(retryMost)); got != "GPU-a GPU-b" || m.said("a GPU is back") != 1 || m.said("a GPU is lost") != 1 {
		t.Errorf("afterwards %s; the log:\n%s", got, &m.log)
	}
}

func TestEveryGPUIsLost(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a")}})
	m.change(func(s *stub.State) { s.GPUs[0].Lost = true })
	m.fails(time.Second, "none of 1 answers")
	m.fails(retryBase, "none of 1 answers")
	m.change(func(s *stub.State) { s.GPUs[0].Lost = false })
	m.sample(retryMost)
	// After a later loss the sampler soon tries again.
	m.change(func(s *stub.State) { s.GPUs[0].Lost = true })
	m.fails(0, "none of 1 answers")
	m.change(func(s *stub.State) { s.GPUs[0].Lost = false })
	m.sample(retryBase)
}

func TestAGPUThatAnswersNothing(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a"), hopper("GPU-b")}})
	m.change(func(s *stub.State) {
		for key := range s.GPUs[0].Values {
			s.GPUs[0].Values[key] = stub.Failure(999)
		}
		s.GPUs[0].NoGPM = true
	})
	if got := uuids(m.sample(time.Second)); got != "GPU-b" {
		t.Errorf("devices %s", got)
	}
}

func TestDriverReload(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a")}})
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "nvml", Sampler: m.Sampler, Clock: func() time.Time { return m.now }})
	poll := func(d time.Duration) *telemetry.Snapshot {
		m.now = m.now.Add(d)
		feed.Poll(context.Background())
		return feed.Latest()
	}
	before := poll(0)
	m.change(func(s *stub.State) { s.Library = 1 })
	if s := poll(time.Second); s.Err == nil || s.At != before.At || !strings.Contains(s.Err.Error(), "was the driver reloaded?") {
		t.Fatalf("the driver goes away: %v", s.Err)
	}
	m.change(func(s *stub.State) { s.Library, s.Init = 0, 9 })
	for range 30 {
		if s := poll(time.Second); s.Err == nil || s.At != before.At {
			t.Fatalf("no driver: %+v", s)
		}
	}
	m.change(func(s *stub.State) { s.Init, s.GPUs[0].Values["energy"] = 0, 1000 })
	s := poll(retryMost)
	if s.Err != nil || s.At != m.now || s.Devices[0].Energy != 1 || !math.IsNaN(s.Devices[0].SM) {
		t.Fatalf("the driver is back: %v, %+v", s.Err, s.Devices)
	}
	if s := poll(time.Second); s.Devices[0].SM != 0.625 {
		t.Errorf("GPM of the new driver: %v", s.Devices[0].SM)
	}
	if st := feed.Stats(); st.Resets != 1 || st.Failures != 31 {
		t.Errorf("stats %+v", st)
	}
	if m.said("cannot be read") != 1 || m.said("can be read again") != 1 {
		t.Errorf("the log:\n%s", &m.log)
	}
}

func TestAnotherDriverVersion(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a")}})
	m.change(func(s *stub.State) { s.Library, s.Init = 18, 18 })
	m.fails(time.Second, "restart this process")
	m.fails(time.Second, "restart this process")
}

// Between two attempts the sampler calls no function, so the stub's counts do not change.
func TestBackOff(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a")}})
	m.change(func(s *stub.State) { s.Library = 1 })
	m.fails(0, "reloaded")
	m.change(func(s *stub.State) { s.Library = 0 })
	m.fails(retryBase-1, "reloaded") // all is well again, but the sampler has not tried yet
	m.sample(1)
	m.change(func(s *stub.State) { s.Library = 1 })
	m.fails(0, "reloaded")
	for range 10 {
		m.fails(retryMost, "NVML code 1")
	}
	m.change(func(s *stub.State) { s.Library = 0 })
	m.fails(retryMost-1, "NVML code 1")
	m.sample(1)
}

func TestAbsurdReadingsAreForTheFeedToRefuse(t *testing.T) {
	g := hopper("GPU-a")
	for key, v := range (stub.Values{"utilization": uint32(math.MaxUint32), "memory_used": uint64(math.MaxUint64), "temperature": 4000,
		"power": uint32(math.MaxUint32), "sm": "inf", "occupancy": "nan", "tensor": -3, "dram": 1e6}) {
		g.Values[key] = v
	}
	m := newMachine(t, stub.State{GPUs: []stub.GPU{g}})
	m.sample(0)
	d := m.sample(time.Second)[0]
	if d.Utilization != math.MaxUint32/100. || d.MemoryUsed != math.MaxInt64 || d.Temperature != 4000 || d.Power != math.MaxUint32/1000. ||
		!math.IsInf(d.SM, 1) || !math.IsNaN(d.Occupancy) || d.Tensor != -0.03 || d.DRAM != 1e4 {
		t.Errorf("the reading is not what the library says: %+v", d)
	}
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "nvml", Sampler: m.Sampler, Clock: func() time.Time { return m.now }})
	m.now = m.now.Add(time.Second)
	feed.Poll(context.Background())
	want := `[{"uuid":"GPU-a","name":"NVIDIA H100 80GB HBM3","index":0,"memory_utilization":0.4,"memory_total_bytes":85899345920,` +
		`"power_limit_watts":700,"energy_joules":123456.789,"throttle":["sw_power_cap"],` +
		`"processes":[{"pid":4711,"memory_bytes":1073741824},{"pid":4712,"memory_bytes":2147483648}]}]`
	if got := asJSON(t, feed.Latest().Devices); got != want {
		t.Errorf("the snapshot:\n%s\nwant\n%s", got, want)
	}
	for _, field := range []string{"utilization", "memory_used", "temperature", "power", "sm", "tensor", "dram"} {
		if feed.Stats().Refused[field] != 1 {
			t.Errorf("%s was refused %d times", field, feed.Stats().Refused[field])
		}
	}
}

func TestACallHangs(t *testing.T) {
	m := newMachine(t, stub.State{GPUs: []stub.GPU{hopper("GPU-a"), hopper("GPU-b")}})
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "nvml", Sampler: m.Sampler, Timeout: time.Second, Clock: func() time.Time { return m.now }})
	feed.Poll(context.Background())
	at := feed.Latest().At
	m.change(func(s *stub.State) { s.Hang = "nvmlDeviceGetUtilizationRates" })
	m.now = m.now.Add(time.Second)
	for range 3 {
		feed.Poll(context.Background())
		if s := feed.Latest(); !errors.Is(s.Err, telemetry.ErrTimeout) || s.At != at {
			t.Fatalf("while it hangs: %v, %v", s.Err, s.At)
		}
	}
	m.Close() // Close does not wait for the call
	m.change(func(s *stub.State) { s.Hang = "" })
	for deadline := time.Now().Add(10 * time.Second); feed.Latest().Err != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the feed does not recover")
		}
		feed.Poll(context.Background())
	}
	if s := feed.Latest(); s.At == at || len(s.Devices) != 2 {
		t.Errorf("afterwards: %+v", s)
	}
}

func TestUnavailable(t *testing.T) {
	path := stubLibrary(t)
	file := filepath.Join(t.TempDir(), "gpus")
	t.Setenv(stub.Env, file)
	for name, state := range map[string]stub.State{
		"the driver is not loaded":       {Init: 9},
		"the driver knows no GPU":        {},
		"no permission":                  {Init: 4},
		"of another version":             {Init: 18},
		"the library is not initialized": {Library: 1},
	} {
		if err := state.Write(file); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Library: path}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(Config{Library: filepath.Join(t.TempDir(), "libnvidia-ml.so.1")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("no library: %v", err)
	}
	other, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	if err := os.WriteFile(copied, other, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Library: copied}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "another NVML library") {
		t.Errorf("a second library: %v", err)
	}
}
