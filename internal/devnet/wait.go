package devnet

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/internal/lab/proc"
)

// errPortTaken reports that another process took a daemon's port after the port was found free and
// before the daemon started.
var errPortTaken = errors.New("a port was taken meanwhile")

// stepTimeout bounds each step of the network's start. All steps together take about ten seconds on
// two idle cores.
const stepTimeout = 90 * time.Second

// until calls check again and again until check returns nil. When the process ends, until fails
// with the end of the process's log. After stepTimeout it fails with check's last error.
func until(ctx context.Context, what string, p *proc.Process, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	err := p.Await(ctx, what, check)
	if err != nil && !p.Running() {
		return died(p)
	}
	return err
}
