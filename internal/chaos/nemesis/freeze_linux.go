package main

import (
	"os"
	"os/signal"
	"syscall"
)

// The kernel's requests that keep all writes to a file system waiting, and let
// them go on (linux/fs.h).
const (
	requestFreeze = 0xc0045877
	requestThaw   = 0xc0045878
)

func freeze(dir *os.File) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	return control(dir, requestFreeze)
}

func thaw(dir *os.File) error { return control(dir, requestThaw) }

func control(dir *os.File, request uintptr) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), request, 0); errno != 0 {
		return errno
	}
	return nil
}
