package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// What the kernel knows about processes, from /proc. Elsewhere than on Linux
// all of it is zero, and shown as unknown.

// clockTick is the unit of CPU times in /proc: 1/100 s on every Linux that Go
// runs on.
const clockTick = 10 * time.Millisecond

// usage is what a process and its children have used.
type usage struct {
	cpu time.Duration // user and system, of those that live
	rss int64         // bytes resident
}

// measure sums over processes and their direct children: nginx and PostgreSQL
// do their work in those.
func measure(roots []int) (u usage, err error) {
	wanted := map[int]bool{}
	for _, pid := range roots {
		wanted[pid] = true
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return u, err
	}
	for _, path := range stats {
		p, err := readStat(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errGone) {
			continue // ended meanwhile
		}
		if err != nil {
			return u, err
		}
		if wanted[p.pid] || wanted[p.parent] {
			u.cpu += p.cpu
			u.rss += p.rss
		}
	}
	return u, nil
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

type stat struct {
	pid, parent int
	cpu         time.Duration
	rss         int64
}

var errGone = errors.New("process has ended")

// readStat reads a /proc/PID/stat, see proc(5): the command's name is in
// parentheses and may hold anything, so fields are counted behind it.
func readStat(path string) (s stat, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		if _, ended := err.(*os.PathError); ended {
			return s, errGone // ESRCH, when it ended between open and read
		}
		return s, err
	}
	return parseStat(b)
}

func parseStat(b []byte) (s stat, err error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return s, fmt.Errorf("%q is no process's state", b)
	}
	fields := bytes.Fields(b[end+1:]) // the first is field 3, the state
	if len(fields) < 22 {
		return s, fmt.Errorf("%q is no process's state", b)
	}
	number := func(text []byte) int64 {
		n, bad := strconv.ParseInt(string(text), 10, 64)
		if bad != nil && err == nil {
			err = bad
		}
		return n
	}
	s.pid = int(number(bytes.TrimSpace(b[:open])))
	s.parent = int(number(fields[1]))
	s.cpu = time.Duration(number(fields[11])+number(fields[12])) * clockTick
	s.rss = number(fields[21]) * int64(os.Getpagesize())
	return s, err
}
