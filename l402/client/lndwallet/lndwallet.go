// Package lndwallet lets the buyer's SDK pay from an lnd node. It is apart
// from package client so that those who pay with another wallet need not build
// lnd's RPC packages.
//
//	wallet, err := lndwallet.Dial(lndwallet.Config{Address: "127.0.0.1:10009", TLSCert: cert, Macaroon: mac})
//	buyer, err := client.New(client.Config{Wallet: wallet, …})
//
// A module that imports it needs one line more in its go.mod, as all that import lnd:
//
//	replace google.golang.org/protobuf => github.com/lightninglabs/protobuf-go-hex-display v1.36.11-hex-display
//
// examples/agent is a whole program.
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
	// Address is lnd's gRPC listener, host:port.
	Address string
	// TLSCert is lnd's tls.cert in PEM. Empty means the system's roots, for an lnd
	// behind a certificate of a public authority.
	TLSCert []byte
	// Macaroon is the binary macaroon. It needs offchain:read and offchain:write,
	// and is a secret: it never reaches an error or a log.
	Macaroon []byte
	// Timeout bounds each call but for payments, whose limit the client sets; 10 s
	// when zero.
	Timeout time.Duration
	// Log is told that lnd is away; slog.Default when nil.
	Log *slog.Logger
}

// node is what the wallet needs of a *lightning.Client.
type node interface {
	Pay(ctx context.Context, bolt11 string, feeLimit l402.Msat, timeout time.Duration) (lightning.Payment, error)
	Track(ctx context.Context, hash l402.PaymentHash) (lightning.Payment, error)
}

// Wallet is a client.Wallet on an lnd node. It is safe for concurrent use.
type Wallet struct {
	node  node
	close func() error
}

var (
	_ client.Wallet = (*Wallet)(nil)
	_ node          = (*lightning.Client)(nil)
)

// Dial prepares a wallet without connecting, so it succeeds while lnd is away; an
// error means that the configuration cannot work.
func Dial(cfg Config) (*Wallet, error) {
	c, err := lightning.Dial(lightning.Config{Address: cfg.Address, TLSCert: cfg.TLSCert, Macaroon: cfg.Macaroon,
		Timeout: cfg.Timeout, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return &Wallet{node: c, close: c.Close}, nil
}

// Close ends the connection. Payments under way go on at lnd.
func (w *Wallet) Close() error { return w.close() }

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
