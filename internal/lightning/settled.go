package lightning

import (
	"context"
	"fmt"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice.example/sluice/l402"
)

// SettledInvoice is an invoice of lnd that was paid. It need not be one of
// ours: whether its memo opens decides that.
type SettledInvoice struct {
	// Node is the key of the lnd that was paid, in hex. The cursor is kept
	// per node. Empty from SettledSince.
	Node string
	// Cursor may be stored together with this invoice's credit: every invoice
	// settled up to it has been handed over. Index 0 says that the node's
	// cursor must stay where it is. Cursor.Index is not always SettleIndex,
	// because lnd does not always replay in the order of settlement.
	Cursor Cursor
	// SettleIndex is lnd's own number of this settlement, from 1.
	SettleIndex uint64
	Hash        l402.PaymentHash
	Amount      l402.Msat // asked for
	Paid        l402.Msat // arrived; a payer may send more than was asked for
	Memo        string
	At          time.Time // settled, by lnd's clock, to the second
}

// listSlack is how far lnd's clock may differ from the caller's, and how far it
// may be stepped back, before SettledSince misses an invoice.
const listSlack = time.Hour

// pageSize is how many invoices one call lists.
const pageSize = 500

// SettledSince calls fn with every settled invoice that was created since a
// moment by the caller's clock, less an hour because lnd's clock may differ.
// The moment is compared with an invoice's creation, not with its settlement:
// an invoice that was created before it and paid after it does not come. So a
// caller who wants all settlements since a moment asks from as much earlier as
// its invoices can be paid (their expiry, and minutes for a payment in parts),
// and asks Settled about a payment that is still missing.
//
// It reads lnd's newest invoices first, paid or not, page by page, and ends
// where they are older. So it costs in proportion to the invoices created since
// that moment, however many older ones lnd has. Within a page the older ones
// come first. An invoice that settles during the listing may come or not.
// fn's error ends it.
func (c *Client) SettledSince(ctx context.Context, since time.Time, fn func(SettledInvoice) error) error {
	from := since.Add(-listSlack).Unix()
	for offset := uint64(0); ; {
		// CreationDateStart is not asked for: lnd would apply it by reading all
		// older invoices within one call.
		page, err := c.listInvoices(ctx, &lnrpc.ListInvoiceRequest{
			IndexOffset: offset, NumMaxInvoices: pageSize, Reversed: true,
		})
		if err != nil {
			return err
		}
		recent, err := handRecent(page.Invoices, from, fn)
		if err != nil {
			return err
		}
		// One older invoice ends nothing: lnd's clock may have been stepped.
		if recent == 0 || len(page.Invoices) < pageSize {
			return nil
		}
		next := page.FirstIndexOffset
		if next == 0 || offset > 0 && next >= offset {
			return fmt.Errorf("lnd: list invoices: after add index %d it goes on at %d instead of below", offset, next)
		}
		offset = next
	}
}

// handRecent calls fn with those invoices that are settled and were created at
// or after from (unix seconds). It returns how many were created since,
// whatever their state.
func handRecent(invoices []*lnrpc.Invoice, from int64, fn func(SettledInvoice) error) (recent int, err error) {
	for _, inv := range invoices {
		if inv.CreationDate < from {
			continue
		}
		recent++
		settled, ok, err := fromInvoice(inv)
		if err == nil && ok {
			err = fn(settled)
		}
		if err != nil {
			return recent, err
		}
	}
	return recent, nil
}

// Settled asks lnd itself whether the invoice with that payment hash was paid.
// It returns false for an invoice that lnd does not know, that is not settled,
// or that is an AMP invoice. It finds what the stream of settled invoices
// should have shown, also when the stream hangs.
func (c *Client) Settled(ctx context.Context, hash l402.PaymentHash) (SettledInvoice, bool, error) {
	s, ok, err := c.lookUp(ctx, hash)
	if err != nil || !ok {
		return SettledInvoice{}, false, err
	}
	if s.Node, err = c.NodeKey(ctx); err != nil {
		return SettledInvoice{}, false, err
	}
	return s, true, nil
}

// lookUp is Settled without the node's key.
func (c *Client) lookUp(ctx context.Context, hash l402.PaymentHash) (s SettledInvoice, ok bool, err error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	inv, err := c.ln.LookupInvoice(ctx, &lnrpc.PaymentHash{RHash: hash[:]})
	if status.Code(err) == codes.NotFound {
		return s, false, nil
	}
	if err != nil {
		return s, false, wrap("look up an invoice", err)
	}
	s, ok, err = fromInvoice(inv)
	if err == nil && ok && s.Hash != hash {
		return s, false, fmt.Errorf("lnd: asked for invoice %s it shows %s", hash, s.Hash)
	}
	return s, ok, err
}

func (c *Client) listInvoices(ctx context.Context, req *lnrpc.ListInvoiceRequest) (*lnrpc.ListInvoiceResponse, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	page, err := c.ln.ListInvoices(ctx, req)
	return page, wrap("list invoices", err)
}

// fromInvoice reads a settled invoice; ok is false for one in another state
// and for AMP, which is paid many times over, has no settle index of its own
// and is never ours.
func fromInvoice(inv *lnrpc.Invoice) (s SettledInvoice, ok bool, err error) {
	if inv.State != lnrpc.Invoice_SETTLED || inv.IsAmp {
		return s, false, nil
	}
	s = SettledInvoice{
		SettleIndex: inv.SettleIndex,
		Amount:      l402.Msat(inv.ValueMsat),
		Paid:        l402.Msat(inv.AmtPaidMsat),
		Memo:        inv.Memo,
		At:          time.Unix(inv.SettleDate, 0).UTC(),
	}
	if copy(s.Hash[:], inv.RHash) != len(s.Hash) || len(inv.RHash) != len(s.Hash) {
		return s, false, fmt.Errorf("lnd: a settled invoice with a payment hash of %d bytes", len(inv.RHash))
	}
	if !s.Amount.Valid() || !s.Paid.Valid() || s.SettleIndex == 0 {
		return s, false, fmt.Errorf("lnd: settled invoice %s: amount or settle index out of range", s.Hash)
	}
	return s, true, nil
}

// settleIndexes lists the numbers in lnd's sequence of settlements that one
// event of the stream stands for: one, or one per paid set of an AMP invoice.
func settleIndexes(inv *lnrpc.Invoice) []uint64 {
	if !inv.IsAmp {
		return []uint64{inv.SettleIndex}
	}
	var all []uint64
	for _, set := range inv.AmpInvoiceState {
		if set.State == lnrpc.InvoiceHTLCState_SETTLED && set.SettleIndex > 0 {
			all = append(all, set.SettleIndex)
		}
	}
	return all
}
