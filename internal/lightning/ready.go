package lightning

import (
	"context"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
)

// readiness remembers the last probe, so that however often readiness is
// asked for, lnd sees at most one probe per interval.
type readiness struct {
	turn chan struct{} // holds one token; the goroutine that has taken it owns the fields below
	at   time.Time
	err  error
}

// readyInterval is how long a probe's answer stands.
const readyInterval = 2 * time.Second

func newReadiness() readiness {
	r := readiness{turn: make(chan struct{}, 1)}
	r.turn <- struct{}{}
	return r
}

// Ready reports whether lnd answers and takes the macaroon: nil, or an error
// that matches ErrUnavailable or ErrDenied. The answer may be two seconds old.
// It lists one invoice, because an invoice macaroon may not ask for more.
func (c *Client) Ready(ctx context.Context) error {
	select {
	case <-c.ready.turn:
	case <-ctx.Done():
		return wrap("probe", ctx.Err())
	}
	defer func() { c.ready.turn <- struct{}{} }()
	if !c.ready.at.IsZero() && time.Since(c.ready.at) < readyInterval {
		return c.ready.err
	}
	probe, cancel := c.deadline(ctx)
	defer cancel()
	_, err := c.ln.ListInvoices(probe, &lnrpc.ListInvoiceRequest{NumMaxInvoices: 1, Reversed: true})
	if ctx.Err() != nil {
		// The asker left: that says nothing about lnd.
		return wrap("probe", ctx.Err())
	}
	c.ready.at, c.ready.err = time.Now(), wrap("probe", err)
	return c.ready.err
}
