package lightning

import (
	"context"
	"errors"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
)

// NodeKey returns the public key of the node, in hex. When the macaroon has no right to ask for it,
// NodeKey takes the payee of the newest invoice. When there is no such invoice, it takes the payee
// of a probe.
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
		// A spontaneous payment has no payment request. An invoice with blinded paths is signed
		// with a throw-away key.
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

// payee returns the public key that signed an invoice, in hex.
func payee(invoice string) (string, error) {
	inv, err := bolt11.Decode(invoice)
	return inv.Payee, err
}

// addProbe makes an invoice of 1 msat that expires after 10 s and that no buyer ever sees. lnd
// removes it when it removes cancelled invoices.
func (c *Client) addProbe(ctx context.Context) (*lnrpc.AddInvoiceResponse, error) {
	return c.addInvoice(ctx, Invoice{
		Preimage: l402.NewPreimage(), Amount: 1, Memo: "sluice: probe of the invoice stream", Expiry: 10 * time.Second,
	})
}
