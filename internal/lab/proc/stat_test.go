package proc

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 123 1000000 11 184467 1 1 0 0 0\n"))
	if want := (Stat{PID: 42, Parent: 7, State: 'S', CPU: 2 * time.Second, RSS: 11 * int64(os.Getpagesize())}); err != nil || s != want {
		t.Errorf("got %+v, %v, want %+v", s, err, want)
	}
	for _, bad := range []string{"", "42", "42 (a) S 1", "x (a) S 7 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 123 1000000 11"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}
