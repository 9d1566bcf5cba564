package pgtest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// startTied starts a process that ends when this process ends, even by kill -9. The kernel ties the process to the
// thread that started it, so startTied keeps that thread until the process has ended.
func startTied(cmd *exec.Cmd, who *syscall.Credential, exited <-chan struct{}) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGQUIT, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			<-exited
		}
	}()
	return <-started
}
