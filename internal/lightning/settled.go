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

// SettledInvoice is an invoice of lnd that was paid. It may belong to another user of the same lnd:
// it belongs to this ledger only if its memo opens.
type SettledInvoice struct {
	// Node is the public key of the lnd that was paid, in hex. There is one cursor per node. Node
	// is empty in the results of SettledSince.
	Node string
	// Cursor is the cursor that the sink may store together with this invoice's credit, because
	// every invoice settled up to it was given to the sink. Index 0 means that the node's cursor
	// must not change. Cursor.Index may differ from SettleIndex, because lnd does not always replay
	// in the order of settlement.
	Cursor Cursor
	// SettleIndex is lnd's number of this settlement, counted from 1.
	SettleIndex uint64
	Hash        l402.PaymentHash
	Amount      l402.Msat // requested, in msat
	Paid        l402.Msat // received, in msat; a payer may send more than Amount
	Memo        string
	At          time.Time // time of the settlement by lnd's clock, in whole seconds
}

// listSlack is how far lnd's clock may differ from the caller's clock, and how far lnd's clock may
// be set back, before SettledSince misses an invoice.
const listSlack = time.Hour

// pageSize is how many invoices one call of lnd lists.
const pageSize = 500

// SettledSince calls fn with every settled invoice that was created since a moment of the caller's
// clock, less one hour, because lnd's clock may differ. It compares the creation of an invoice with
// the moment, and not the settlement. An invoice that was created before the moment and paid after
// it is left out. A caller that wants all settlements since a moment must therefore ask from an
// earlier moment. It subtracts the time in which its invoices can be paid: their expiry, and
// minutes for a payment in parts. It asks Settled about a payment that is still missing.
//
// SettledSince reads lnd's newest invoices first, paid or not, page by page, and stops where the
// invoices are older. The cost depends only on the number of invoices created since the moment.
// Within a page the older invoices come first. An invoice that settles during the listing may or
// may not be included. When fn returns an error, SettledSince stops and returns it.
func (c *Client) SettledSince(ctx context.Context, since time.Time, fn func(SettledInvoice) error) error {
	from := since.Add(-listSlack).Unix()
	for offset := uint64(0); ; {
		// The request has no CreationDateStart, because lnd would read all older invoices within
		// one call to apply it.
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
		// A single older invoice does not end the listing, because lnd's clock may have been set
		// back.
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

// handRecent calls fn with the invoices that are settled and were created at or after from (unix
// seconds). It returns how many invoices were created at or after from, in any state.
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

// Settled asks lnd directly whether the invoice with this payment hash was paid. It returns false
// for an invoice that lnd does not know, that is not settled, or that is an AMP invoice. It also
// finds an invoice that the stream of settled invoices did not report because the stream hangs.
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

// lookUp is like Settled, but does not set Node.
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

// fromInvoice reads a settled invoice. ok is false for an invoice in another state and for an AMP
// invoice. An AMP invoice can be paid many times, has no settle index of its own, and never belongs
// to this ledger.
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

// settleIndexes returns the settle indexes of one event of the stream. There is one index, or for
// an AMP invoice one index per paid set.
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
