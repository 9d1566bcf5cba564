package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// pollEvery is how often Await calls check. attemptLimit bounds each call.
const (
	pollEvery    = 20 * time.Millisecond
	attemptLimit = 10 * time.Second
)

// Await calls check again and again until check returns nil. When the process ends, Await fails
// with the error of Exit. When ctx ends, Await fails with check's last error and the end of the
// log. what completes the message "wait until …".
func (p *Process) Await(ctx context.Context, what string, check func(context.Context) error) error {
	began := time.Now()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptLimit)
		err := check(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-p.done:
			return p.Exit()
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
			}
			return fmt.Errorf("wait until %s: not within %s: %w; the log of %s ends with:\n%s",
				what, time.Since(began).Round(time.Second), last, p.spec.Name, p.Tail(25))
		}
	}
}

// Signal sends a signal to the process, but not to its group.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("%s to %s: %w", s, p.spec.Name, err)
	}
	return nil
}

// Finish sends a signal and waits for the process to end with exit status 0. After limit it kills
// the process and fails. It also fails when the process had ended before.
func (p *Process) Finish(signal os.Signal, limit time.Duration) error {
	if !p.Running() {
		return fmt.Errorf("ended before it was told to: %w", p.Exit())
	}
	if err := p.Signal(signal); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(limit):
		tail := p.Tail(30)
		p.Kill()
		return fmt.Errorf("%s did not end within %s of %s; its log ends with:\n%s", p.spec.Name, limit, signal, tail)
	}
	if p.err != nil {
		return p.Exit()
	}
	return nil
}
