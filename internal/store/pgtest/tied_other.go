//go:build !linux

package pgtest

import (
	"os/exec"
	"syscall"
)

// startTied starts a process. Only Linux can tie its life to this one's: here,
// killing the tests leaves a server behind.
func startTied(cmd *exec.Cmd, who *syscall.Credential, _ <-chan struct{}) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setpgid: true}
	return cmd.Start()
}
