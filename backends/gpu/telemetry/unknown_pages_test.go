package telemetry

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func readExporter(t *testing.T, text string) (Reading, error) {
	t.Helper()
	return NewExporterSampler(serve(t, []byte(text)), nil).Sample(t.Context())
}

func device(t *testing.T, text, uuid string) Device {
	t.Helper()
	r, err := readExporter(t, text)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(r.Devices, func(d Device) bool { return d.UUID == uuid })
	if i < 0 {
		t.Fatalf("%s is not in %+v", uuid, r.Devices)
	}
	return r.Devices[i]
}

// DCGM-exporter writes a line for each pod after the device's own line. Here the last line is that of
// an idle pod, and the GPU is full.
func TestDevicesOwnLineCountsBesideThoseOfPods(t *testing.T) {
	none := math.NaN()
	const own, busy, idle = `{gpu="0",UUID="GPU-a"} `, `{gpu="0",UUID="GPU-a",pod="busy",namespace="x"} `, `{gpu="0",UUID="GPU-a",pod="idle",namespace="x"} `
	const util, used, energy = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
	for name, c := range map[string]struct {
		text string
		want float64
	}{
		"own first":              {util + own + "97\n" + util + busy + "97\n" + util + idle + "0\n", 0.97},
		"own last":               {util + idle + "0\n" + util + own + "97\n", 0.97},
		"own is 0":               {util + own + "0\n" + util + busy + "3\n", 0},
		"own is blank":           {util + own + "2147483634\n" + util + idle + "0\n", none},
		"pods only":              {util + busy + "60\n" + util + idle + "0\n", 0.6},
		"parts of pods":          {util + busy + "60\n" + util + idle + "30\n", 0.9},
		"parts beyond the whole": {util + busy + "60\n" + util + idle + "70\n", 1},
		"the same for each pod":  {util + busy + "60\n" + util + idle + "60\n", 0.6},
		"one pod's is blank":     {util + busy + "60\n" + util + idle + "2147483634\n", none},
		"one pod's is NaN":       {util + busy + "NaN\n" + util + idle + "0\n", none},
		"one pod":                {util + busy + "60\n", 0.6},
	} {
		if d := device(t, c.text, "GPU-a"); !same(d.Utilization, c.want) {
			t.Errorf("%s: utilization %v, want %v", name, d.Utilization, c.want)
		}
	}
	d := device(t, util+busy+"1\n"+used+busy+"1000\n"+used+idle+"500\n"+energy+busy+"7000\n"+energy+idle+"7000\n", "GPU-a")
	if d.MemoryUsed != 1500<<20 || d.Energy != 7 {
		t.Errorf("memory %d, energy %v", d.MemoryUsed, d.Energy)
	}
}

// Under MIG the driver has no utilization, and a 0 on the page is not a reading.
func TestMIGWithoutProfilingFieldsIsNotKnown(t *testing.T) {
	const gpu, first, second = `{gpu="0",UUID="GPU-a"} `, `{gpu="0",UUID="GPU-a",GPU_I_ID="1"} `, `{gpu="0",UUID="GPU-a",GPU_I_ID="2"} `
	text := "DCGM_FI_DEV_GPU_UTIL" + gpu + "0\nDCGM_FI_DEV_GPU_UTIL" + first + "0\nDCGM_FI_DEV_FB_USED" + second + "5\n"
	for _, uuid := range []string{"GPU-a", "GPU-a/1", "GPU-a/2"} {
		if d := device(t, text, uuid); !math.IsNaN(d.BusyShare()) {
			t.Errorf("%s is busy for %v of the time", uuid, d.BusyShare())
		}
	}
	text += "DCGM_FI_PROF_GR_ENGINE_ACTIVE" + gpu + "0.7\nDCGM_FI_PROF_GR_ENGINE_ACTIVE" + first + "0.25\n"
	for uuid, want := range map[string]float64{"GPU-a": 0.7, "GPU-a/1": 0.25, "GPU-a/2": math.NaN()} {
		if d := device(t, text, uuid); !same(d.BusyShare(), want) {
			t.Errorf("%s is busy for %v of the time, want %v", uuid, d.BusyShare(), want)
		}
	}
	// This is the form of gateway gpu-exporter.
	text = `DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-b"} 0` + "\n" + `DCGM_FI_DEV_FB_USED{gpu="0",UUID="MIG-x",GPU_UUID="GPU-b",GPU_I_ID="1"} 5` + "\n"
	if d := device(t, text, "GPU-b"); !math.IsNaN(d.BusyShare()) {
		t.Errorf("the divided GPU is busy for %v of the time", d.BusyShare())
	}
}

// Two compute instances of one GPU instance have the same name on DCGM's page. The instance that is
// idle does not make the other count as idle.
func TestComputeInstancesOfOneGPUInstance(t *testing.T) {
	const ci = `DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="GPU-a",GPU_I_ID="1"} `
	if d := device(t, ci+"0.8\n"+ci+"0\n", "GPU-a/1"); d.BusyShare() != 0.8 {
		t.Errorf("busy for %v of the time, want 0.8", d.BusyShare())
	}
}

// A value that cannot be read costs only that value.
func TestOneBrokenFieldCostsThatFieldOnly(t *testing.T) {
	const labels = `{gpu="0",UUID="GPU-a",err="a } brace \" and more"} `
	text := "DCGM_FI_DEV_GPU_UTIL" + labels + "40\nDCGM_FI_DEV_POWER_USAGE" + labels + "ERROR - FAILED TO CONVERT TO STRING\nDCGM_FI_DEV_GPU_TEMP" + labels + "61\n"
	r, err := readExporter(t, text)
	if err != nil {
		t.Fatal(err)
	}
	d := r.Devices[0]
	if d.Utilization != 0.4 || d.Temperature != 61 || !math.IsNaN(d.Power) || !slices.Equal(r.Refused, []string{"dev_power_usage"}) {
		t.Errorf("read %+v, refused %v", d, r.Refused)
	}
	e, err := NewEngineSampler(serve(t, []byte("vllm:num_requests_running 4\nvllm:num_requests_waiting ERROR - FAILED TO CONVERT\n")), nil).Sample(t.Context())
	if err != nil || e.Engine.Running != 4 || !math.IsNaN(e.Engine.Waiting) || !slices.Equal(e.Refused, []string{"waiting"}) {
		t.Errorf("read %+v, refused %v, %v", e.Engine, e.Refused, err)
	}
}

// OpenMetrics ends in # EOF, often without a newline. It has times in seconds, exemplars, and _total at
// the end of every counter's name.
func TestOpenMetricsPages(t *testing.T) {
	text := "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\nDCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\"} 40 1700000000.123\n" +
		"# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter\nDCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total{gpu=\"0\",UUID=\"GPU-a\"} 7000 # {trace=\"x\"} 1 1700000000.1\n# EOF"
	for _, end := range []string{"", "\n"} {
		d := device(t, text+end, "GPU-a")
		if d.Utilization != 0.4 || d.Energy != 7 {
			t.Errorf("read %+v", d)
		}
	}
	if _, err := readExporter(t, strings.TrimSuffix(text, "# EOF")+"DCGM_FI_DEV_GPU_TEMP{UUID=\"GPU-a\"} 6"); err == nil {
		t.Error("a page that was cut off was read")
	}
	r, err := NewEngineSampler(serve(t, []byte("vllm:num_requests_running{engine=\"0\"} 4.0 1700000000.5\n# EOF")), nil).Sample(t.Context())
	if err != nil || r.Engine.Running != 4 {
		t.Errorf("read %+v, %v", r.Engine, err)
	}
}

func TestLabelsInAnyCase(t *testing.T) {
	for _, label := range []string{"Hostname", "hostname"} {
		f := NewFeed(FeedConfig{Name: "x", Sampler: NewExporterSampler(serve(t, []byte(
			`DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",`+label+`="node-a"} 40`+"\n"+`DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-b",`+label+`="node-b"} 50`+"\n")), nil)})
		f.Poll(t.Context())
		for _, ref := range []string{"Hostname=node-b,gpu=0", "hostname=node-b,GPU=0"} {
			if d, ok := f.Latest().Device(ref); !ok || d.UUID != "GPU-b" {
				t.Errorf("%s on a page with %s: %+v", ref, label, d)
			}
		}
	}
	d := Device{Labels: map[string]string{"Hostname": "a", "hostname": "b"}}
	if v, _ := d.label("hostname"); v != "b" {
		t.Errorf("the exact name is %q", v)
	}
	if _, ok := d.label("HOSTNAME"); ok {
		t.Error("two labels that differ name something")
	}
}

func TestUnknownPageNamesWhatItHas(t *testing.T) {
	text := "# HELP x y\nnode_cpu_seconds_total{cpu=\"0\"} 4\nnode_cpu_seconds_total{cpu=\"1\"} 4\ngo_goroutines 7\n"
	_, err := readExporter(t, text)
	if !errors.Is(err, ErrNoExporter) || !strings.Contains(err.Error(), "the page has node_cpu_seconds_total, go_goroutines") {
		t.Errorf("the error is %v", err)
	}
	_, err = NewEngineSampler(serve(t, []byte(text)), nil).Sample(t.Context())
	if !errors.Is(err, ErrNoEngine) || !strings.Contains(err.Error(), "go_goroutines") {
		t.Errorf("the error is %v", err)
	}
	if _, err = readExporter(t, "<html>\n"); err == nil || !strings.Contains(err.Error(), "<html>") {
		t.Errorf("the error is %v", err)
	}
	for _, page := range []string{"<!DOCTYPE html>\n<html><body>Welcome</body></html>", "404 page not found", `{"detail":"Not Found"}`} {
		if _, err = readExporter(t, page); !errors.Is(err, ErrNoExporter) {
			t.Errorf("%s: the error is %v", page, err)
		}
		if _, err = NewEngineSampler(serve(t, []byte(page)), nil).Sample(t.Context()); !errors.Is(err, ErrNoEngine) {
			t.Errorf("%s: the error is %v", page, err)
		}
	}
	for _, page := range []string{"# HELP go_goroutines n\ngo_gorout", "go_goroutines 7\n# TYPE x gauge\nx 1", "vllm:num_requests_running 4"} {
		if _, err = NewEngineSampler(serve(t, []byte(page)), nil).Sample(t.Context()); err == nil || !strings.Contains(err.Error(), "cut off") {
			t.Errorf("%s: the error is %v", page, err)
		}
	}
	if _, err = readExporter(t, ""); !strings.Contains(err.Error(), "no metric at all") {
		t.Errorf("the error is %v", err)
	}
}
