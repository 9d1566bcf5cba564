package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	driver "sluice.example/sluice/internal/lab"
	"sluice.example/sluice/internal/lab/proc"
)

// What all tests share.
var (
	binaries string         // folder of gateway and agent-client
	launcher *proc.Launcher // starts every process of the tests
	demo     *demonstration // the demo
	agent    *wallet        // its agent's lnd
	lab      *laboratory    // the gateway with the fault backend
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runAll(m))
}

// runAll returns the exit status: that of the tests, or 1 when what is around
// them fails.
func runAll(m *testing.M) int {
	// Tests wait for daemons more than they work: more of them than processors
	// may run at once, unless the caller said otherwise.
	if !given("test.parallel") {
		flag.Set("test.parallel", "8")
	}
	dir, err := os.MkdirTemp("", "sluice-e2e-")
	if err != nil {
		return report(err)
	}
	defer os.RemoveAll(dir)
	launcher = proc.NewLauncher()
	defer launcher.Close()
	if err := setUp(dir); err != nil {
		return max(report(err), report(tearDown()))
	}
	return max(m.Run(), report(tearDown()))
}

func given(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "end-to-end tests:", err)
	return 1
}

func setUp(dir string) (err error) {
	began := time.Now()
	binaries = filepath.Join(dir, "bin")
	if err := proc.Build(binaries+string(filepath.Separator), proc.RaceFlags, "sluice.example/sluice/cmd/gateway", "sluice.example/sluice/cmd/agent-client"); err != nil {
		return err
	}
	if demo, err = startDemo(filepath.Join(dir, "demo")); err != nil {
		return err
	}
	if agent, err = openWallet(demo.LND["agent"]); err != nil {
		return err
	}
	if lab, err = startLab(filepath.Join(dir, "lab")); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "end-to-end tests: the demo and the lab took %s\n", time.Since(began).Round(100*time.Millisecond))
	return nil
}

// tearDown checks the books once more, then ends everything; nothing may stay.
func tearDown() error {
	var errs []error
	if lab != nil {
		errs = append(errs, lab.close())
	}
	if demo != nil {
		if lab != nil { // all of setUp went well
			errs = append(errs, named("verify the demo's ledger", verifyLedger(demo.GatewayConfig)))
		}
		errs = append(errs, demo.interrupt())
	}
	return errors.Join(errs...)
}

func named(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// verifyLedger runs the operator's check and wants it to find nothing.
func verifyLedger(config string) error {
	_, err := driver.VerifyLedger(context.Background(), filepath.Join(binaries, "gateway"), config)
	return err
}

// processesOf lists the command lines that name a folder, where the system
// shows them.
func processesOf(dir string) (found []string) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		text := strings.ReplaceAll(string(line), "\x00", " ")
		if err == nil && strings.Contains(text, dir+string(filepath.Separator)) {
			found = append(found, filepath.Base(filepath.Dir(path))+": "+text)
		}
	}
	return found
}
