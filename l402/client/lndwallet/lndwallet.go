// Package lndwallet lets the client of package client pay from an lnd node. It is a separate
// package, so that a program with another wallet does not have to build lnd's RPC packages.
//
//	wallet, err := lndwallet.Dial(lndwallet.Config{Address: "127.0.0.1:10009", TLSCert: cert, Macaroon: mac})
//	buyer, err := client.New(client.Config{Wallet: wallet, …})
//
// A module that imports this package needs one more line in its go.mod, like every module that
// imports lnd:
//
//	replace google.golang.org/protobuf => github.com/lightninglabs/protobuf-go-hex-display v1.36.11-hex-display
//
// examples/agent is a complete program that uses this package.
package lndwallet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

// Config says which lnd to pay from and with what rights.
type Config struct {
	// Address is lnd's gRPC address, host:port.
	Address string
	// TLSCert is lnd's tls.cert in PEM. Empty means the certificates that the system trusts, for an
	// lnd with a certificate of a public authority.
	TLSCert []byte
	// Macaroon is the binary macaroon of lnd. It needs the permissions offchain:read and
	// offchain:write. It is a secret and never appears in an error or a log.
	Macaroon []byte
	// Timeout bounds each call except payments, whose limit the client sets. Zero means 10 s.
	Timeout time.Duration
	// Log gets a message when lnd cannot be reached. nil means slog.Default.
	Log *slog.Logger
}

// node is the part of *lightning.Client that the wallet uses.
type node interface {
	Pay(ctx context.Context, bolt11 string, feeLimit l402.Msat, timeout time.Duration) (lightning.Payment, error)
	Track(ctx context.Context, hash l402.PaymentHash) (lightning.Payment, error)
}

// Wallet is a client.Wallet that pays from an lnd node. It is safe for concurrent use.
type Wallet struct {
	node  node
	close func() error
}

var (
	_ client.Wallet = (*Wallet)(nil)
	_ node          = (*lightning.Client)(nil)
)

// Dial prepares a wallet without connecting, so it succeeds while lnd cannot be reached. An error
// means that the configuration cannot work.
func Dial(cfg Config) (*Wallet, error) {
	c, err := lightning.Dial(lightning.Config{Address: cfg.Address, TLSCert: cfg.TLSCert, Macaroon: cfg.Macaroon,
		Timeout: cfg.Timeout, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return &Wallet{node: c, close: c.Close}, nil
}

// Close closes the connection. lnd continues the payments under way.
func (w *Wallet) Close() error { return w.close() }

// Pay implements client.Wallet. lnd pays a payment hash at most once.
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
	default: // in flight, or a state of a later lnd version: the payment may not have ended
		return client.InFlight, client.Paid{}, nil
	}
}
