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

// drain is how long to wait for the output of a process that was killed.
const drain = 5 * time.Second

// ended is what became of a process.
type ended struct {
	ok      bool
	timeout bool
	output  string // the end of it
}

// execute runs a command in a process group of its own and kills the whole group
// at the limit, and the processes that are left of it once the command has
// ended. An error says that the command could not be run at all, or that ctx
// ended.
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
	kill() // children that outlived it
	if ctx.Err() != nil {
		return ended{}, ctx.Err()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return ended{}, err
	}
	if !timeout && exit != nil && exit.ProcessState.ExitCode() < 0 {
		return ended{}, fmt.Errorf("%s was killed from outside: %w", cmd.Args, exit) // memory ran out, perhaps
	}
	return ended{ok: err == nil && !timeout, timeout: timeout, output: out.String()}, nil
}

// gently makes a command that runs with more niceness. The Go runtime has many
// threads, of which setpriority would change one, so the program nice does it.
func gently(nice int, program string, args ...string) *exec.Cmd {
	return exec.Command("nice", append([]string{"-n", fmt.Sprint(nice), program}, args...)...)
}

// limited makes a command that may not use more memory than the limit. A mutant
// may append for ever.
func limited(memoryMiB, nice int, program string, args ...string) *exec.Cmd {
	return gently(nice, "/bin/sh", append([]string{"-c", `ulimit -d "$1" && shift && exec "$@"`, "sh",
		fmt.Sprint(memoryMiB * 1024), program}, args...)...)
}

// tail keeps the end of what is written to it. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// tailSize is how much of the output is kept, in bytes.
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

// killer says from the output of a failed run which test failed.
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
