package lightning

import (
	"context"
	"fmt"

	"github.com/lightningnetwork/lnd/lnrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice/l402"
)

// Settled asks lnd itself whether the invoice with that payment hash was paid.
// It returns false for an invoice that lnd does not know, that is not settled,
// or that is an AMP invoice.
func (c *Client) Settled(ctx context.Context, hash l402.PaymentHash) (s SettledInvoice, ok bool, err error) {
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
