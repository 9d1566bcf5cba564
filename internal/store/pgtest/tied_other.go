//go:build !linux

package pgtest

import (
	"os/exec"
	"syscall"
)

// startTied starts a process. Only Linux can end the process together with this process. On other systems a server
// continues to run when the tests are killed.
func startTied(cmd *exec.Cmd, who *syscall.Credential, _ <-chan struct{}) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setpgid: true}
	return cmd.Start()
}
