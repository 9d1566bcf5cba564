package lightning

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice.example/sluice/l402"
)

// maxMemo is the longest memo that lnd stores, in bytes (its MaxMemoSize).
const maxMemo = 1024

// Invoice describes the invoice that a buyer is asked to pay.
type Invoice struct {
	// Preimage is made by the caller. The caller can then derive the macaroon's root key and the
	// challenge before it calls lnd.
	Preimage l402.Preimage
	// Amount is in msat and above zero. With an amount of zero the payer could choose the amount.
	Amount l402.Msat
	// Memo is the text that the buyer's wallet shows. It has at most 1024 bytes.
	Memo string
	// Expiry is how long the invoice can be paid. It is at least one second.
	Expiry time.Duration
}

// AddInvoice makes the invoice at lnd and returns it as BOLT11. When lnd's answer is lost, lnd has
// an invoice that nobody uses and that expires. After an error the caller may therefore call again
// with a new preimage.
func (c *Client) AddInvoice(ctx context.Context, inv Invoice) (string, error) {
	answer, err := c.addInvoice(ctx, inv)
	if err != nil {
		return "", err
	}
	return answer.PaymentRequest, nil
}

func (c *Client) addInvoice(ctx context.Context, inv Invoice) (*lnrpc.AddInvoiceResponse, error) {
	if inv.Amount <= 0 || !inv.Amount.Valid() {
		return nil, fmt.Errorf("add invoice: %w: %s", l402.ErrMsatRange, inv.Amount)
	}
	if len(inv.Memo) > maxMemo {
		return nil, fmt.Errorf("add invoice: a memo of %d bytes is longer than %d", len(inv.Memo), maxMemo)
	}
	if inv.Expiry < time.Second {
		return nil, errors.New("add invoice: the expiry is below one second")
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	answer, err := c.ln.AddInvoice(ctx, &lnrpc.Invoice{
		RPreimage: inv.Preimage[:],
		ValueMsat: int64(inv.Amount),
		Memo:      inv.Memo,
		Expiry:    int64(inv.Expiry / time.Second),
	})
	if err != nil {
		return nil, wrap("add invoice", err)
	}
	return answer, nil
}

// PlainInvoice makes an invoice for a wallet that wants to be paid. The invoice is valid for one
// hour.
func (c *Client) PlainInvoice(ctx context.Context, amount l402.Msat, memo string) (string, l402.PaymentHash, error) {
	preimage := l402.NewPreimage()
	invoice, err := c.AddInvoice(ctx, Invoice{Preimage: preimage, Amount: amount, Memo: memo, Expiry: time.Hour})
	return invoice, preimage.Hash(), err
}
