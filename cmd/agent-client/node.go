package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"sluice/internal/lightning"
	"sluice/l402"
	"sluice/l402/client"
	"sluice/l402/client/lndwallet"
)

// node is the buyer's lnd, opened at the first use: a command that pays
// nothing needs neither its files nor itself.
type node struct {
	open func() (*lightning.Client, error)
}

var _ client.Wallet = (*node)(nil)

func newNode(cfg *config, log *slog.Logger) *node {
	return &node{open: sync.OnceValues(func() (*lightning.Client, error) {
		c := lightning.Config{Address: cfg.LND.GRPC, Log: log}
		var err error
		if cfg.LND.TLSCert != "" {
			if c.TLSCert, err = os.ReadFile(cfg.LND.TLSCert); err != nil {
				return nil, fmt.Errorf("lnd.tls_cert: %w", err)
			}
		}
		if c.Macaroon, err = os.ReadFile(cfg.LND.Macaroon); err != nil {
			return nil, fmt.Errorf("lnd.macaroon: %w", err)
		}
		return lightning.Dial(c)
	})}
}

// Pay implements client.Wallet.
func (n *node) Pay(ctx context.Context, r client.PayRequest) (client.Paid, error) {
	c, err := n.open()
	if err != nil { // the order was never given
		return client.Paid{}, fmt.Errorf("%w: %w", client.ErrPaymentFailed, err)
	}
	return lndwallet.New(c).Pay(ctx, r)
}

// Track implements client.Wallet.
func (n *node) Track(ctx context.Context, hash l402.PaymentHash) (client.State, client.Paid, error) {
	c, err := n.open()
	if err != nil {
		return client.Unknown, client.Paid{}, err
	}
	return lndwallet.New(c).Track(ctx, hash)
}
