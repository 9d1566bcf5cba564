package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Freeze stops a process and all of its children where they stand (SIGSTOP), and
// returns what lets them go on. It finds the children in /proc; where there is
// none, it stops the parent alone.
func Freeze(t testing.TB, pid int) (thaw func()) {
	t.Helper()
	all := []int{pid}
	signal(t, syscall.SIGSTOP, pid) // first: it makes no more children
	for _, child := range children(pid) {
		signal(t, syscall.SIGSTOP, child)
		all = append(all, child)
	}
	return func() {
		for _, p := range all {
			signal(t, syscall.SIGCONT, p)
		}
	}
}

func signal(t testing.TB, s syscall.Signal, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil && err != syscall.ESRCH {
		t.Fatalf("%s to process %d: %v", s, pid, err)
	}
}

// children lists the processes whose parent is pid.
func children(pid int) (found []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is sound
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state parent …", where the name may hold anything.
		rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
		var state string
		var parent int
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil || parent != pid {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			found = append(found, child)
		}
	}
	return found
}
