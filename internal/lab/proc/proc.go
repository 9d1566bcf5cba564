// Package proc runs child processes that end with their parent.
//
//	l := proc.NewLauncher()
//	defer l.Close()
//	p, err := l.Start(proc.Spec{Name: "btcd", Path: path, Args: args, Log: "btcd.log"})
//	...
//	p.Stop(10 * time.Second)
//
// On Linux the kernel kills every child when this process ends, even if this process ends by
// SIGKILL. Other systems do not do this. There the children end with Stop, and may continue to run
// after a SIGKILL of the parent.
//
// Each child leads its own process group, so that Ctrl-C in a terminal reaches only the parent. The
// parent then stops the children in order.
package proc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Launcher starts processes from one operating system thread.
//
// Linux sends the parent-death signal when the thread that forked ends, not when the process ends.
// Go may end a thread at any time. All forks therefore run on one goroutine that is locked to its
// thread and continues until Close.
type Launcher struct {
	forks chan func()
	once  sync.Once
}

// NewLauncher starts the launcher's thread.
func NewLauncher() *Launcher {
	l := &Launcher{forks: make(chan func())}
	go func() {
		// The goroutine never unlocks its thread, so the thread ends with the goroutine. On Linux
		// the children that still run then end too.
		runtime.LockOSThread()
		for fork := range l.forks {
			fork()
		}
	}()
	return l
}

// Close ends the launcher. The launcher must not be used after that. The caller stops the processes
// before. On Linux, Close kills the processes that still run.
func (l *Launcher) Close() { l.once.Do(func() { close(l.forks) }) }

// Spec says what to run.
type Spec struct {
	Name string   // for messages
	Path string   // path of the program
	Args []string // arguments without the program's name
	Env  []string // nil: the environment of this process
	Dir  string   // working directory; "": the working directory of this process
	Log  string   // file for stdout and stderr, opened for appending, mode 0600
}

// Process is a started child.
type Process struct {
	spec Spec
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how the process ended; only read after done is closed
}

// Start starts a process and does not wait for it.
func (l *Launcher) Start(spec Spec) (*Process, error) {
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	defer log.Close() // the child has its own copy
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes()
	started := make(chan error, 1)
	l.forks <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{spec: spec, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Name returns the name in the Spec.
func (p *Process) Name() string { return p.spec.Name }

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Exit describes how the process ended, with the last lines of its log. It returns nil while the
// process runs.
func (p *Process) Exit() error {
	if p.Running() {
		return nil
	}
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended (%s); its log %s ends with:\n%s", p.spec.Name, how, p.spec.Log, p.Tail(15))
}

// Stop asks the process to end (SIGTERM) and waits for at most grace. Then it kills the process and
// its group. Stop returns when the process has ended. It returns an error when it had to kill the
// process. Stop does nothing when the process has already ended.
func (p *Process) Stop(grace time.Duration) error {
	if !p.Running() {
		return nil
	}
	if err := terminate(p.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.spec.Name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	p.Kill()
	return fmt.Errorf("%s did not stop within %s and was killed", p.spec.Name, grace)
}

// Kill kills the process and its group at once and waits until the process has ended.
func (p *Process) Kill() {
	if !p.Running() { // the process id may belong to another process by now
		return
	}
	kill(p.cmd.Process)
	<-p.done
}

// Tail returns the last lines of the log, indented, for use in messages.
func (p *Process) Tail(lines int) string {
	const window = 16 << 10
	f, err := os.Open(p.spec.Log)
	if err != nil {
		return "    (no log)"
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		f.Seek(max(0, size-window), io.SeekStart)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return "    (no log)"
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "    " + strings.Join(all, "\n    ")
}
