package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// clockTick is the unit of CPU times in /proc. It is 1/100 s on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// Stat is what the kernel reports about a process.
type Stat struct {
	PID, Parent int
	State       byte          // 'Z': the process has ended and its parent has not waited for it yet
	CPU         time.Duration // user and system time
	RSS         int64         // bytes resident
}

// Stats returns all processes in /proc. It returns an empty list on a system without /proc.
func Stats() (all []Stat, err error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		s, err := readStat(path)
		if errors.As(err, new(*os.PathError)) {
			continue // the process has ended: no such file, or ESRCH between open and read
		}
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Children returns the ids of the processes whose parent is pid. It returns an empty list on a
// system without /proc.
func Children(pid int) (found []int) {
	all, err := Stats()
	if err != nil {
		return nil // this kernel writes another format
	}
	for _, s := range all {
		if s.Parent == pid {
			found = append(found, s.PID)
		}
	}
	return found
}

// Alive reports whether a process with this id exists and has not ended.
func Alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil || p.Signal(syscall.Signal(0)) != nil {
		return false
	}
	if s, err := readStat(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		return s.State != 'Z'
	}
	_, err = os.Stat("/proc/self")
	return err != nil // on a system with /proc, a missing file means that the process has just ended
}

// readStat reads one file /proc/PID/stat.
func readStat(path string) (s Stat, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	return parseStat(b)
}

// parseStat reads one process, see proc(5). The command's name is in parentheses and may contain
// any character, so parseStat counts the fields after the last parenthesis.
func parseStat(b []byte) (s Stat, err error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return s, fmt.Errorf("%q is no process's state", b)
	}
	fields := bytes.Fields(b[end+1:]) // the first of them is field 3, the state
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
	s.PID = int(number(bytes.TrimSpace(b[:open])))
	s.State = fields[0][0]
	s.Parent = int(number(fields[1]))
	s.CPU = time.Duration(number(fields[11])+number(fields[12])) * clockTick
	s.RSS = number(fields[21]) * int64(os.Getpagesize())
	return s, err
}
