package main

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"time"

	"sluice.example/sluice/internal/lab/proc"
)

// What the kernel knows about processes, from /proc. Elsewhere than on Linux
// all of it is zero, and shown as unknown.

// usage is what a process and its children have used.
type usage struct {
	cpu time.Duration // user and system, of those that live
	rss int64         // bytes resident
}

// measure sums over processes and their direct children: nginx and PostgreSQL
// do their work in those.
func measure(roots []int) (u usage, err error) {
	all, err := proc.Stats()
	for _, p := range all {
		if slices.Contains(roots, p.PID) || slices.Contains(roots, p.Parent) {
			u.cpu += p.CPU
			u.rss += p.RSS
		}
	}
	return u, err
}

// bytesWritten is what this process has written to files, or handed to sockets,
// since its start.
func bytesWritten() (n uint64) {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0 // shown as unknown
	}
	for line := range bytes.Lines(b) {
		if text, ok := bytes.CutPrefix(line, []byte("wchar: ")); ok {
			n, _ = strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64) // the kernel writes a number
		}
	}
	return n
}
