// Package stub builds a replacement for libnvidia-ml.so.1, NVIDIA's management library. A text file
// describes the GPUs that the replacement reports. Tests load it through the real binding, so that the
// binding's dlopen, structures and error paths run on a machine without a GPU.
//
//	library, err := stub.Build(ctx, dir) // needs a C compiler
//	state := stub.State{GPUs: []stub.GPU{{Device: stub.Device{UUID: "GPU-1", Values: stub.Values{"utilization": 40}}}}}
//	err = state.Write(file)              // at any time: the next call sees it
//	os.Setenv(stub.Env, file)
//	sampler, err := nvml.Open(nvml.Config{Library: library})
//
// # The file
//
// The file has one word and its value per line. Lines that begin with # are comments. The first lines
// are about the whole library:
//
//	init 9       what nvmlInit answers, an NVML code (9: driver not loaded)
//	library 1    what every call answers, and the library is closed: a driver
//	             that is being reloaded. Afterwards nvmlInit must be called again
//	hang NAME    calls of this function wait until the file says otherwise;
//	             without a name, all calls
//
// Then come the GPUs, each followed by its values. "mig UUID ID" begins a MIG instance of the GPU
// above, where ID is the instance's GPU instance ID:
//
//	gpu GPU-1
//	  name NVIDIA H100 80GB HBM3
//	  utilization 40         %; memory_utilization too
//	  memory_total 85520809984   bytes; memory_used too
//	  power 350000           mW; power_limit too
//	  temperature 61         °C
//	  energy 123456789       mJ
//	  ecc_corrected 2        memory errors; ecc_uncorrected too
//	  xid 0                  reports critical errors; another number is one that happens now
//	  throttle 0x4           the bits of NVML's clocks event reasons
//	  sm 35.5                %, from GPM; occupancy, tensor and dram too
//	  gpm 0                  has no GPM
//	  process 4711 1073741824    pid and bytes
//	  lost                   has fallen off the bus, until the library is opened anew
//	  mig MIG-1 7
//	    sm 12.5
//
// The device does not support a value that has no line. The value "!N" makes the call fail with code N.
// If there is no file, there is no driver.
package stub

import (
	"context"
	_ "embed" // the source of the library
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Env is the name of the environment variable that holds the path of the file.
const Env = "SLUICE_NVML_STUB"

// Name is the file name of the library.
const Name = "libnvidia-ml.so.1"

var (
	//go:embed lib/nvml.c
	source string
	//go:embed lib/file.h
	header string
)

// Build compiles the library into dir and returns the library's path. It uses the program that the
// environment variable CC names, or cc. The library lacks the functions that lacks names.
func Build(ctx context.Context, dir string, lacks ...string) (string, error) {
	for name, text := range map[string]string{"nvml.c": source, "file.h": header} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("build the NVML stub: %w", err)
		}
	}
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	path := filepath.Join(dir, Name)
	args := []string{"-shared", "-fPIC", "-O1", "-pthread", "-o", path}
	for _, name := range lacks {
		args = append(args, "-D"+name+"=absent_"+name)
	}
	args = append(args, filepath.Join(dir, "nvml.c"))
	if out, err := exec.CommandContext(ctx, cc, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the NVML stub: %s: %w\n%s", cc, err, out)
	}
	return path, nil
}

// State is the content of the file. Codes are those of NVML, where zero is success.
type State struct {
	Init, Library int
	Hang          string // the function that hangs, or "all"
	GPUs          []GPU
}

// GPU is a GPU and its MIG instances.
type GPU struct {
	Device
	NoGPM, Lost bool
	Instances   []Instance
}

// Instance is a MIG instance.
type Instance struct {
	Device
	ID int // ID of its GPU instance
}

// Device is what GPUs and MIG instances have in common.
type Device struct {
	UUID, Name string // without line breaks, at most 95 bytes
	Values     Values
	Processes  map[int]int64 // by PID, in bytes
}

// Values holds a device's values by the key of the file. Each is a number or a Failure.
type Values map[string]any

// Failure is an NVML code. The call that reads the value fails with this code.
type Failure int

// String returns the failure as the file writes it.
func (f Failure) String() string { return fmt.Sprintf("!%d", int(f)) }

// Write replaces the file in one step, so that no call reads half of it.
func (s State) Write(path string) error {
	fresh := path + ".new"
	if err := os.WriteFile(fresh, []byte(s.String()), 0o600); err != nil {
		return fmt.Errorf("write the NVML stub's state: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("write the NVML stub's state: %w", err)
	}
	return nil
}

// String returns the text of the file.
func (s State) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "init %d\nlibrary %d\n", s.Init, s.Library)
	if s.Hang != "" {
		fmt.Fprintf(&b, "hang %s\n", s.Hang)
	}
	for _, g := range s.GPUs {
		fmt.Fprintf(&b, "gpu %s\n", g.UUID)
		if g.NoGPM {
			b.WriteString("gpm 0\n")
		}
		if g.Lost {
			b.WriteString("lost\n")
		}
		g.write(&b)
		for _, i := range g.Instances {
			fmt.Fprintf(&b, "mig %s %d\n", i.UUID, i.ID)
			i.write(&b)
		}
	}
	return b.String()
}

func (d Device) write(b *strings.Builder) {
	if d.Name != "" {
		fmt.Fprintf(b, "name %s\n", d.Name)
	}
	for _, key := range slices.Sorted(maps.Keys(d.Values)) {
		fmt.Fprintf(b, "%s %v\n", key, d.Values[key])
	}
	for _, pid := range slices.Sorted(maps.Keys(d.Processes)) {
		fmt.Fprintf(b, "process %d %d\n", pid, d.Processes[pid])
	}
}
