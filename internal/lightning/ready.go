package lightning

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"golang.org/x/sync/singleflight"
)

// readiness remembers the last probe, so that however often readiness is
// asked for, lnd sees at most one probe per interval.
type readiness struct {
	asking singleflight.Group
	last   atomic.Pointer[probed] // nil: never probed
}

// probed is the answer of one probe.
type probed struct {
	at  time.Time
	err error
}

// readyInterval is how long a probe's answer stands.
const readyInterval = 2 * time.Second

// Ready reports whether lnd answers and takes the macaroon: nil, or an error
// that matches ErrUnavailable or ErrDenied. The answer may be two seconds old.
// It lists one invoice, because an invoice macaroon may not ask for more.
// Callers who ask at the same time share one probe, which goes on when they leave.
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

// probe asks lnd.
func (c *Client) probe() error {
	ctx, cancel := c.deadline(context.Background())
	defer cancel()
	_, err := c.ln.ListInvoices(ctx, &lnrpc.ListInvoiceRequest{NumMaxInvoices: 1, Reversed: true})
	return wrap("probe", err)
}
