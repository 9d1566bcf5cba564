package devnet

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/internal/lab/proc"
)

// errPortTaken reports a daemon that lost its port between the moment it was
// found free and its start.
var errPortTaken = errors.New("a port was taken meanwhile")

// stepTimeout bounds each step of the network's start; all together take about
// ten seconds on two idle cores.
const stepTimeout = 90 * time.Second

// until polls check until it returns nil. It fails when the process ends, with
// the end of its log, and after stepTimeout, with check's last error.
func until(ctx context.Context, what string, p *proc.Process, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	err := p.Await(ctx, what, check)
	if err != nil && !p.Running() {
		return died(p)
	}
	return err
}
