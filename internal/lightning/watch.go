package lightning

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Sink takes what Watch finds. It is the ledger's side of the settle stream.
type Sink interface {
	// Cursor returns the settle index up to which the invoices of the node
	// are recorded; known is false for a node never seen.
	Cursor(ctx context.Context, node string) (index uint64, known bool, err error)
	// Settled records the invoice, if it is one of ours, and stores
	// inv.Index as the node's cursor when it is larger than what stands,
	// both in one transaction. It is called again for an invoice that it has
	// had before, and after an error until it succeeds: no invoice is skipped
	// because the store is away. An invoice that is not ours is no error.
	Settled(ctx context.Context, inv SettledInvoice) error
	// Born is when the ledger was made. No invoice of ours is older.
	Born(ctx context.Context) (time.Time, error)
}

// pace is how fast Watch does what depends on time.
type pace struct {
	firstDelay time.Duration // before the first attempt to reconnect
	maxDelay   time.Duration // between attempts
	confirm    time.Duration // in which a live subscription must show itself
	quiet      time.Duration // without events, after which a gap is believed; well above what keep-alive takes to find a dead peer
}

func defaultPace() pace {
	return pace{firstDelay: 200 * time.Millisecond, maxDelay: 15 * time.Second, confirm: 10 * time.Second, quiet: 2 * time.Minute}
}

// retryDelay is a growing, jittered delay: between half and all of it is
// waited, so that the replicas of one gateway do not return to lnd in step.
type retryDelay struct {
	next, first, max time.Duration
}

func (p pace) retryDelay() *retryDelay {
	return &retryDelay{next: p.firstDelay, first: p.firstDelay, max: p.maxDelay}
}

func (b *retryDelay) reset() { b.next = b.first }

// wait sleeps; it returns early with the context's error when that ends.
func (b *retryDelay) wait(ctx context.Context) error {
	d := b.next/2 + rand.N(b.next/2+1)
	b.next = min(2*b.next, b.max)
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Watch hands every settled invoice of the node to the sink, from the sink's
// cursor on, until ctx ends, whose error it returns. Each invoice comes at
// least once, whatever breaks in between; several replicas may watch one node.
//
// How the stream is joined follows from two habits of lnd (0.21): it replays
// nothing for settle index 0, and it sends nothing, not even live, up to the
// index it was asked for, so that a rebuilt node that starts low again would
// stay silent. See session.
func (c *Client) Watch(ctx context.Context, sink Sink) error {
	delay := c.pace.retryDelay()
	lost := false
	for {
		s := &session{client: c, sink: sink, live: func() {
			delay.reset()
			c.watching.Store(true)
			if lost {
				c.log.Info("the stream of settled invoices is back")
			}
			lost = false
		}}
		err := s.run(ctx)
		c.watching.Store(false)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !lost || !errors.Is(err, ErrUnavailable) {
			c.log.Warn("the stream of settled invoices broke; reconnecting", "err", err)
		}
		lost = true
		if err := delay.wait(ctx); err != nil {
			return err
		}
	}
}

// Watching reports whether Watch holds a subscription that is known to be
// live, with everything settled before it handed over.
func (c *Client) Watching() bool { return c.watching.Load() }
