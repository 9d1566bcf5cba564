package lightning

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice/l402"
)

// noAdds as the add index of a subscription keeps lnd from sending an event
// for each invoice that is made. One below the largest, as lnd adds one.
const noAdds = math.MaxInt64 - 1

// session is one subscription to settled invoices, from its beginning until it
// breaks. It has two ways to begin:
//
//   - resume, from a cursor of at least 2: subscribe from one below it. lnd
//     then replays the invoice at the cursor, which proves that the
//     subscription is live and that this node's sequence reaches that far. A
//     node that does not replay it is a rebuilt one: begin anew.
//   - begin anew, without a cursor or on a rebuilt node: subscribe from 0,
//     prove that the subscription is live (see prove), and only then list what
//     was settled since the ledger's birth. What settles meanwhile comes
//     through the subscription.
type session struct {
	client *Client
	sink   Sink
	live   func() // called once, when everything before the subscription is handed over

	node   string
	events chan *lnrpc.Invoice
	broken chan error       // buffered; why events ended
	leave  func()           // ends the subscription
	early  []*lnrpc.Invoice // settled ones that came before the subscription was proven
	mark   watermark
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
	resumed := false
	if cursor >= 2 {
		if resumed, err = s.resume(ctx, cursor); err != nil {
			return err
		}
		if !resumed {
			s.client.log.Warn("lnd does not know the settle index that is recorded for it, as after a rebuild; listing its invoices anew",
				"node", s.node, "cursor", cursor)
		}
	}
	if !resumed {
		if err := s.beginAnew(ctx); err != nil {
			return err
		}
	}
	return s.follow(ctx)
}

// subscribe opens the stream; its events arrive on s.events until it ends.
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

// resume subscribes from the cursor; ok is false when the node's sequence does
// not hold it.
func (s *session) resume(ctx context.Context, cursor uint64) (ok bool, err error) {
	if err := s.subscribe(ctx, &lnrpc.InvoiceSubscription{AddIndex: noAdds, SettleIndex: cursor - 1}); err != nil {
		return false, err
	}
	found, err := s.await(ctx, s.client.pace.confirm, func(inv *lnrpc.Invoice) bool {
		s.early = append(s.early, inv)
		return !inv.IsAmp && inv.SettleIndex == cursor
	})
	if err != nil || !found {
		s.leave()
		s.early = nil
		return false, err
	}
	s.mark.start(cursor - 1)
	s.live()
	return true, nil
}

// beginAnew subscribes from now on and lists what was settled before.
func (s *session) beginAnew(ctx context.Context) error {
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
	err = s.client.SettledSince(ctx, born, func(inv SettledInvoice) error {
		// Listed in the order of creation, so none of them may move the cursor.
		return s.hand(ctx, inv)
	})
	if err != nil {
		return err
	}
	s.live()
	return nil
}

// proveTries is how many invoices prove makes at most.
const proveTries = 10

// prove waits until the subscription is live. Opening a stream says only that
// the request was sent; what settled after the listing and before lnd served
// the request would be in neither. So an invoice is made that nobody is shown:
// as nothing is replayed, any event proves the subscription. An invoice that
// lnd made before it served the request brings none, and another is made.
func (s *session) prove(ctx context.Context) error {
	for range proveTries {
		if _, err := s.client.addProbe(ctx); err != nil {
			return err
		}
		live, err := s.await(ctx, s.client.pace.confirm/proveTries, func(inv *lnrpc.Invoice) bool {
			s.early = append(s.early, inv)
			return true
		})
		if live || err != nil {
			return err
		}
	}
	return fmt.Errorf("lnd: %w: it does not report new invoices to its subscriber", ErrUnavailable)
}

// await receives events until match accepts one; found is false when nothing
// more came for as long as patience.
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

// follow hands over what the subscription brings.
func (s *session) follow(ctx context.Context) error {
	for _, inv := range s.early {
		if err := s.take(ctx, inv); err != nil {
			return err
		}
	}
	s.early = nil
	quiet := time.NewTimer(s.client.pace.quiet)
	defer quiet.Stop()
	for {
		select {
		case inv := <-s.events:
			if err := s.take(ctx, inv); err != nil {
				return err
			}
			quiet.Reset(s.client.pace.quiet)
		case <-quiet.C:
			s.mark.believe()
		case err := <-s.broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take hands one event to the sink, with the cursor that is safe then.
func (s *session) take(ctx context.Context, inv *lnrpc.Invoice) error {
	if inv.State != lnrpc.Invoice_SETTLED {
		return nil
	}
	settled, ok, err := fromInvoice(inv)
	if err != nil {
		return err
	}
	settled.Index = s.mark.saw(settleIndexes(inv))
	if !ok {
		return nil
	}
	return s.hand(ctx, settled)
}

// hand gives the invoice to the sink until the sink has it.
func (s *session) hand(ctx context.Context, inv SettledInvoice) error {
	inv.Node = s.node
	delay := s.client.pace.retryDelay()
	for {
		err := s.sink.Settled(ctx, inv)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.client.log.Warn("a settled invoice could not be recorded; trying again", "payment_hash", inv.Hash, "err", err)
		if err := delay.wait(ctx); err != nil {
			return err
		}
	}
}

// NodeKey returns the key of the node, in hex. With a macaroon that may not
// ask for it, it is the payee of the newest invoice, else of a probe.
func (c *Client) NodeKey(ctx context.Context) (string, error) {
	info, err := c.Info(ctx)
	if err == nil && info.PubKey != "" {
		return info.PubKey, nil
	}
	if err != nil && !errors.Is(err, ErrDenied) {
		return "", err
	}
	page, err := c.listInvoices(ctx, &lnrpc.ListInvoiceRequest{Reversed: true, NumMaxInvoices: 10})
	if err != nil {
		return "", err
	}
	for _, inv := range page.Invoices {
		// Spontaneous payments have no payment request; blinded ones are
		// signed with a throw-away key.
		if inv.PaymentRequest != "" && !inv.IsBlinded {
			return invoicePayee(inv.PaymentRequest)
		}
	}
	probe, err := c.addProbe(ctx)
	if err != nil {
		return "", err
	}
	return invoicePayee(probe.PaymentRequest)
}

// addProbe makes an invoice that no buyer ever sees: 1 msat, expired at once.
// lnd removes it again when it collects cancelled invoices.
func (c *Client) addProbe(ctx context.Context) (*lnrpc.AddInvoiceResponse, error) {
	return c.addInvoice(ctx, Invoice{
		Preimage: l402.NewPreimage(), Amount: 1, Memo: "sluice: probe of the invoice stream", Expiry: 10 * time.Second,
	})
}
