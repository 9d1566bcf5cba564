package lightning

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/internal/backoff"
	"sluice.example/sluice/l402"
)

// Cursor says up to which settlement the invoices of one node were processed.
//
// lnd numbers its settlements from 1. A node that was rebuilt from its seed has the same key and
// starts again at 1. The index alone therefore does not show which history of the node it belongs
// to, but the hash does.
type Cursor struct {
	Index uint64           // lnd's number of the settlement; 0: no settlement
	Hash  l402.PaymentHash // of the invoice settled at Index; zero: unknown
}

// Sink receives the invoices that Watch finds. The ledger's side implements it.
type Sink interface {
	// Cursor returns the stored cursor of the node. known is false for a node that has no cursor.
	Cursor(ctx context.Context, node string) (c Cursor, known bool, err error)
	// Settled records the invoice if it belongs to this ledger. It also stores inv.Cursor as the
	// node's cursor, if inv.Cursor.Index is above 0 and higher than the stored index. Both happen
	// in one transaction. Settled may be called again for an invoice that it has recorded before.
	// After an error it is called again until it succeeds, so that no invoice is skipped while the
	// store cannot be reached. An invoice of somebody else is not an error.
	Settled(ctx context.Context, inv SettledInvoice) error
	// Restart replaces the node's cursor, whatever its value is, because everything settled up to c
	// in the node's present history was given to the sink. After an error Restart is called again
	// until it succeeds. c.Index is above 0.
	Restart(ctx context.Context, node string, c Cursor) error
	// Born returns when the ledger was made. No invoice of the ledger is older.
	Born(ctx context.Context) (time.Time, error)
}

// pace holds the times that Watch uses.
type pace struct {
	firstDelay time.Duration // before the first attempt to reconnect
	maxDelay   time.Duration // longest pause between attempts
	confirm    time.Duration // the time within which a live subscription must deliver an event
	// gap is how old a gap in the settle indexes must be before the missing indexes count as
	// nonexistent. It is much longer than keep-alive takes to find a dead peer.
	gap time.Duration
}

func defaultPace() pace {
	return pace{
		firstDelay: 200 * time.Millisecond, maxDelay: 15 * time.Second,
		confirm: 10 * time.Second, gap: 2 * time.Minute,
	}
}

// backoff returns the pauses between attempts. They vary at random, so that the replicas of one
// gateway do not return to lnd at the same time.
func (p pace) backoff() *backoff.Backoff { return backoff.Jittered(p.firstDelay, p.maxDelay) }

// Watch gives every settled invoice of the node to the sink, beginning at the sink's cursor, until
// ctx ends. It then returns the error of ctx. Each invoice is given at least once, whatever breaks
// in between. Several replicas may watch one node.
//
// How a session begins depends on three properties of lnd 0.21. First, lnd replays nothing for
// settle index 0. Second, lnd sends no event, not even a live event, up to the index that was
// requested, so that a rebuilt node, which starts at 1 again, would send nothing for a long time.
// Third, a rebuilt node may have settled past that index already, and then replays only the end of
// another history. See session.
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

// history names the node and the history of that node that Watch follows.
type history struct {
	node  string
	since time.Time // the time that Watching returns
}

// next returns the history that a session follows. A payment to a lost node is never reported,
// however often a session begins again. A session that continues a history therefore keeps the time
// at which that history was first listed.
func (h history) next(s *session) history {
	switch {
	case !s.unchanged:
		return history{s.node, s.began}
	case h.node == "": // this is the first session of this process
		return history{s.node, time.Time{}}
	case h.node == s.node:
		return h
	default: // another node that is known from earlier took over
		return history{s.node, s.began}
	}
}

// Watching reports whether Watch has a subscription that was proven live, and since when the stream
// shows every settlement.
//
// since is zero when the node continues the history of the sink's cursor, which means that the
// cursor's invoice is settled at the cursor's index. Otherwise the node is new, was rebuilt, or has
// a cursor without a hash, and since is when the listing of its settled invoices began. A payment
// that was presented before since may have reached a node that is lost, so the stream never shows
// that payment. since is kept when Watch reconnects, but not when this process ends. A sink that
// uses since to judge payments must therefore store when Restart was called.
//
// A subscription is proven live when it begins. If it hangs later while the connection remains
// open, live remains true. After a reconnect the newest settlements may still be on their way. A
// caller must therefore ask Settled before it rejects a payment.
func (c *Client) Watching() (live bool, since time.Time) {
	at := c.watching.Load()
	if at == nil {
		return false, time.Time{}
	}
	return true, *at
}
