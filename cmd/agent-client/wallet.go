package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/backoff"
	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/client"
)

// lnd reads the configuration and opens the buyer's node.
func (a *app) lnd() (*config, *lightning.Client, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, nil, err
	}
	c, err := lndConfig(cfg, a.log())
	if err != nil {
		return nil, nil, err
	}
	node, err := lightning.Dial(c)
	return cfg, node, err
}

func (a *app) walletBalance(fs *pflag.FlagSet) cli.Run {
	return func(ctx context.Context, _ []string) error {
		_, node, err := a.lnd()
		if err != nil {
			return err
		}
		b, err := node.Balance(ctx)
		if err != nil {
			return err
		}
		if a.json {
			return a.print(map[string]l402.Msat{"local_msat": b.Local, "remote_msat": b.Remote})
		}
		return a.say("can send     %s\ncan receive  %s", b.Local, b.Remote)
	}
}

func (a *app) walletInvoice(fs *pflag.FlagSet) cli.Run {
	memo := ""
	fs.StringVar(&memo, "memo", "", "`TEXT` that the payer sees")
	return func(ctx context.Context, args []string) error {
		n, err := amountOrMsat("AMOUNT", args[0])
		if err != nil {
			return err
		}
		if n == 0 {
			return usagef("AMOUNT: want an amount above 0")
		}
		_, node, err := a.lnd()
		if err != nil {
			return err
		}
		invoice, hash, err := node.PlainInvoice(ctx, n, memo)
		if err != nil {
			return err
		}
		if a.json {
			return a.print(struct {
				Invoice string    `json:"invoice"`
				Hash    string    `json:"payment_hash"`
				Amount  l402.Msat `json:"amount_msat"`
			}{invoice, hash.String(), n})
		}
		return a.say("%s", invoice)
	}
}

func (a *app) walletPay(fs *pflag.FlagSet) cli.Run {
	var most, fees string
	fs.StringVar(&most, "max-msat", "", "pay up to `N` msat; default caps.per_request of the configuration")
	fs.StringVar(&fees, "max-fee-msat", "", "pay up to `N` msat for routing; default caps.fee_base and fee_ppm")
	return func(ctx context.Context, args []string) error {
		cfg, node, err := a.lnd()
		if err != nil {
			return err
		}
		inv, err := client.DecodeInvoice(args[0], cfg.Network)
		if err != nil {
			return err
		}
		limit := cfg.Caps.PerRequest
		if most != "" {
			if limit, err = amount("--max-msat", most); err != nil {
				return err
			}
		}
		fee := client.Fee{Base: cfg.Caps.FeeBase, PPM: cfg.Caps.FeePPM}.Limit(inv.Amount)
		if fees != "" {
			if fee, err = l402.ParseMsat(fees); err != nil {
				return usagef("--max-fee-msat: %w", err)
			}
		}
		p, err := payOnce(ctx, node, args[0], inv, limit, fee, cfg.PaymentTimeout)
		if err != nil {
			return err
		}
		if a.json {
			return a.print(struct {
				Preimage string    `json:"preimage"`
				Hash     string    `json:"payment_hash"`
				Amount   l402.Msat `json:"amount_msat"`
				Fee      l402.Msat `json:"fee_msat"`
			}{p.Preimage.Hex(), inv.Hash.String(), inv.Amount, p.Fee})
		}
		return a.say("paid %s + %s fee\npayment hash  %s\npreimage      %s", inv.Amount, p.Fee, inv.Hash, p.Preimage.Hex())
	}
}

// payOnce pays an invoice, or returns the payment that was already made for it. It looks for an
// earlier payment first, because an invoice that was paid and has expired since counts as paid.
func payOnce(ctx context.Context, node *lightning.Client, invoice string, inv bolt11.Invoice, limit, fee l402.Msat, timeout time.Duration) (lightning.Payment, error) {
	p, err := waitTracked(ctx, node, inv.Hash, timeout)
	switch {
	case err == nil && p.State == lightning.StateSucceeded:
		return p, nil
	case err == nil && p.State == lightning.StateInFlight:
		return p, &client.PaymentError{Hash: inv.Hash, InFlight: true, Err: errors.New("the wallet is still trying")}
	case err != nil && !errors.Is(err, lightning.ErrPaymentNotFound):
		return p, fmt.Errorf("look for an earlier payment: %w", err)
	}
	switch {
	case inv.Amount <= 0:
		return p, &client.InvoiceError{Reason: "it names no amount"}
	case !time.Now().Before(inv.ExpiresAt):
		return p, &client.InvoiceError{Reason: "it expired at " + inv.ExpiresAt.UTC().Format(time.RFC3339)}
	case inv.Amount > limit:
		return p, &client.BudgetError{Cap: "per request", Origin: "the invoice", Asked: inv.Amount, Limit: limit}
	}
	p, err = node.Pay(ctx, invoice, fee, timeout)
	var failed *lightning.PaymentError
	switch {
	case errors.As(err, &failed):
		return p, &client.PaymentError{Hash: inv.Hash, Err: fmt.Errorf("%w: %s", client.ErrPaymentFailed, failed.Reason)}
	case err != nil:
		return p, &client.PaymentError{Hash: inv.Hash, InFlight: true, Err: err}
	}
	return p, nil
}

// waitTracked returns the state of an earlier payment. It waits while the payment is in flight, at
// most for timeout.
func waitTracked(ctx context.Context, node *lightning.Client, hash l402.PaymentHash, timeout time.Duration) (lightning.Payment, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for pause := backoff.New(100*time.Millisecond, time.Second); ; {
		p, err := node.Track(ctx, hash)
		if err != nil || p.State != lightning.StateInFlight {
			return p, err
		}
		if pause.Wait(ctx) != nil {
			return p, nil
		}
	}
}
