package telemetry

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func page(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// serve answers any path with the text, and returns the server's URL.
func serve(t testing.TB, text []byte) *url.URL {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(text)
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

func TestEnginePages(t *testing.T) {
	none := math.NaN()
	for file, want := range map[string]Engine{
		"vllm.txt":         {"vllm", 21, 3, 0.6328125},
		"vllm_old.txt":     {"vllm", 4, 7, 0.875},
		"sglang.txt":       {"sglang", 162, 2826, 0.28},
		"sglang_ranks.txt": {"sglang", 11, 4, 0.7},
		"trtllm.txt":       {"tensorrt-llm", 16, 2, 0.52},
		"triton.txt":       {"triton", 11, 3, 0.2404},
		"tgi.txt":          {"tgi", 8, 5, none},
		"llamacpp.txt":     {"llama.cpp", 4, 6, none},
		"llamacpp_old.txt": {"llama.cpp", 1, 0, 0.1375},
	} {
		t.Run(file, func(t *testing.T) {
			r, err := NewEngineSampler(serve(t, page(t, file)), nil).Sample(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if e := r.Engine; e == nil || e.Kind != want.Kind || e.Running != want.Running || e.Waiting != want.Waiting || !same(e.KV, want.KV) {
				t.Errorf("read %+v, want %+v", e, want)
			}
			if len(r.Refused) != 0 || r.Devices != nil {
				t.Errorf("refused %v, devices %v", r.Refused, r.Devices)
			}
		})
	}
}

func TestOtherSpellings(t *testing.T) {
	for text, kind := range map[string]string{
		"ray_vllm_num_requests_running{ReplicaId=\"a\"} 2\nray_vllm_num_requests_waiting{ReplicaId=\"a\"} 1\n": "vllm",
		"sglang_num_running_reqs 2\nsglang_num_queue_reqs 1\n":                                                 "sglang",
		"trtllm:num_requests_running 2\r\ntrtllm:num_requests_waiting 1 1700000000000\r\n":                     "tensorrt-llm",
	} {
		r, err := NewEngineSampler(serve(t, []byte(text)), nil).Sample(t.Context())
		if err != nil || r.Engine.Kind != kind || r.Engine.Running != 2 || r.Engine.Waiting != 1 {
			t.Errorf("%q: %+v, %v", text, r.Engine, err)
		}
	}
}

// An impossible value must not hide behind other values to which it is added.
func TestEngineRefusesPerSeries(t *testing.T) {
	for _, bad := range []string{"NaN", "-1", "+Inf", "-Inf"} {
		text := "vllm:num_requests_running{engine=\"0\"} 4\nvllm:num_requests_waiting{engine=\"0\"} 9\nvllm:num_requests_waiting{engine=\"1\"} " + bad + "\n"
		r, err := NewEngineSampler(serve(t, []byte(text)), nil).Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Engine.Running != 4 || !math.IsNaN(r.Engine.Waiting) || !slices.Equal(r.Refused, []string{"waiting"}) {
			t.Errorf("%s: read %+v, refused %v", bad, r.Engine, r.Refused)
		}
	}
}

func TestBadPages(t *testing.T) {
	u := serve(t, []byte("process_cpu_seconds_total 4\n"))
	if _, err := NewEngineSampler(u, nil).Sample(t.Context()); !errors.Is(err, ErrNoEngine) {
		t.Errorf("a page without an engine: %v", err)
	}
	if _, err := NewExporterSampler(u, nil).Sample(t.Context()); !errors.Is(err, ErrNoExporter) {
		t.Errorf("a page without a GPU: %v", err)
	}
	for _, text := range []string{
		"vllm:num_requests_running 4",                      // cut off: 4, or the beginning of 47
		"vllm:num_requests_running{model=\"a\" 4\n",        // broken labels
		"vllm:num_requests_running banana\n",               // not a number
		"vllm:num_requests_running{a=\"1\",a=\"2\"} 4\n",   // the same label twice
		strings.Repeat("# padding\n", maxPage/10) + "\n\n", // too large
	} {
		if r, err := NewEngineSampler(serve(t, []byte(text)), nil).Sample(t.Context()); err == nil {
			t.Errorf("%.60q was read as %+v", text, r.Engine)
		}
	}
	u.Path = "/elsewhere"
	if _, err := NewEngineSampler(u, nil).Sample(t.Context()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a page that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewEngineSampler(u, nil).Sample(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// A broken line of a metric that is not wanted does not make the other metrics unknown.
	if r, err := NewEngineSampler(serve(t, []byte("odd{ 1\n tgi_queue_size 5\n")), nil).Sample(t.Context()); err != nil || r.Engine.Waiting != 5 {
		t.Errorf("a stranger's broken line: %+v, %v", r.Engine, err)
	}
}

func TestDCGMPage(t *testing.T) {
	r, err := NewExporterSampler(serve(t, page(t, "dcgm.txt")), nil).Sample(t.Context())
	if err != nil || len(r.Devices) != 2 || len(r.Refused) != 0 {
		t.Fatalf("read %+v, %v", r, err)
	}
	d := r.Devices[0]
	for name, v := range map[string][2]float64{
		"utilization": {d.Utilization, 0.97}, "memory utilization": {d.MemoryUtilization, 0.43}, "sm": {d.SM, 0.712},
		"tensor": {d.Tensor, 0.31}, "dram": {d.DRAM, 0.455}, "occupancy": {d.Occupancy, math.NaN()}, "power": {d.Power, 512.331},
		"limit": {d.PowerLimit, 700}, "temperature": {d.Temperature, 64}, "energy": {d.Energy, 82373521.341},
	} {
		if !same(v[0], v[1]) {
			t.Errorf("%s is %v, want %v", name, v[0], v[1])
		}
	}
	if d.UUID != "GPU-5a1c0d3e-0000-4000-8000-00000000000a" || d.Index != 0 || d.MIG || d.Name != "NVIDIA H100 80GB HBM3" ||
		d.MemoryUsed != 61000<<20 || d.MemoryTotal != 81559<<20 || !slices.Equal(d.Throttle, []string{"sw_power_cap"}) || d.Processes != nil {
		t.Errorf("read %+v", d)
	}
	if idle := r.Devices[1]; idle.Utilization != 0 || idle.Index != 1 || idle.Throttle != nil {
		t.Errorf("the idle GPU is %+v", idle)
	}
}

func TestDCGMPageWithMIG(t *testing.T) {
	f := NewFeed(FeedConfig{Name: "x", Sampler: NewExporterSampler(serve(t, page(t, "dcgm_mig.txt")), nil)})
	f.Poll(t.Context())
	s := f.Latest()
	if s.Err != nil || len(s.Devices) != 2 {
		t.Fatalf("read %+v", s)
	}
	d, ok := s.Device("gpu=0,GPU_I_ID=2")
	if !ok || !d.MIG || d.Parent != "GPU-5a1c0d3e-0000-4000-8000-00000000000c" || d.UUID != d.Parent+"/2" || d.Utilization != 0.94 || d.MemoryTotal != 39000<<20 {
		t.Errorf("the instance is %+v", d)
	}
	if !math.IsNaN(d.Energy) || !math.IsNaN(d.Power) {
		t.Errorf("the whole GPU's energy and power are an instance's: %v J, %v W", d.Energy, d.Power)
	}
	if byUUID, ok := s.Device(d.UUID); !ok || byUUID != d {
		t.Error("not found by its UUID")
	}
	for _, ref := range []string{"0", "gpu=0", "Hostname=node-b", "GPU_I_ID=9", "gpu=0,GPU_I_ID", "", "=", d.Parent} {
		if d, ok := s.Device(ref); ok {
			t.Errorf("%q found %+v", ref, d)
		}
	}
}

// An exporter that lost its driver serves its last reading for a while. The reading's age is the age
// that the exporter reports, and not the time since the scrape.
func TestExportersReadingHasItsAge(t *testing.T) {
	now := time.Unix(1e9, 0)
	for text, age := range map[string]time.Duration{"": 0, "4.5": 4500 * time.Millisecond, "0": 0, "-3": 0, "NaN": 0, "+Inf": 24 * time.Hour} {
		body := "DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-a\"} 40\n"
		if text != "" {
			body += "sluice_gpu_reading_age_seconds " + text + "\n"
		}
		f := NewFeed(FeedConfig{Sampler: NewExporterSampler(serve(t, []byte(body)), nil), Clock: func() time.Time { return now }})
		f.Poll(t.Context())
		if s := f.Latest(); s.Err != nil || now.Sub(s.At) != age || len(s.Devices) != 1 || len(s.Refused) != 0 {
			t.Errorf("age %q: read at %v before now, %v, want %v: %+v", text, now.Sub(s.At), s.Err, age, s.Reading)
		}
	}
	u := serve(t, []byte("sluice_gpu_up 0\nsluice_gpu_reading_age_seconds 9\n"))
	if _, err := NewExporterSampler(u, nil).Sample(t.Context()); !errors.Is(err, ErrNothingFresh) {
		t.Errorf("without a fresh reading: %v", err)
	}
}

// DCGM writes a large number for a value that it cannot read.
func TestDCGMBlanks(t *testing.T) {
	const labels = `{gpu="0",UUID="GPU-a"} `
	text := "DCGM_FI_DEV_GPU_UTIL" + labels + "2147483634\n" +
		"DCGM_FI_DEV_POWER_USAGE" + labels + "140737488355330\n" +
		"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" + labels + "9223372036854775794\n" +
		"DCGM_FI_DEV_FB_USED" + labels + "9223372036854775794\n" +
		"DCGM_FI_DEV_GPU_TEMP" + labels + "NaN\n" +
		"DCGM_FI_DEV_CLOCKS_EVENT_REASONS" + labels + "9223372036854775794\n" +
		"DCGM_FI_DEV_MEM_COPY_UTIL{gpu=\"1\"} 4\n"
	r, err := NewExporterSampler(serve(t, []byte(text)), nil).Sample(t.Context())
	if err != nil || len(r.Devices) != 1 {
		t.Fatalf("read %+v, %v", r, err)
	}
	d := r.Devices[0]
	if !math.IsNaN(d.Utilization) || !math.IsNaN(d.Power) || !math.IsNaN(d.Energy) || d.MemoryUsed != -1 || !math.IsNaN(d.Temperature) || d.Throttle != nil {
		t.Errorf("read %+v", d)
	}
	slices.Sort(r.Refused)
	if !slices.Equal(r.Refused, []string{"dev_gpu_temp", "uuid"}) {
		t.Errorf("refused %v", r.Refused)
	}
}

func TestThrottleReasons(t *testing.T) {
	if got := ThrottleReasons(1); got != nil {
		t.Errorf("an idle GPU is throttled: %v", got)
	}
	if got := ThrottleReasons(0x44 | 1<<40); !slices.Equal(got, []string{"sw_power_cap", "hw_thermal_slowdown"}) {
		t.Errorf("0x44 is %v", got)
	}
}

// fuzzPage begins with short pages, because long pages make the fuzzer slow.
func fuzzPage(f *testing.F, seeds []string, read func(page []byte) (Reading, error)) {
	for _, text := range seeds {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := read(text)
		if err != nil {
			return
		}
		feed := NewFeed(FeedConfig{Name: "fuzz", Sampler: fixed(r)})
		feed.Poll(t.Context())
		believable(t, feed.Latest())
	})
}

func FuzzEnginePage(f *testing.F) {
	s := NewEngineSampler(&url.URL{Scheme: "http", Host: "x"}, nil)
	fuzzPage(f, []string{
		"vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_waiting NaN\nvllm:kv_cache_usage_perc 0.5\n",
		"sglang:num_queue_reqs{tp_rank=\"0\",priority=\"1\"} 1\nsglang:num_queue_reqs{tp_rank=\"1\"} 2\n",
		"nv_trt_llm_request_metrics{request_type=\"waiting\"} 3\n", "tgi_queue_size -1\n", "llamacpp:requests_deferred +Inf\n"}, func(text []byte) (Reading, error) {
		page, err := parsePage(text, s.wanted)
		if err != nil {
			return Reading{}, err
		}
		return s.read(page)
	})
}

func FuzzExporterPage(f *testing.F) {
	s := NewExporterSampler(&url.URL{Scheme: "http", Host: "x"}, nil)
	fuzzPage(f, []string{
		"DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\"} 97\nDCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"GPU-a\"} -1e300\n",
		"DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu=\"0\",UUID=\"GPU-a\",GPU_I_ID=\"2\"} 0.5\n",
		"DCGM_FI_DEV_FB_FREE{UUID=\"a\"} 2147483634\nDCGM_FI_DEV_FB_TOTAL{UUID=\"a\"} 1e30\n"}, func(text []byte) (Reading, error) {
		page, err := parsePage(text, s.wanted)
		if err != nil {
			return Reading{}, err
		}
		return s.read(page)
	})
}
