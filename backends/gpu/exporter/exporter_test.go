package exporter

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
)

// samples is a sampler whose reading the test sets.
type samples struct {
	telemetry.Reading
	err error
}

func (s *samples) Sample(context.Context) (telemetry.Reading, error) { return s.Reading, s.err }

// exported is a feed behind an exporter, with a clock of its own.
type exported struct {
	t    *testing.T
	now  time.Time
	from samples
	feed *telemetry.Feed
	*httptest.Server
}

func export(t *testing.T, devices ...telemetry.Device) *exported {
	x := &exported{t: t, now: time.Unix(1e9, 0), from: samples{Reading: telemetry.Reading{Devices: devices}}}
	clock := func() time.Time { return x.now }
	x.feed = telemetry.NewFeed(telemetry.FeedConfig{Name: "nvml", Sampler: &x.from, Clock: clock})
	x.Server = httptest.NewServer(New(Config{Feed: x.feed, Host: "node-1", Clock: clock}))
	t.Cleanup(x.Close)
	return x
}

func (x *exported) poll(after time.Duration) {
	x.now = x.now.Add(after)
	x.feed.Poll(context.Background())
}

func (x *exported) get(path string) (int, string) {
	x.t.Helper()
	resp, err := http.Get(x.URL + path)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func gpu() telemetry.Device {
	d := telemetry.NewDevice("GPU-a")
	d.Index, d.Name = 0, "NVIDIA H100 80GB HBM3"
	d.Utilization, d.MemoryUtilization = 0.07, 0.4
	d.SM, d.Occupancy, d.Tensor, d.DRAM = 0.625, 0.25, 0.3125, 0.5
	d.MemoryUsed, d.MemoryTotal = 64424509440, 85899345920
	d.Power, d.PowerLimit, d.Temperature, d.Energy = 512.345, 700, 61, 123456.789
	d.CorrectedECC, d.UncorrectedECC, d.Xid = 3, 0, 79
	d.Throttle = []string{"sw_power_cap", "hw_thermal_slowdown"}
	d.Processes = []telemetry.Process{{PID: 1, Memory: 2}}
	return d
}

func instance() telemetry.Device {
	d := telemetry.NewDevice("MIG-x")
	d.Index, d.MIG, d.Parent, d.Name = 1, true, "GPU-m", "NVIDIA H100 MIG 1g.10gb"
	d.Labels = map[string]string{"gpu": "1", "GPU_I_ID": "7"}
	d.SM, d.MemoryUsed, d.MemoryTotal = 0.75, 1<<30, 10<<30
	return d
}

func TestPage(t *testing.T) {
	x := export(t, gpu(), instance())
	x.poll(0)
	x.from.Devices[0].Utilization = 1000 // refused, so the series of this value end
	x.poll(2 * time.Second)
	x.now = x.now.Add(time.Second)
	code, page := x.get("/metrics")
	if code != http.StatusOK {
		t.Fatalf("code %d: %s", code, page)
	}
	want, err := os.ReadFile("testdata/page.txt")
	if err != nil {
		t.Fatal(err)
	}
	if page != string(want) {
		t.Errorf("the page:\n%s\nwant\n%s", page, want)
	}
}

// The gateway's reader of exporters reads the values that the exporter serves.
func TestAGatewayReadsIt(t *testing.T) {
	x := export(t, gpu(), instance())
	x.poll(0)
	u, err := url.Parse(x.URL)
	if err != nil {
		t.Fatal(err)
	}
	r, err := telemetry.NewExporterSampler(u, x.Client()).Sample(t.Context())
	if err != nil || len(r.Devices) != 2 || len(r.Refused) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, want := range []telemetry.Device{gpu(), instance()} {
		got := r.Devices[i]
		if got.Labels["Hostname"] != "node-1" || got.Labels["UUID"] != want.UUID || got.Labels["GPU_I_ID"] != want.Labels["GPU_I_ID"] {
			t.Errorf("labels %v", got.Labels)
		}
		// The exporter does not serve these fields, or serves them in another form.
		got.Labels, want.Labels, got.Parent, want.Parent, want.Processes = nil, nil, "", "", nil
		for _, d := range []*telemetry.Device{&got, &want} {
			for _, v := range []*float64{&d.Utilization, &d.MemoryUtilization, &d.SM, &d.Occupancy, &d.Tensor, &d.DRAM, &d.Power, &d.PowerLimit, &d.Temperature, &d.Energy, &d.CorrectedECC, &d.UncorrectedECC, &d.Xid} {
				if math.IsNaN(*v) {
					*v = -1 // because NaN is not equal to itself
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("read\n%+v\nwant\n%+v", got, want)
		}
	}
}

func TestNothingStaleIsServed(t *testing.T) {
	x := export(t, gpu())
	if code, text := x.get("/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "nothing was read yet") {
		t.Errorf("before the first sample: %d %s", code, text)
	}
	x.poll(0)
	if code, _ := x.get("/healthz"); code != http.StatusOK {
		t.Errorf("after it: %d", code)
	}
	x.from.err = errors.New("the driver is gone")
	x.poll(DefaultStaleAfter)
	if _, page := x.get("/metrics"); !strings.Contains(page, "DCGM_FI_DEV_GPU_UTIL{") || !strings.Contains(page, "sluice_gpu_up 1") {
		t.Errorf("still fresh enough:\n%s", page)
	}
	x.poll(time.Nanosecond)
	_, page := x.get("/metrics")
	if strings.Contains(page, "UUID") || !strings.Contains(page, "sluice_gpu_up 0") || !strings.Contains(page, "sluice_gpu_sample_failures_total 2") {
		t.Errorf("too old:\n%s", page)
	}
	if code, text := x.get("/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "the driver is gone") {
		t.Errorf("too old: %d %s", code, text)
	}
	u, err := url.Parse(x.URL)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := telemetry.NewExporterSampler(u, x.Client()).Sample(t.Context()); err == nil {
		t.Errorf("a gateway reads %+v of it", r)
	}
}

func TestADriversNamesMayBeAnyBytes(t *testing.T) {
	d := gpu()
	d.Name = "NVIDIA \xff \"H\"\n"
	x := export(t, d)
	x.poll(0)
	if code, page := x.get("/metrics"); code != http.StatusOK || !strings.Contains(page, `modelName="NVIDIA � \"H\"\n"`) {
		t.Errorf("%d\n%s", code, page)
	}
}
