package lightning

import (
	"context"
	"errors"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
)

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
			return payee(inv.PaymentRequest)
		}
	}
	probe, err := c.addProbe(ctx)
	if err != nil {
		return "", err
	}
	return payee(probe.PaymentRequest)
}

// payee returns the key that signed an invoice, in hex.
func payee(invoice string) (string, error) {
	inv, err := bolt11.Decode(invoice)
	return inv.Payee, err
}

// addProbe makes an invoice that no buyer ever sees: 1 msat, expired at once.
// lnd removes it again when it collects cancelled invoices.
func (c *Client) addProbe(ctx context.Context) (*lnrpc.AddInvoiceResponse, error) {
	return c.addInvoice(ctx, Invoice{
		Preimage: l402.NewPreimage(), Amount: 1, Memo: "sluice: probe of the invoice stream", Expiry: 10 * time.Second,
	})
}
