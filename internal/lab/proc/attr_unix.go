//go:build unix && !linux

package proc

import (
	"os"
	"syscall"
)

// attributes only sets the process group, because these systems send no signal to a child when its
// parent dies.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// kill kills the whole process group that the child leads.
func kill(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }
