// Package proc runs child processes that do not outlive their parent.
//
//	l := proc.NewLauncher()
//	defer l.Close()
//	p, err := l.Start(proc.Spec{Name: "btcd", Path: path, Args: args, Log: "btcd.log"})
//	...
//	p.Stop(10 * time.Second)
//
// On Linux the kernel kills every child when this process ends, however it
// ends, SIGKILL included. Other systems have no such promise: there the
// children end with Stop, and may stay behind after a SIGKILL of the parent.
//
// Each child leads a process group of its own, so that Ctrl-C in a terminal
// reaches only the parent, which then stops the children in order.
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
// Linux sends the parent-death signal when the *thread* that forked ends, not
// when the process does, and Go ends threads as it likes. So all forks happen
// on a goroutine that is locked to its thread and lives until Close.
type Launcher struct {
	forks chan func()
	once  sync.Once
}

// NewLauncher starts the launcher's thread.
func NewLauncher() *Launcher {
	l := &Launcher{forks: make(chan func())}
	go func() {
		// Never unlocked: the thread ends with the goroutine, and the
		// children that were not stopped until then end with the thread.
		runtime.LockOSThread()
		for fork := range l.forks {
			fork()
		}
	}()
	return l
}

// Close ends the launcher, which must not be used any more. Stop the
// processes first; on Linux those that still run are killed.
func (l *Launcher) Close() { l.once.Do(func() { close(l.forks) }) }

// Spec says what to run.
type Spec struct {
	Name string   // for messages
	Path string   // of the program
	Args []string // without the program itself
	Env  []string // nil: this process's environment
	Dir  string   // working directory; empty: this process's
	Log  string   // file that takes stdout and stderr, appended, mode 0600
}

// Process is a started child.
type Process struct {
	spec Spec
	cmd  *exec.Cmd
	done chan struct{}
	err  error // why it ended; read after done
}

// Start runs the process; it returns as soon as it is started.
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

// Name is the name that the Spec gave.
func (p *Process) Name() string { return p.spec.Name }

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running says whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Exit describes how the process ended, with the last lines of its log; nil
// while it runs.
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

// Stop asks the process to end (SIGTERM), waits for at most grace, then kills
// it and all of its group. It returns when the process has ended; the error
// says that it had to be killed. Stopping an ended process does nothing.
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

// Kill ends the process and its group at once and waits for it.
func (p *Process) Kill() {
	if !p.Running() { // its id may be another's by now
		return
	}
	kill(p.cmd.Process)
	<-p.done
}

// Tail returns the last lines of the log, indented, for messages.
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
