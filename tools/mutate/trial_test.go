package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The toy's test kills every change of Room but one: which of two equal numbers
// is returned makes no difference.
var toy = map[string]string{
	"go.mod": "module toy\n\ngo 1.26\n",
	"toy.go": `package toy

// Room is the smaller number.
func Room(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func hang() {}
`,
	"toy_test.go": `package toy

import (
	"os"
	"testing"
)

func TestRoom(t *testing.T) {
	hang()
	if Room(1, 2) != 1 || Room(2, 1) != 1 || Room(3, 3) != 3 {
		t.Error("wrong")
	}
	if err := os.WriteFile(os.TempDir()+"/left", nil, 0o600); err != nil {
		t.Error(err)
	}
}
`,
	"tools/mutate/mutants.txt": `
mutant does-not-compile
breaks Nothing at all.
file toy.go
find
	return b
replace
	return nothing
end

mutant hangs
breaks The toy never answers, and neither does its child.
file toy.go
find
package toy
replace
package toy

import (
	"os"
	"os/exec"
	"strconv"
)
end
find
func hang() {}
replace
func hang() {
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		panic(err)
	}
	if err := os.WriteFile(os.Getenv("CHILD"), []byte(strconv.Itoa(child.Process.Pid)), 0o600); err != nil {
		panic(err)
	}
	select {}
}
end
`,
}

var toyTargets = []target{{files: []string{"toy.go"}, suites: []suite{{pkg: "."}}}}

// toyMutants makes the toy and its mutants, by a part of their names.
func toyMutants(t *testing.T) (root string, find func(part string) *mutant) {
	t.Helper()
	root = write(t, toy)
	all, err := collect(root, toyTargets)
	if err != nil {
		t.Fatal(err)
	}
	return root, func(part string) *mutant {
		i := slices.IndexFunc(all, func(m *mutant) bool { return strings.Contains(m.id, part) })
		if i < 0 {
			t.Fatalf("no mutant %s in %q", part, ids(all, ""))
		}
		return all[i]
	}
}

func toyLab(t *testing.T, root string) *lab {
	t.Helper()
	cache, err := shadow(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(cache) })
	return &lab{root: root, dir: t.TempDir(), cache: cache, memoryMiB: 4096, nice: 1, limits: map[string]time.Duration{}}
}

func TestTry(t *testing.T) {
	root, find := toyMutants(t)
	l := toyLab(t, root)
	suites := toyTargets[0].suites
	for _, test := range []struct {
		part string
		want outcome
		by   string
	}{
		{"negate: a < b", killed, "TestRoom"},
		{"boundary: a < b", survived, ""},
		{"does-not-compile", notMutant, "nothing"},
	} {
		got, by, err := l.try(t.Context(), find(test.part), suites)
		if err != nil || got != test.want || !strings.Contains(by, test.by) {
			t.Errorf("%s: %s by %q, %v; want %s by %q", test.part, got, by, err, test.want, test.by)
		}
	}
	if source, err := os.ReadFile(filepath.Join(root, "toy.go")); err != nil || string(source) != toy["toy.go"] {
		t.Errorf("the source has changed: %v", err)
	}
	if left, err := os.ReadDir(l.dir); err != nil || len(left) > 0 {
		t.Errorf("%d folders are left: %v", len(left), err)
	}
}

// TestTryTimeLimit checks that a mutant that hangs is killed together with its child processes.
func TestTryTimeLimit(t *testing.T) {
	root, find := toyMutants(t)
	l := toyLab(t, root)
	suites := toyTargets[0].suites
	l.limits[suites[0].key()] = 3 * time.Second
	noted := filepath.Join(t.TempDir(), "child")
	t.Setenv("CHILD", noted)
	if got, by, err := l.try(t.Context(), find("hangs"), suites); err != nil || got != killed || by != "time limit" {
		t.Fatalf("%s by %q, %v", got, by, err)
	}
	pid, err := os.ReadFile(noted)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); alive(string(pid)); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the child %s is alive", pid)
		}
	}
}

// TestTryOnABusyMachine checks that reaching a limit does not count as a kill when the unchanged
// sources do not keep the limit either.
func TestTryOnABusyMachine(t *testing.T) {
	root, find := toyMutants(t)
	l := toyLab(t, root)
	suites := toyTargets[0].suites
	l.limits[suites[0].key()] = time.Nanosecond
	got, by, err := l.try(t.Context(), find("boundary: a < b"), suites)
	if err != nil || got != survived || l.limit(&suites[0]) < limitFloor {
		t.Errorf("%s by %q, %v; limit %s", got, by, err, l.limit(&suites[0]))
	}
}

// TestKilledFromOutside checks that a test process killed from outside gives no result for the
// mutant.
func TestKilledFromOutside(t *testing.T) {
	_, err := execute(t.Context(), time.Minute, limited(4096, 0, "/bin/sh", "-c", "kill -KILL $$"))
	if err == nil || !strings.Contains(err.Error(), "from outside") {
		t.Errorf("got %v", err)
	}
	end, err := execute(t.Context(), time.Minute, limited(4096, 0, "/bin/sh", "-c", "echo --- FAIL: TestA; exit 1"))
	if err != nil || end.ok || end.killer() != "TestA" {
		t.Errorf("got %+v, %v", end, err)
	}
}

// alive reports whether a process runs. A process that has ended and was not waited for does not
// count.
func alive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// TestMeasure checks that tests which fail without a mutant are an error and kill no mutant.
func TestMeasure(t *testing.T) {
	root, _ := toyMutants(t)
	l := toyLab(t, root)
	suites := toyTargets[0].suites
	if err := l.measure(t.Context(), suites); err != nil || l.limits[suites[0].key()] < limitFloor {
		t.Errorf("limit %v, %v", l.limits[suites[0].key()], err)
	}
	l.limits = map[string]time.Duration{}
	broken := []suite{{pkg: ".", flags: []string{"-test.nosuchflag"}}}
	if err := l.measure(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "fail without a mutant") {
		t.Errorf("got %v", err)
	}
}

// toyRun runs a campaign over some mutants of the toy.
func toyRun(ctx context.Context, root, results string, list ...*mutant) ([]result, string, error) {
	var out bytes.Buffer
	c := &campaign{root: root, targets: toyTargets, out: &out, resultsPath: results,
		options: options{parallel: 2, memoryMiB: 4096, resume: results}}
	got, err := c.run(ctx, list)
	return got, out.String(), err
}

// TestResume checks that a mutant with a result in the file does not run again, unless the sources
// have changed.
func TestResume(t *testing.T) {
	root, find := toyMutants(t)
	results := filepath.Join(t.TempDir(), "results")
	first, second := find("negate: a < b"), find("boundary: a < b")
	got, _, err := toyRun(t.Context(), root, results, first)
	if err != nil || len(got) != 1 || got[0].Outcome != killed {
		t.Fatalf("got %+v, %v", got, err)
	}
	got, out, err := toyRun(t.Context(), root, results, first, second)
	if err != nil || len(got) != 2 || !strings.Contains(out, "1 mutants are known") ||
		strings.Count(out, " left ") != 1 {
		t.Fatalf("got %+v, %v\n%s", got, err, out)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	got, _, err = toyRun(stopped, root, results, first, second, find("drop-guard"))
	if !errors.Is(err, context.Canceled) || len(got) != 2 {
		t.Errorf("stopped: got %+v, %v", got, err)
	}
	test := strings.Replace(toy["toy_test.go"], "wrong", "still wrong", 1)
	if err := os.WriteFile(filepath.Join(root, "toy_test.go"), []byte(test), 0o644); err != nil {
		t.Fatal(err)
	}
	_, out, err = toyRun(t.Context(), root, results, first)
	if err != nil || !strings.Contains(out, "0 mutants are known") {
		t.Errorf("results of other tests count: %v\n%s", err, out)
	}
}

// TestReport checks the lists of unexplained survivors, stale explanations and broken mutants.
func TestReport(t *testing.T) {
	all := []*mutant{{id: "a"}, {id: "b", hand: true, breaks: "Money is lost."}, {id: "c"}, {id: "d", hand: true}}
	results := []result{
		{Mutant: "a", Outcome: survived, mutant: all[0]},
		{Mutant: "b", Outcome: survived, mutant: all[1]},
		{Mutant: "c", Outcome: killed, By: "TestC", mutant: all[2]},
		{Mutant: "d", Outcome: notMutant, By: "undefined: x", mutant: all[3]},
	}
	known := map[string]string{"a": "Equivalent.", "c": "No test.", "gone": "Old."}
	var out bytes.Buffer
	report(&out, results, known, all)
	for _, want := range []string{
		"1 mutants killed, 2 survived, 1 did not compile",
		"1 survivors are not explained in tools/mutate/survivors.txt:\n\nb\n    it breaks: Money is lost.\n",
		"2 lines of tools/mutate/survivors.txt are stale; remove them:\n\n" +
			"c\n    killed now (TestC)\ngone\n    no such mutant any more\n",
		"d\n    does not compile, repair it in tools/mutate/mutants.txt: undefined: x\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &out)
		}
	}
}

// TestChoose checks how many mutants the flags select.
func TestChoose(t *testing.T) {
	var all []*mutant
	for i := range 20 {
		all = append(all, &mutant{id: fmt.Sprint("m", i)})
	}
	all = append(all, &mutant{id: "h1", hand: true}, &mutant{id: "h2", hand: true})
	for _, test := range []struct {
		args []string
		want int
	}{
		{nil, 22}, {[]string{"-hand"}, 2}, {[]string{"-sample", "5"}, 7}, {[]string{"-sample", "0"}, 2},
		{[]string{"-sample", "99"}, 22}, {[]string{"-only", "1$"}, 3}, {[]string{"-only", "1$", "-hand"}, 1},
	} {
		o, err := parseFlags(test.args)
		if got := choose(all, o); err != nil || len(got) != test.want {
			t.Errorf("%q: %d mutants, %v; want %d", test.args, len(got), err, test.want)
		}
	}
}
