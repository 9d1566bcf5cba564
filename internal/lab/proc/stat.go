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

// clockTick is the unit of CPU times in /proc: 1/100 s on every Linux that Go
// runs on.
const clockTick = 10 * time.Millisecond

// Stat is what the kernel knows about a process.
type Stat struct {
	PID, Parent int
	State       byte          // 'Z': it has ended, and its parent has not taken note
	CPU         time.Duration // user and system
	RSS         int64         // bytes resident
}

// Stats lists all processes, as /proc shows them; none where there is no /proc.
func Stats() (all []Stat, err error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		s, err := readStat(path)
		if errors.As(err, new(*os.PathError)) {
			continue // it has ended meanwhile: not there, or ESRCH between open and read
		}
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Children lists the processes whose parent is pid; none where there is no /proc.
func Children(pid int) (found []int) {
	all, err := Stats()
	if err != nil {
		return nil // the kernel's form is another one
	}
	for _, s := range all {
		if s.Parent == pid {
			found = append(found, s.PID)
		}
	}
	return found
}

// Alive says whether there is a process with that id that has not ended.
func Alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil || p.Signal(syscall.Signal(0)) != nil {
		return false
	}
	if s, err := readStat(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		return s.State != 'Z'
	}
	_, err = os.Stat("/proc/self")
	return err != nil // with /proc, it has ended just now
}

// readStat reads a /proc/PID/stat.
func readStat(path string) (s Stat, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	return parseStat(b)
}

// parseStat reads one process, see proc(5): the command's name is in parentheses
// and may hold anything, so fields are counted behind it.
func parseStat(b []byte) (s Stat, err error) {
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
	s.PID = int(number(bytes.TrimSpace(b[:open])))
	s.State = fields[0][0]
	s.Parent = int(number(fields[1]))
	s.CPU = time.Duration(number(fields[11])+number(fields[12])) * clockTick
	s.RSS = number(fields[21]) * int64(os.Getpagesize())
	return s, err
}
