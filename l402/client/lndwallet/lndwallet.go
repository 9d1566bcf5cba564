// Package lndwallet lets the buyer's SDK pay from an lnd node. It is apart
// from package client so that those who pay with another wallet need not build
// lnd's RPC packages.
//
//	node, err := lightning.Dial(lightning.Config{…})
//	buyer, err := client.New(client.Config{Wallet: lndwallet.New(node), …})
package lndwallet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/internal/lightning"
	"sluice/l402"
	"sluice/l402/client"
)

// Node is what the wallet needs of a *lightning.Client.
type Node interface {
	Pay(ctx context.Context, bolt11 string, feeLimit l402.Msat, timeout time.Duration) (lightning.Payment, error)
	Track(ctx context.Context, hash l402.PaymentHash) (lightning.Payment, error)
}

// Wallet is a client.Wallet on an lnd node.
type Wallet struct{ node Node }

var (
	_ client.Wallet = (*Wallet)(nil)
	_ Node          = (*lightning.Client)(nil)
)

// New returns a wallet that pays from node.
func New(node Node) *Wallet { return &Wallet{node: node} }

// Pay implements client.Wallet. lnd pays one hash at most once.
func (w *Wallet) Pay(ctx context.Context, r client.PayRequest) (client.Paid, error) {
	p, err := w.node.Pay(ctx, r.Invoice, r.FeeLimit, r.Timeout)
	var failed *lightning.PaymentError
	switch {
	case errors.As(err, &failed):
		return client.Paid{}, fmt.Errorf("%w: %s", client.ErrPaymentFailed, failed.Reason)
	case err != nil:
		return client.Paid{}, err
	}
	return client.Paid{Preimage: p.Preimage, Fee: p.Fee}, nil
}

// Track implements client.Wallet.
func (w *Wallet) Track(ctx context.Context, hash l402.PaymentHash) (client.State, client.Paid, error) {
	p, err := w.node.Track(ctx, hash)
	switch {
	case errors.Is(err, lightning.ErrPaymentNotFound):
		return client.Unknown, client.Paid{}, nil
	case err != nil:
		return client.Unknown, client.Paid{}, err
	}
	switch p.State {
	case lightning.StateSucceeded:
		return client.Succeeded, client.Paid{Preimage: p.Preimage, Fee: p.Fee}, nil
	case lightning.StateFailed:
		return client.Failed, client.Paid{}, nil
	default: // in flight, or a state of a later version: not over
		return client.InFlight, client.Paid{}, nil
	}
}
