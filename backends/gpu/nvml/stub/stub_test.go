package stub

import (
	"strings"
	"testing"
)

func TestBuildSaysWhatWentWrong(t *testing.T) {
	t.Setenv("CC", "false")
	if _, err := Build(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "build the NVML stub: false: exit status 1") {
		t.Errorf("a compiler that fails: %v", err)
	}
	t.Setenv("CC", "no-such-compiler")
	if _, err := Build(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "no-such-compiler") {
		t.Errorf("no compiler: %v", err)
	}
}

func TestTheFile(t *testing.T) {
	state := State{Library: 1, Hang: "nvmlInit_v2", GPUs: []GPU{{
		Device: Device{UUID: "GPU-1", Name: "A GPU", Values: Values{"utilization": 40, "power": Failure(4), "sm": 12.5}, Processes: map[int]int64{2: 20, 1: 10}},
		NoGPM:  true, Lost: true,
		Instances: []Instance{{ID: 7, Device: Device{UUID: "MIG-1"}}},
	}}}
	want := "init 0\nlibrary 1\nhang nvmlInit_v2\ngpu GPU-1\ngpm 0\nlost\nname A GPU\npower !4\nsm 12.5\nutilization 40\nprocess 1 10\nprocess 2 20\nmig MIG-1 7\n"
	if got := state.String(); got != want {
		t.Errorf("the file:\n%s\nwant\n%s", got, want)
	}
}
