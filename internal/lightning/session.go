package lightning

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice.example/sluice/l402"
)

// noAdds is the add index of a subscription that gets no event for new invoices. It is one below
// the largest number, because lnd adds one to it.
const noAdds = math.MaxInt64 - 1

// session is one subscription to settled invoices, from its beginning until it breaks. It begins in
// one of two ways:
//
//   - It resumes, from a cursor with an index of at least 2 and a hash. It subscribes from one index
//     below the cursor. lnd then replays the invoice at the cursor. The replay proves that the
//     subscription is live. The hash of the replayed invoice proves that the cursor was taken from
//     this history. When the node replays nothing at the cursor, or another invoice, the node was
//     rebuilt, and the session begins anew.
//   - It begins anew. It subscribes from index 0 and proves that the subscription is live (see
//     prove). Only then does it list what was settled since the ledger was made. Invoices that
//     settle during the listing come through the subscription. When all of them were given to the
//     sink, the sink's cursor is replaced.
type session struct {
	client *Client
	sink   Sink
	live   func(*session) // called once, when the subscription is live and the listed invoices were given to the sink

	node   string
	events chan *lnrpc.Invoice
	broken chan error       // buffered; says why events ended
	leave  func()           // ends the subscription
	early  []*lnrpc.Invoice // settled invoices that came before they could be given to the sink
	mark   watermark

	began     time.Time // when the listing began, or when the session resumed
	unchanged bool      // the node still has the history from which the sink's cursor was taken
	ours      bool      // the sink's cursor belongs to the history that the session follows
}

func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	if s.node, err = s.client.NodeKey(ctx); err != nil {
		return err
	}
	cursor, _, err := s.sink.Cursor(ctx, s.node)
	if err != nil {
		return fmt.Errorf("read the settle cursor: %w", err)
	}
	// lnd replays nothing for index 0, so a cursor of 1 proves nothing.
	if cursor.Index >= 2 && cursor.Hash != (l402.PaymentHash{}) {
		if err := s.resume(ctx, cursor); err != nil {
			return err
		}
	}
	if !s.ours {
		if err := s.beginAnew(ctx, cursor); err != nil {
			return err
		}
	}
	s.live(s)
	return s.follow(ctx)
}

// subscribe opens the stream. Its events arrive on s.events until the stream ends.
func (s *session) subscribe(ctx context.Context, req *lnrpc.InvoiceSubscription) error {
	ctx, s.leave = context.WithCancel(ctx)
	stream, err := s.client.ln.SubscribeInvoices(ctx, req)
	if err != nil {
		s.leave()
		return wrap("subscribe to invoices", err)
	}
	events, broken := make(chan *lnrpc.Invoice), make(chan error, 1)
	s.events, s.broken = events, broken
	go func() {
		for {
			inv, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: it ended the stream", ErrUnavailable)
			}
			if err != nil {
				broken <- wrap("receive settled invoices", err)
				return
			}
			select {
			case events <- inv:
			case <-ctx.Done():
				return
			}
		}
	}()
	return nil
}

// resume subscribes from the cursor. When the node's history is not the cursor's history, s.ours
// remains false.
func (s *session) resume(ctx context.Context, cursor Cursor) error {
	s.began = time.Now()
	if err := s.subscribe(ctx, &lnrpc.InvoiceSubscription{AddIndex: noAdds, SettleIndex: cursor.Index - 1}); err != nil {
		return err
	}
	var replayed []byte // payment hash
	found, err := s.await(ctx, s.client.pace.confirm, func(inv *lnrpc.Invoice) bool {
		s.keep(inv)
		replayed = inv.RHash
		return !inv.IsAmp && inv.SettleIndex == cursor.Index
	})
	if err != nil {
		return err
	}
	if !found || !bytes.Equal(replayed, cursor.Hash[:]) {
		s.client.log.Warn("lnd lacks the settlement that is recorded last for it, as after a rebuild; listing its invoices",
			"node", s.node, "settle_index", cursor.Index, "payment_hash", cursor.Hash)
		s.leave()
		s.early = nil
		return nil
	}
	s.unchanged, s.ours = true, true
	s.mark.start(cursor.Index - 1)
	return s.takeEarly(ctx)
}

// keep stores a settled invoice that cannot be given to the sink yet.
func (s *session) keep(inv *lnrpc.Invoice) {
	if inv.State == lnrpc.Invoice_SETTLED {
		s.early = append(s.early, inv)
	}
}

func (s *session) takeEarly(ctx context.Context) error {
	for _, inv := range s.early {
		if err := s.take(ctx, inv); err != nil {
			return err
		}
	}
	s.early = nil
	return nil
}

// beginAnew subscribes to new settlements, lists the earlier ones, and then replaces the sink's
// cursor. After a crash before the replacement, the next session lists again, because the sink
// keeps the old cursor until everything was given to it.
func (s *session) beginAnew(ctx context.Context, cursor Cursor) error {
	born, err := s.sink.Born(ctx)
	if err != nil {
		return fmt.Errorf("read when the ledger was made: %w", err)
	}
	if err := s.subscribe(ctx, &lnrpc.InvoiceSubscription{}); err != nil {
		return err
	}
	if err := s.prove(ctx); err != nil {
		return err
	}
	s.began = time.Now()
	if s.unchanged, err = s.holds(ctx, cursor); err != nil {
		return err
	}
	if s.unchanged { // the ledger may be younger than the cursor's invoice
		s.mark.listed(cursor)
	}
	err = s.client.SettledSince(ctx, born, func(inv SettledInvoice) error {
		s.mark.listed(Cursor{inv.SettleIndex, inv.Hash})
		return s.hand(ctx, inv)
	})
	if err != nil {
		return err
	}
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	if err := s.takeEarly(ctx); err != nil {
		return err
	}
	return s.restart(ctx)
}

// holds reports whether the node has settled the cursor's invoice at the cursor's index.
func (s *session) holds(ctx context.Context, cursor Cursor) (bool, error) {
	if cursor.Index == 0 || cursor.Hash == (l402.PaymentHash{}) {
		return false, nil
	}
	inv, ok, err := s.client.lookUp(ctx, cursor.Hash)
	return ok && inv.SettleIndex == cursor.Index, err
}

// catchUp receives every settlement that the listing may have shown. During the listing, invoice 2
// may settle after invoice 1 and be listed although invoice 1 is not listed, because the page of
// invoice 2 was read later. An index is therefore complete only after the subscription has
// delivered everything up to it. lnd sends events in the order in which things happened. catchUp
// makes a probe invoice, and the event of the probe shows that all earlier events have come.
func (s *session) catchUp(ctx context.Context) error {
	probe, err := s.client.addProbe(ctx)
	if err != nil {
		return err
	}
	found, err := s.await(ctx, s.client.pace.confirm, func(inv *lnrpc.Invoice) bool {
		s.keep(inv)
		return bytes.Equal(inv.RHash, probe.RHash)
	})
	if err == nil && !found {
		err = errSilent
	}
	return err
}

// restart replaces the sink's cursor by the cursor that is safe in the node's present history.
// While no invoice is settled in it, there is no safe cursor, and the sink keeps the old cursor. A
// later session then finds that the old cursor belongs to another history and lists again. This
// session replaces the cursor at the first settlement.
func (s *session) restart(ctx context.Context) error {
	if s.mark.cursor.Index == 0 {
		return nil
	}
	err := s.insist(ctx, "the settle cursor could not be replaced; trying again", func() error {
		return s.sink.Restart(ctx, s.node, s.mark.cursor)
	})
	s.ours = err == nil
	return err
}

// proveTries is how many probe invoices prove makes at most.
const proveTries = 10

// prove waits until the subscription is live. An open stream only means that the request was sent.
// An invoice that settles after the listing and before lnd serves the request would be missing from
// both. prove therefore makes a probe invoice. lnd replays nothing on this subscription, so any
// event proves that it is live. When lnd made the probe before it served the request, the probe
// causes no event, and prove makes another.
func (s *session) prove(ctx context.Context) error {
	for range proveTries {
		if _, err := s.client.addProbe(ctx); err != nil {
			return err
		}
		live, err := s.await(ctx, s.client.pace.confirm/proveTries, func(inv *lnrpc.Invoice) bool {
			s.keep(inv)
			return true
		})
		if live || err != nil {
			return err
		}
	}
	return errSilent
}

var errSilent = fmt.Errorf("lnd: %w: it does not report new invoices to its subscriber", ErrUnavailable)

// await receives events until match accepts one. found is false when match accepted none and no
// event came for the time patience.
func (s *session) await(ctx context.Context, patience time.Duration, match func(*lnrpc.Invoice) bool) (found bool, err error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case inv := <-s.events:
			if match(inv) {
				return true, nil
			}
			timeout.Reset(patience)
		case err := <-s.broken:
			return false, err
		case <-timeout.C:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// follow gives the events of the subscription to the sink. It also checks the gaps from time to
// time, and does not wait for a pause, because on a busy node there may never be one.
func (s *session) follow(ctx context.Context) error {
	look := time.NewTicker(max(s.client.pace.gap/8, time.Millisecond))
	defer look.Stop()
	for {
		select {
		case inv := <-s.events:
			if err := s.take(ctx, inv); err != nil {
				return err
			}
			if !s.ours {
				if err := s.restart(ctx); err != nil {
					return err
				}
			}
		case now := <-look.C:
			if missing := s.mark.expire(now, s.client.pace.gap); missing > 0 {
				s.client.log.Info("lnd left out numbers of settlements; they are taken for missing",
					"node", s.node, "count", missing, "settle_index", s.mark.cursor.Index)
			}
		case err := <-s.broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take gives one event to the sink, with the cursor that is safe after it.
func (s *session) take(ctx context.Context, inv *lnrpc.Invoice) error {
	if inv.State != lnrpc.Invoice_SETTLED {
		return nil
	}
	settled, ok, err := fromInvoice(inv)
	if err != nil {
		return err
	}
	settled.Cursor = s.mark.saw(settleIndexes(inv), settled.Hash, time.Now())
	if !ok {
		return nil
	}
	return s.hand(ctx, settled)
}

// hand gives the invoice to the sink and repeats this until the sink has recorded it.
func (s *session) hand(ctx context.Context, inv SettledInvoice) error {
	inv.Node = s.node
	return s.insist(ctx, "a settled invoice could not be recorded; trying again", func() error {
		return s.sink.Settled(ctx, inv)
	}, "payment_hash", inv.Hash)
}

// insist calls fn until it succeeds or ctx ends.
func (s *session) insist(ctx context.Context, complaint string, fn func() error, about ...any) error {
	delay := s.client.pace.backoff()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.client.log.Warn(complaint, append(about, "node", s.node, "err", err)...)
		if err := delay.Wait(ctx); err != nil {
			return err
		}
	}
}
