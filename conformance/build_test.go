package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// programs holds the gosdk programs, one for each list of modules. All tests share them.
var programs = struct {
	sync.Mutex
	dir  string
	made map[string]string
}{made: map[string]string{}}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := os.RemoveAll(programs.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// buildGo builds gosdk with one list of modules. It builds each program only once.
func buildGo(t *testing.T, modules string) []string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if program := programs.made[modules]; program != "" {
		return []string{program}
	}
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "conformance-")
		must(t, err)
		programs.dir = dir
	}
	program := filepath.Join(programs.dir, "gosdk-"+modules)
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile="+modules, "-o", program, "./gosdk")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build gosdk with %s: %v\n%s", modules, err, output)
	}
	programs.made[modules] = program
	return []string{program}
}
