package chaos

import (
	"syscall"
	"testing"

	"sluice.example/sluice/internal/lab/proc"
)

// Freeze stops a process and all of its children where they stand (SIGSTOP), and
// returns what lets them go on. It finds the children in /proc; where there is
// none, it stops the parent alone.
func Freeze(t testing.TB, pid int) (thaw func()) {
	t.Helper()
	all := []int{pid}
	signal(t, syscall.SIGSTOP, pid) // first: it makes no more children
	for _, child := range proc.Children(pid) {
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
