package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// drain is how long execute waits for the output of a process that was killed.
const drain = 5 * time.Second

// ended is the result of a process.
type ended struct {
	ok      bool
	timeout bool
	output  string // the last tailSize bytes
}

// execute runs a command in its own process group. At the limit it kills the whole group. Once the
// command has ended, it kills the rest of the group. An error means that the command could not be
// run or that ctx ended.
func execute(ctx context.Context, limit time.Duration, cmd *exec.Cmd) (ended, error) {
	out := &tail{}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, out, drain
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return ended{}, err
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	over := make(chan struct{})
	var timeout bool
	var watch sync.WaitGroup
	watch.Go(func() {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case <-timer.C:
			timeout = true
			kill()
		case <-ctx.Done():
			kill()
		case <-over:
		}
	})
	err := cmd.Wait()
	close(over)
	watch.Wait()
	kill() // kill children that are still running
	if ctx.Err() != nil {
		return ended{}, ctx.Err()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return ended{}, err
	}
	if !timeout && exit != nil && exit.ProcessState.ExitCode() < 0 {
		return ended{}, fmt.Errorf("%s was killed from outside: %w", cmd.Args, exit) // perhaps memory ran out
	}
	return ended{ok: err == nil && !timeout, timeout: timeout, output: out.String()}, nil
}

// gently returns a command that runs with more niceness. It uses the program nice, because
// setpriority would change only one of the many threads of the Go runtime.
func gently(nice int, program string, args ...string) *exec.Cmd {
	return exec.Command("nice", append([]string{"-n", fmt.Sprint(nice), program}, args...)...)
}

// limited returns a command that may not use more memory than memoryMiB, because a mutant may
// append for ever.
func limited(memoryMiB, nice int, program string, args ...string) *exec.Cmd {
	return gently(nice, "/bin/sh", append([]string{"-c", `ulimit -d "$1" && shift && exec "$@"`, "sh",
		fmt.Sprint(memoryMiB * 1024), program}, args...)...)
}

// tail keeps the end of the text that is written to it. It is safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// tailSize is how many bytes of the output are kept.
const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if n := len(t.text) - tailSize; n > tailSize {
		t.text = append(t.text[:0], t.text[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

var (
	failed   = regexp.MustCompile(`--- FAIL: (\S+)`)
	panicked = regexp.MustCompile(`(?m)^(panic|fatal error): .*`)
)

// killer returns the name of the test that failed, from the output of a failed run.
func (e *ended) killer() string {
	if e.timeout {
		return "time limit"
	}
	if all := failed.FindAllStringSubmatch(e.output, -1); len(all) > 0 {
		return all[len(all)-1][1]
	}
	if line := panicked.FindString(e.output); line != "" {
		return line[:min(len(line), 100)]
	}
	lines := strings.Split(strings.TrimSpace(e.output), "\n")
	last := lines[len(lines)-1]
	return "exit: " + last[:min(len(last), 100)]
}
