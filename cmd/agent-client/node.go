package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
	"sluice.example/sluice/l402/client/lndwallet"
)

// lndConfig reads the certificate and the macaroon for the buyer's lnd.
func lndConfig(cfg *config, log *slog.Logger) (c lightning.Config, err error) {
	c = lightning.Config{Address: cfg.LND.GRPC, Log: log}
	if cfg.LND.TLSCert != "" {
		if c.TLSCert, err = os.ReadFile(cfg.LND.TLSCert); err != nil {
			return c, fmt.Errorf("lnd.tls_cert: %w", err)
		}
	}
	if c.Macaroon, err = os.ReadFile(cfg.LND.Macaroon); err != nil {
		return c, fmt.Errorf("lnd.macaroon: %w", err)
	}
	return c, nil
}

// node is the buyer's wallet. It is opened at the first use, so that a command that pays nothing
// needs neither the wallet's files nor lnd.
type node struct {
	open func() (*lndwallet.Wallet, error)
}

var _ client.Wallet = (*node)(nil)

func newNode(cfg *config, log *slog.Logger) *node {
	return &node{open: sync.OnceValues(func() (*lndwallet.Wallet, error) {
		c, err := lndConfig(cfg, log)
		if err != nil {
			return nil, err
		}
		return lndwallet.Dial(lndwallet.Config{Address: c.Address, TLSCert: c.TLSCert, Macaroon: c.Macaroon, Log: c.Log})
	})}
}

// Pay implements client.Wallet.
func (n *node) Pay(ctx context.Context, r client.PayRequest) (client.Paid, error) {
	w, err := n.open()
	if err != nil { // the wallet did not get the order
		return client.Paid{}, fmt.Errorf("%w: %w", client.ErrPaymentFailed, err)
	}
	return w.Pay(ctx, r)
}

// Track implements client.Wallet.
func (n *node) Track(ctx context.Context, hash l402.PaymentHash) (client.State, client.Paid, error) {
	w, err := n.open()
	if err != nil {
		return client.Unknown, client.Paid{}, err
	}
	return w.Track(ctx, hash)
}
