package lightning

import (
	"context"
	"fmt"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice/l402"
)

// SettledInvoice is an invoice of lnd that was paid. It need not be one of
// ours: whether its memo opens decides that.
type SettledInvoice struct {
	// Node is the key of the lnd that was paid, in hex. The cursor is kept
	// per node. Empty from SettledSince.
	Node string
	// Index is the cursor that may be stored together with this invoice's
	// credit: every invoice settled up to it has been handed over. 0 says
	// that the cursor must stay where it is. It is not always SettleIndex,
	// because lnd does not always replay in the order of settlement.
	Index uint64
	// SettleIndex is lnd's own number of this settlement, from 1.
	SettleIndex uint64
	Hash        l402.PaymentHash
	Amount      l402.Msat // asked for
	Paid        l402.Msat // arrived; a payer may send more than was asked for
	Memo        string
	At          time.Time // settled, by lnd's clock, to the second
}

// listSlack is how much lnd's clock may be behind the ledger's when invoices
// are listed from a date on.
const listSlack = time.Hour

// pageSize is how many invoices one call lists.
const pageSize = 500

// SettledSince calls fn with every settled invoice that was created since a
// moment (an hour earlier, in case the clocks differ), in the order of
// creation, page by page. It reads all invoices of that time, so it is for
// audits and first starts, never for the way of a request. fn's error ends it.
func (c *Client) SettledSince(ctx context.Context, since time.Time, fn func(SettledInvoice) error) error {
	var start uint64
	if from := since.Add(-listSlack); from.Unix() > 0 {
		start = uint64(from.Unix())
	}
	for offset := uint64(0); ; {
		page, err := c.listInvoices(ctx, &lnrpc.ListInvoiceRequest{
			IndexOffset: offset, NumMaxInvoices: pageSize, CreationDateStart: start,
		})
		if err != nil {
			return err
		}
		for _, inv := range page.Invoices {
			settled, ok, err := fromInvoice(inv)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if err := fn(settled); err != nil {
				return err
			}
		}
		if len(page.Invoices) < pageSize || page.LastIndexOffset <= offset {
			return nil
		}
		offset = page.LastIndexOffset
	}
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
