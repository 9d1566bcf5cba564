package devnet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/internal/devnet/proc"
)

// errPortTaken reports a daemon that lost its port between the moment it was
// found free and its start.
var errPortTaken = errors.New("a port was taken meanwhile")

// pollEvery is how often the network asks whether a daemon got somewhere.
const pollEvery = 50 * time.Millisecond

// stepTimeout bounds each step of the network's start; all together take about
// ten seconds on two idle cores.
const stepTimeout = 90 * time.Second

// until polls check until it returns nil. It fails when the process ends, with
// the end of its log, and after stepTimeout, with check's last error.
func until(ctx context.Context, what string, p *proc.Process, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		attempt, cancelAttempt := context.WithTimeout(ctx, 10*time.Second)
		err := check(attempt)
		cancelAttempt()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return died(p)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
			}
			return fmt.Errorf("wait until %s: not within %s: %w; the log of %s ends with:\n%s",
				what, stepTimeout, last, p.Name(), p.Tail(15))
		}
	}
}
