package backoff_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice.example/sluice/internal/backoff"
)

func TestPausesDoubleUpToTheBound(t *testing.T) {
	b := backoff.New(10*time.Millisecond, 50*time.Millisecond)
	var got []time.Duration
	for range 5 {
		got = append(got, b.Next())
	}
	if want := []time.Duration{10e6, 20e6, 40e6, 50e6, 50e6}; !slices.Equal(got, want) {
		t.Errorf("pauses %v, want %v", got, want)
	}
	b.Reset()
	if d := b.Next(); d != 10*time.Millisecond {
		t.Errorf("after Reset %s", d)
	}
}

func TestJitterKeepsToHalfAndWhole(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		b := backoff.Jittered(time.Second, time.Minute)
		b.Next()
		d := b.Next()
		if d < time.Second || d > 2*time.Second {
			t.Fatalf("second pause %s, want one to two seconds", d)
		}
		seen[d] = true
	}
	if len(seen) < 50 {
		t.Errorf("only %d different pauses of a hundred", len(seen))
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backoff.New(time.Second, time.Second)
		began := time.Now()
		if err := b.Wait(t.Context()); err != nil || time.Since(began) != time.Second {
			t.Errorf("waited %s: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second+time.Millisecond {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}
