package lightning

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"golang.org/x/sync/singleflight"
)

// readiness remembers the last probe, so that lnd gets at most one probe per readyInterval, however
// often Ready is called.
type readiness struct {
	asking singleflight.Group
	last   atomic.Pointer[probed] // nil: lnd was never probed
}

// probed is the result of one probe.
type probed struct {
	at  time.Time
	err error
}

// readyInterval is how long the result of a probe is used.
const readyInterval = 2 * time.Second

// Ready returns nil when lnd answers and accepts the macaroon. Otherwise it returns an error that
// matches ErrUnavailable or ErrDenied. The result may be two seconds old. The probe lists one
// invoice, because an invoice macaroon has no right to do more. Callers of Ready at the same time
// share one probe. The probe continues when a caller's context ends.
func (c *Client) Ready(ctx context.Context) error {
	answer := c.ready.asking.DoChan("", func() (any, error) {
		last := c.ready.last.Load()
		if last == nil || time.Since(last.at) >= readyInterval {
			err := c.probe()
			last = &probed{time.Now(), err}
			c.ready.last.Store(last)
		}
		return nil, last.err
	})
	select {
	case r := <-answer:
		return r.Err
	case <-ctx.Done():
		return wrap("probe", ctx.Err())
	}
}

// probe asks lnd for one invoice.
func (c *Client) probe() error {
	ctx, cancel := c.deadline(context.Background())
	defer cancel()
	_, err := c.ln.ListInvoices(ctx, &lnrpc.ListInvoiceRequest{NumMaxInvoices: 1, Reversed: true})
	return wrap("probe", err)
}
