//go:build unix && !linux

package proc

import (
	"os"
	"syscall"
)

// attributes can only set the process group: these systems do not signal the
// death of a parent.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// kill ends the whole group that the child leads.
func kill(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }
