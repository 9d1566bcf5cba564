package lightning

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/internal/backoff"
	"sluice.example/sluice/l402"
)

// Cursor is how far the settled invoices of one node were taken in.
//
// lnd numbers its settlements from 1. A node that was rebuilt from its seed has
// the same key and counts from 1 again, so the number alone does not say which
// history it belongs to; the hash does.
type Cursor struct {
	Index uint64           // lnd's number of the settlement; 0: none
	Hash  l402.PaymentHash // of the invoice settled at Index; zero: unknown
}

// Sink takes what Watch finds. It is the ledger's side of the settle stream.
type Sink interface {
	// Cursor returns how far the invoices of the node are recorded; known is
	// false for a node never seen.
	Cursor(ctx context.Context, node string) (c Cursor, known bool, err error)
	// Settled records the invoice, if it is one of ours, and stores
	// inv.Cursor as the node's cursor when its Index is above 0 and higher
	// than what stands, both in one transaction. It is called again for an
	// invoice that it has had before, and after an error until it succeeds: no
	// invoice is skipped because the store is away. An invoice that is not ours
	// is no error.
	Settled(ctx context.Context, inv SettledInvoice) error
	// Restart replaces the node's cursor, whatever stands: everything settled
	// up to it in the node's present history was handed over. It is called
	// again after an error until it succeeds. c.Index is above 0.
	Restart(ctx context.Context, node string, c Cursor) error
	// Born is when the ledger was made. No invoice of ours is older.
	Born(ctx context.Context) (time.Time, error)
}

// pace is how fast Watch does what depends on time.
type pace struct {
	firstDelay time.Duration // before the first attempt to reconnect
	maxDelay   time.Duration // between attempts
	confirm    time.Duration // in which a live subscription must show itself
	// gap is how old a gap in the numbers must be to be believed. It is well above
	// what keep-alive takes to find a dead peer.
	gap time.Duration
}

func defaultPace() pace {
	return pace{
		firstDelay: 200 * time.Millisecond, maxDelay: 15 * time.Second,
		confirm: 10 * time.Second, gap: 2 * time.Minute,
	}
}

// backoff paces attempts. It is jittered, so that the replicas of one gateway do
// not return to lnd in step.
func (p pace) backoff() *backoff.Backoff { return backoff.Jittered(p.firstDelay, p.maxDelay) }

// Watch hands every settled invoice of the node to the sink, from the sink's
// cursor on, until ctx ends, whose error it returns. Each invoice comes at
// least once, whatever breaks in between; several replicas may watch one node.
//
// How the stream is joined follows from three habits of lnd (0.21): it replays
// nothing for settle index 0; it sends nothing, not even live, up to the index
// it was asked for, so that a rebuilt node that starts low again would stay
// silent; and a rebuilt node may have settled past that index, so that it
// replays only the end of another history. See session.
func (c *Client) Watch(ctx context.Context, sink Sink) error {
	delay := c.pace.backoff()
	lost := false
	var known history
	for {
		s := &session{client: c, sink: sink, live: func(s *session) {
			delay.Reset()
			known = known.next(s)
			since := known.since
			c.watching.Store(&since)
			if lost {
				c.log.Info("the stream of settled invoices is back")
			}
			lost = false
		}}
		err := s.run(ctx)
		c.watching.Store(nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !lost || !errors.Is(err, ErrUnavailable) {
			c.log.Warn("the stream of settled invoices broke; reconnecting", "err", err)
		}
		lost = true
		if err := delay.Wait(ctx); err != nil {
			return err
		}
	}
}

// history is which history of which node Watch follows.
type history struct {
	node  string
	since time.Time // what Watching returns
}

// next is the history that a session follows. Payments to a lost node stay
// unseen however often the stream is joined again afterwards, so a session that
// goes on with a history keeps the time at which that was first listed.
func (h history) next(s *session) history {
	switch {
	case !s.unchanged:
		return history{s.node, s.began}
	case h.node == "": // the first session of this process
		return history{s.node, time.Time{}}
	case h.node == s.node:
		return h
	default: // another node took over, that is known from earlier
		return history{s.node, s.began}
	}
}

// Watching reports whether Watch holds a subscription that was proven live, and
// since when the stream shows every settlement.
//
// since is zero when the node's history goes on where the sink's cursor stood:
// the cursor's invoice is settled at the cursor's index. Otherwise the node is
// new, was rebuilt, or its cursor has no hash, and since is when its settled
// invoices began to be listed. A payment that was presented before may have
// reached a node that is lost, so the stream never shows it. since outlasts
// reconnects, but not this process: a sink that judges payments by it must keep
// when Restart was called.
//
// A subscription is proven when it begins. If it hangs afterwards while the
// connection stays up, live stays true, and after a reconnect the newest
// settlements may still be on their way: ask Settled before doubting a payment.
func (c *Client) Watching() (live bool, since time.Time) {
	at := c.watching.Load()
	if at == nil {
		return false, time.Time{}
	}
	return true, *at
}
