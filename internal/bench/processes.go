package main

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"time"

	"sluice.example/sluice/internal/lab/proc"
)

// This file reads what the kernel reports about processes in /proc. On other systems than Linux all
// values are zero, and the report shows them as unknown.

// usage is what processes and their children have used.
type usage struct {
	cpu time.Duration // user and system time of the processes that still run
	rss int64         // resident memory in bytes
}

// measure returns the sum over processes and their direct children, because nginx and PostgreSQL do
// their work in child processes.
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

// bytesWritten returns how many bytes this process has written to files and sockets since its
// start.
func bytesWritten() (n uint64) {
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0 // the report shows 0 as unknown
	}
	for line := range bytes.Lines(b) {
		if text, ok := bytes.CutPrefix(line, []byte("wchar: ")); ok {
			n, _ = strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64) // the kernel writes a number
		}
	}
	return n
}
