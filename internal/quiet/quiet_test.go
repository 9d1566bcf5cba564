package quiet

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// buffer is what was logged. It has a lock, because summaries come from timers.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func logger() (*slog.Logger, *buffer) {
	out := new(buffer)
	return slog.New(New(slog.NewTextHandler(out, nil))), out
}

func lines(out *buffer, with ...string) (n int) {
	for line := range strings.SplitSeq(out.String(), "\n") {
		found := line != ""
		for _, text := range with {
			found = found && strings.Contains(line, text)
		}
		if found {
			n++
		}
	}
	return n
}

func TestRepetitionsAreCountedNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out := logger()
		for i := range 12_000 {
			log.Warn("request failed", "backend", "gpu-1", "request_id", i, "cause", fmt.Errorf("port %d", i))
		}
		log.Warn("request failed", "backend", "gpu-2")
		log.Error("request failed", "backend", "gpu-1")
		log.With("backend", "gpu-3").Warn("request failed")
		if n := lines(out, "gpu-1", "WARN"); n != Burst {
			t.Errorf("%d lines of 12,000, want %d", n, Burst)
		}
		if lines(out, "gpu-2") != 1 || lines(out, "gpu-1", "ERROR") != 1 || lines(out, "gpu-3") != 1 {
			t.Errorf("other things were taken for repetitions:\n%s", out)
		}
		time.Sleep(Interval + time.Second)
		synctest.Wait()
		if n := lines(out, "gpu-1", fmt.Sprintf("left_out=%d", 12_000-Burst)); n != 1 {
			t.Errorf("%d lines say how many were left out:\n%s", n, out)
		}
		// The warning is logged again and again, and the log has one line per interval.
		for range 5 {
			log.Warn("request failed", "backend", "gpu-1")
		}
		time.Sleep(Interval)
		synctest.Wait()
		if n := lines(out, "gpu-1", "left_out=5"); n != 1 {
			t.Errorf("%d lines of what went on:\n%s", n, out)
		}
		// The warning stops. When it comes again, it counts as new.
		time.Sleep(Interval)
		synctest.Wait()
		before := lines(out, "gpu-1", "WARN")
		log.Warn("request failed", "backend", "gpu-1", "request_id", "new")
		if lines(out, "gpu-1", "WARN") != before+1 {
			t.Error("after a quiet interval it is not written")
		}
		time.Sleep(2 * Interval)
		synctest.Wait()
	})
}

func TestWhatIsNoWarningPasses(t *testing.T) {
	log, out := logger()
	for range 100 {
		log.Info("request", "backend", "gpu-1")
	}
	if n := lines(out); n != 100 {
		t.Errorf("%d of 100 lines", n)
	}
	if h := New(log.Handler()); h != log.Handler() {
		t.Error("what is limited is limited twice")
	}
}

// Memory is bounded whatever is logged.
func TestRememberedMessagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out := logger()
		for i := range 2 * maxKeys {
			log.Warn("message", "path", i)
		}
		if n := lines(out); n != 2*maxKeys {
			t.Errorf("%d of %d different lines", n, 2*maxKeys)
		}
		remembered := func() int {
			shared := log.Handler().(*Handler).shared
			shared.mu.Lock()
			defer shared.mu.Unlock()
			return len(shared.seen)
		}
		if n := remembered(); n > maxKeys {
			t.Errorf("%d messages are remembered", n)
		}
		time.Sleep(2 * Interval)
		synctest.Wait()
		if n := remembered(); n != 0 {
			t.Errorf("%d messages are remembered for ever", n)
		}
	})
}
