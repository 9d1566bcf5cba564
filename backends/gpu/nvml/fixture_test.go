//go:build cgo && linux

package nvml

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
	"sluice.example/sluice/backends/gpu/telemetry"
)

// childEnv is the environment variable that names the library for a child process of the test. The test
// needs children, because a process can load only one library.
const childEnv = "SLUICE_TEST_NVML_LIBRARY"

// built is the library that this process loads. It is built once.
var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(child(path))
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// child samples twice and prints the second reading as JSON.
func child(path string) int {
	now := time.Unix(1e9, 0)
	s, err := Open(Config{Library: path, Clock: func() time.Time { return now }})
	if err != nil {
		fmt.Println(err)
		return 3
	}
	var r telemetry.Reading
	for range 2 {
		if r, err = s.Sample(context.Background()); err != nil {
			fmt.Println(err)
			return 4
		}
		now = now.Add(time.Second)
	}
	s.Close()
	json.NewEncoder(os.Stdout).Encode(r.Devices)
	return 0
}

func stubLibrary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "nvml"); built.err == nil {
			built.path, built.err = stub.Build(context.Background(), built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// machine is a machine with stub GPUs, and a sampler that reads it.
type machine struct {
	t     testing.TB
	file  string
	state stub.State
	now   time.Time
	log   bytes.Buffer
	*Sampler
}

func newMachine(t testing.TB, state stub.State) *machine {
	t.Helper()
	m := &machine{t: t, file: filepath.Join(t.TempDir(), "gpus"), now: time.Unix(1e9, 0)}
	m.set(state)
	t.Setenv(stub.Env, m.file)
	sampler, err := Open(Config{Library: stubLibrary(t), Clock: func() time.Time { return m.now },
		Log: slog.New(slog.NewTextHandler(&m.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sampler.Close)
	m.Sampler = sampler
	return m
}

func (m *machine) set(state stub.State) {
	m.t.Helper()
	m.state = state
	if err := state.Write(m.file); err != nil {
		m.t.Fatal(err)
	}
}

// change lets edit change the machine.
func (m *machine) change(edit func(*stub.State)) {
	m.t.Helper()
	edit(&m.state)
	m.set(m.state)
}

// sample moves the clock by d and samples.
func (m *machine) sample(d time.Duration) []telemetry.Device {
	m.t.Helper()
	m.now = m.now.Add(d)
	r, err := m.Sample(context.Background())
	if err != nil {
		m.t.Fatalf("sample: %v", err)
	}
	return r.Devices
}

// fails moves the clock by d, samples, and expects an error that contains text.
func (m *machine) fails(d time.Duration, text string) {
	m.t.Helper()
	m.now = m.now.Add(d)
	r, err := m.Sample(context.Background())
	if err == nil || !strings.Contains(err.Error(), text) || len(r.Devices) > 0 {
		m.t.Fatalf("sample: %v, %v; want an error with %q", r, err, text)
	}
}

// said counts the lines of the log that contain text.
func (m *machine) said(text string) int {
	return strings.Count(m.log.String(), text)
}

// hopper is a GPU that works at some load and reports every value.
func hopper(uuid string) stub.GPU {
	return stub.GPU{Device: stub.Device{UUID: uuid, Name: "NVIDIA H100 80GB HBM3", Processes: map[int]int64{4711: 1 << 30, 4712: 2 << 30},
		Values: stub.Values{
			"utilization": 87, "memory_utilization": 40, "memory_total": int64(80) << 30, "memory_used": int64(60) << 30,
			"power": 512_345, "power_limit": 700_000, "temperature": 61, "throttle": "0x5", "energy": 123_456_789,
			"sm": 62.5, "occupancy": 25, "tensor": 31.25, "dram": 50,
		}}}
}

func uuids(devices []telemetry.Device) string {
	var list []string
	for _, d := range devices {
		list = append(list, d.UUID)
	}
	return strings.Join(list, " ")
}
