//go:build unix

package proc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/proc"
)

// parentEnv makes this test binary run as a parent, which starts a child, prints the child's
// process id and waits to be killed.
const parentEnv = "PROC_TEST_PARENT_LOG"

func TestMain(m *testing.M) {
	if log := os.Getenv(parentEnv); log != "" {
		l := proc.NewLauncher()
		p, err := l.Start(proc.Spec{Name: "child", Path: "/bin/sh", Args: []string{"-c", "sleep 600"}, Log: log})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(p.Pid())
		<-p.Done()
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestChildDiesWithKilledParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux signals the death of a parent")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), parentEnv+"="+filepath.Join(t.TempDir(), "log"))
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(line)
	}
	if !proc.Alive(child) {
		t.Fatal("the child is not running")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // Wait reports the kill
	eventually(t, "the child is dead", func() bool { return !proc.Alive(child) })
}

// TestChildOutlivesThreads starts a child while many threads start and end. The end of one of these
// threads must not kill the child.
func TestChildOutlivesThreads(t *testing.T) {
	l := proc.NewLauncher()
	defer l.Close()
	started := make(chan *proc.Process)
	go func() {
		runtime.LockOSThread() // this thread ends with the goroutine
		p, err := l.Start(spec(t, "sleep 600"))
		if err != nil {
			t.Error(err)
		}
		started <- p
	}()
	p := <-started
	for range 50 {
		done := make(chan struct{})
		go func() { runtime.LockOSThread(); close(done) }()
		<-done
	}
	select {
	case <-p.Done():
		t.Fatal(p.Exit())
	case <-time.After(200 * time.Millisecond):
	}
	if err := p.Stop(5 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestStopAsksThenKillsTheGroup(t *testing.T) {
	l := proc.NewLauncher()
	defer l.Close()
	s := spec(t, `trap "" TERM; sleep 600 & echo $!; while :; do wait; done`)
	p, err := l.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	var grandchild int
	eventually(t, "the grandchild is started", func() bool {
		grandchild, err = strconv.Atoi(strings.TrimSpace(p.Tail(1)))
		return err == nil
	})
	err = p.Stop(100 * time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got %v", err)
	}
	eventually(t, "the whole group is dead", func() bool { return !proc.Alive(p.Pid()) && !proc.Alive(grandchild) })
	if err := p.Stop(time.Second); err != nil {
		t.Errorf("stopping an ended process: %v", err)
	}
}

func TestExitTellsTheEndOfTheLog(t *testing.T) {
	l := proc.NewLauncher()
	defer l.Close()
	p, err := l.Start(spec(t, "seq 100; echo no such option >&2; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	err = p.Exit()
	for _, want := range []string{"test ended (exit status 3)", "no such option", "\n    100\n"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "\n    50\n") {
		t.Errorf("too much of the log: %v", err)
	}
}

func TestAwait(t *testing.T) {
	l := proc.NewLauncher()
	defer l.Close()
	p, err := l.Start(spec(t, "echo up; sleep 600"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	n := 0
	if err := p.Await(t.Context(), "three", func(context.Context) error {
		if n++; n < 3 {
			return errors.New("too few")
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("asked %d times: %v", n, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	never := func(context.Context) error { return errors.New("not yet") }
	if err := p.Await(short, "never", never); err == nil || !strings.Contains(err.Error(), "wait until never") ||
		!strings.Contains(err.Error(), "not yet") || !strings.Contains(err.Error(), "    up") {
		t.Errorf("at the limit: %v", err)
	}
	gone, err := l.Start(spec(t, "echo no such option; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Await(t.Context(), "never", never); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("of a process that ended: %v", err)
	}
}

func TestFinishWantsAGoodEnd(t *testing.T) {
	l := proc.NewLauncher()
	defer l.Close()
	for script, want := range map[string]string{
		`trap "exit 0" TERM; echo up; while :; do sleep 0.01; done`: "",
		`trap "exit 4" TERM; echo up; while :; do sleep 0.01; done`: "exit status 4",
		`trap "" TERM; echo up; while :; do sleep 0.01; done`:       "did not end within",
		`echo up; exit 0`: "ended before it was told to",
	} {
		p, err := l.Start(spec(t, script))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it runs", func() bool { return strings.Contains(p.Tail(1), "up") })
		if strings.HasSuffix(script, "exit 0") {
			<-p.Done()
		}
		limit := 10 * time.Second
		if strings.HasPrefix(want, "did not") {
			limit = 100 * time.Millisecond
		}
		err = p.Finish(syscall.SIGTERM, limit)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", script, err, want)
		}
		if p.Running() {
			t.Errorf("%s: it runs still", script)
		}
	}
}

func TestStartFails(t *testing.T) {
	l := proc.NewLauncher()
	defer l.Close()
	_, err := l.Start(proc.Spec{Name: "ghost", Path: "/nonexistent/ghost", Log: filepath.Join(t.TempDir(), "log")})
	if err == nil || !strings.Contains(err.Error(), "start ghost") {
		t.Errorf("got %v", err)
	}
}

func spec(t *testing.T, script string) proc.Spec {
	return proc.Spec{Name: "test", Path: "/bin/sh", Args: []string{"-c", script}, Log: filepath.Join(t.TempDir(), "log")}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within ten seconds: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
