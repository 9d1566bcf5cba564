//go:build cgo && linux

package nvml

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
)

// Each library runs in a child process, because a call of a function that the library lacks would end
// the process.
func TestMissingSymbols(t *testing.T) {
	gpm := []string{"nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc", "nvmlGpmSampleFree", "nvmlGpmSampleGet", "nvmlGpmMigSampleGet", "nvmlGpmMetricsGet"}
	full := `[{"uuid":"GPU-a",` + strings.Replace(hopperWithoutGPM, `"memory_used`, hopperGPM+`"memory_used`, 1) + `]`
	without := func(parts ...string) string {
		out := full
		for _, p := range parts {
			if !strings.Contains(out, p) {
				t.Fatalf("%s is not in %s", p, out)
			}
			out = strings.Replace(out, p, "", 1)
		}
		return out
	}
	tests := []struct {
		name, want string
		lacks      []string
	}{
		{"none", full, nil},
		{"the text of errors", full, []string{"nvmlErrorString"}},
		{"GPM", without(hopperGPM), gpm},
		{"one of GPM", without(hopperGPM), gpm[5:]},
		{"newer names", full, []string{"nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTemperatureV"}},
		{"older names", full, []string{"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetTemperature"}},
		{"MIG", full, []string{"nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount"}},
		{"energy, name, processes", without(`"energy_joules":123456.789,`, `"name":"NVIDIA H100 80GB HBM3",`,
			`,"processes":[{"pid":4711,"memory_bytes":1073741824},{"pid":4712,"memory_bytes":2147483648}]`),
			[]string{"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetName", "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlSystemGetDriverVersion"}},
		{"all but utilization", `[{"uuid":"GPU-a","index":0,"utilization":0.87,"memory_utilization":0.4}]`, append([]string{
			"nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit",
			"nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetCurrentClocksEventReasons",
			"nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlErrorString",
			"nvmlDeviceGetTotalEccErrors", "nvmlEventSetCreate", "nvmlEventSetFree", "nvmlDeviceRegisterEvents", "nvmlEventSetWait_v2",
			"nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetGpuInstanceId"}, gpm...)},
		{"memory errors and events", full, []string{"nvmlDeviceGetTotalEccErrors", "nvmlEventSetCreate"}},
		{"waiting for events", full, []string{"nvmlEventSetWait_v2"}},
		{"the way in", "NVML is not available: LIBRARY lacks nvmlInit_v2", []string{"nvmlInit_v2"}},
		{"the count", "NVML is not available: LIBRARY lacks nvmlDeviceGetCount_v2", []string{"nvmlDeviceGetCount_v2"}},
		{"the UUID", "NVML is not available: LIBRARY lacks nvmlDeviceGetUUID", []string{"nvmlDeviceGetUUID"}},
	}
	file := filepath.Join(t.TempDir(), "gpus")
	if err := (stub.State{GPUs: []stub.GPU{hopper("GPU-a")}}).Write(file); err != nil {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path, err := stub.Build(t.Context(), t.TempDir(), test.lacks...)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+path, stub.Env+"="+file)
			out, err := cmd.CombinedOutput()
			if want := strings.ReplaceAll(test.want, "LIBRARY", path); strings.TrimSpace(string(out)) != want {
				t.Errorf("%v:\n%s\nwant\n%s", err, out, want)
			}
		})
	}
}

// One percent of a core at five samples a second is 2 ms per sample.
func BenchmarkSample8(b *testing.B) {
	var state stub.State
	for _, uuid := range strings.Split("abcdefgh", "") {
		state.GPUs = append(state.GPUs, hopper("GPU-"+uuid))
	}
	m := newMachine(b, state)
	b.ReportAllocs()
	for b.Loop() {
		m.now = m.now.Add(200 * time.Millisecond)
		if r, err := m.Sample(context.Background()); err != nil || len(r.Devices) != 8 {
			b.Fatal(r, err)
		}
	}
}
