//go:build cgo && linux

package main

import (
	"bufio"
	"bytes"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/backends/gpu/nvml/stub"
	"sluice.example/sluice/backends/gpu/telemetry"
)

// gatewayEnv makes this test's program run as a gateway.
const gatewayEnv = "SLUICE_TEST_GATEWAY"

func TestMain(m *testing.M) {
	if os.Getenv(gatewayEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// The test uses the stub library, the real binding, the subcommand, and the reader of a gateway on
// another host.
func TestGPUExporter(t *testing.T) {
	library, err := stub.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "gpus")
	state := stub.State{GPUs: []stub.GPU{{
		Device: stub.Device{UUID: "GPU-a", Name: "NVIDIA H100 80GB HBM3", Values: stub.Values{"utilization": 87, "memory_utilization": 1, "sm": 62.5, "energy": 5000}},
	}, {
		Device:    stub.Device{UUID: "GPU-m", Values: stub.Values{"power": 300_000}},
		Instances: []stub.Instance{{ID: 7, Device: stub.Device{UUID: "MIG-x", Values: stub.Values{"sm": 75}}}},
	}}}
	if err := state.Write(file); err != nil {
		t.Fatal(err)
	}
	t.Setenv(stub.Env, file)
	page, end := startExporter(t, library)
	feed := telemetry.NewFeed(telemetry.FeedConfig{Name: "exporter", Sampler: telemetry.NewExporterSampler(page, nil), Timeout: 10 * time.Second})
	until := func(what string, holds func(*telemetry.Snapshot) bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			feed.Poll(t.Context())
			s := feed.Latest()
			if holds(s) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the last snapshot is %+v, %v", what, s.Devices, s.Err)
			}
		}
	}
	until("all is read", func(s *telemetry.Snapshot) bool {
		gpu, ok := s.Device("GPU-a")
		mig, okMIG := s.Device("MIG-x")
		byIndex, okIndex := s.Device("1")
		return ok && okMIG && okIndex && gpu.Utilization == 0.87 && gpu.SM == 0.625 && gpu.Energy == 5 && gpu.Labels["Hostname"] == "node-1" &&
			mig.SM == 0.75 && mig.MIG && byIndex.UUID == "GPU-m" && byIndex.Power == 300
	})
	state.GPUs[0].Lost = true
	if err := state.Write(file); err != nil {
		t.Fatal(err)
	}
	until("a lost GPU is gone", func(s *telemetry.Snapshot) bool {
		_, lost := s.Device("GPU-a")
		_, there := s.Device("GPU-m")
		return !lost && there
	})
	if log, err := end(); err != nil || strings.Count(log, "a GPU is lost") != 1 {
		t.Errorf("it ended with %v:\n%s", err, log)
	}
}

// startExporter runs the subcommand in a child process, because a process can load only one NVML
// library. env is added to the child's environment. end stops the child and returns its log and how
// it ended.
func startExporter(t *testing.T, library string, env ...string) (page *url.URL, end func() (string, error)) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "gpu-exporter", "--listen", "127.0.0.1:0", "--nvml-library", library)
	cmd.Env = append(os.Environ(), gatewayEnv+"=1", "NODE_NAME=node-1")
	cmd.Env = append(cmd.Env, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("it ended with %v:\n%s", cmd.Wait(), &stderr)
	}
	page, err = url.Parse(strings.TrimPrefix(strings.TrimSpace(line), "serving "))
	if err != nil {
		t.Fatal(err)
	}
	return page, func() (string, error) {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return "", err
		}
		err := cmd.Wait()
		return stderr.String(), err
	}
}

func TestGPUExporterWithoutADriver(t *testing.T) {
	var stderr bytes.Buffer
	e := env{stdout: io.Discard, stderr: &stderr, getenv: func(string) string { return "" }}
	code := run(t.Context(), e, []string{"gpu-exporter", "--listen", "127.0.0.1:0", "--nvml-library", filepath.Join(t.TempDir(), "no.so")})
	if code != exitFailed || !strings.Contains(stderr.String(), "NVML is not available") {
		t.Errorf("%d: %s", code, &stderr)
	}
}
