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

// Invoice is what a buyer is asked to pay.
type Invoice struct {
	// Preimage is made by the caller, so that the macaroon's root key and the
	// challenge can be derived before lnd is asked.
	Preimage l402.Preimage
	// Amount in msat, above zero. An amount of zero would let the payer choose.
	Amount l402.Msat
	// Memo is shown by the buyer's wallet; at most 1024 bytes.
	Memo string
	// Expiry is how long the invoice can be paid, at least a second.
	Expiry time.Duration
}

// AddInvoice has lnd make the invoice and returns it as BOLT11. An answer that
// was lost leaves an invoice that nobody knows and that expires by itself, so
// a failed call may simply be made again with a fresh preimage.
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

// PlainInvoice makes an ordinary invoice, as a wallet does to be paid. It is
// valid for an hour.
func (c *Client) PlainInvoice(ctx context.Context, amount l402.Msat, memo string) (string, l402.PaymentHash, error) {
	preimage := l402.NewPreimage()
	invoice, err := c.AddInvoice(ctx, Invoice{Preimage: preimage, Amount: amount, Memo: memo, Expiry: time.Hour})
	return invoice, preimage.Hash(), err
}
