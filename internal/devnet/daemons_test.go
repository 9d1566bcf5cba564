//go:build unix

package devnet_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sluice.example/sluice/internal/devnet"
)

// goCommand replaces the go command by a script and the user's cache by an empty directory. The
// script counts its runs in the file whose path goCommand returns.
func goCommand(t *testing.T, script string) (runs string) {
	t.Helper()
	bin := t.TempDir()
	runs = filepath.Join(bin, "runs")
	script = "#!/bin/sh\necho run >>" + runs + "\n" + script
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	t.Setenv(devnet.DaemonsDirEnv, t.TempDir())
	return runs
}

// build does what Daemons can see of a real build: it reads the pinned versions in its folder and
// writes both programs to the -o folder.
const build = `
while [ "$1" != "-o" ]; do shift; done
grep -q "^module sluice/daemons" go.mod && test -s go.sum || exit 1
sleep 0.1; echo btcd >"$2/btcd"; echo lnd >"$2/lnd"
`

func TestDaemonsAreBuiltOnce(t *testing.T) {
	runs := goCommand(t, build)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var out bytes.Buffer
			btcd, lnd, err := devnet.Daemons(t.Context(), &out)
			if err != nil {
				t.Error(err)
				return
			}
			for _, path := range []string{btcd, lnd} {
				if b, err := os.ReadFile(path); err != nil || string(b) != filepath.Base(path)+"\n" {
					t.Errorf("%s: %q, %v", path, b, err)
				}
			}
		})
	}
	wg.Wait()
	if b, err := os.ReadFile(runs); err != nil || string(b) != "run\n" {
		t.Errorf("builds: %q, %v", b, err)
	}
	checkOnlyBuild(t)
}

// checkOnlyBuild checks that the cache has one complete build and its lock, and nothing else.
func checkOnlyBuild(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(os.Getenv(devnet.DaemonsDirEnv))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "building-") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestDaemonsReplacesHalfABuild(t *testing.T) {
	goCommand(t, build)
	btcd, _, err := devnet.Daemons(t.Context(), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(btcd); err != nil {
		t.Fatal(err)
	}
	if btcd, _, err = devnet.Daemons(t.Context(), &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(btcd); err != nil {
		t.Error(err)
	}
}

func TestDaemonsTellsWhyTheBuildFailed(t *testing.T) {
	goCommand(t, "echo no space left on device >&2; exit 1")
	_, _, err := devnet.Daemons(t.Context(), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v", err)
	}
	checkOnlyBuild(t)
}

func TestDaemonsWithoutGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(devnet.DaemonsDirEnv, t.TempDir())
	_, _, err := devnet.Daemons(t.Context(), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "install Go") {
		t.Errorf("got %v", err)
	}
}
