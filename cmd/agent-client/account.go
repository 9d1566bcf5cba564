package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

func (a *app) balance(fs *pflag.FlagSet) cli.Run {
	open := a.gatewayFlag(fs)
	return func(ctx context.Context, _ []string) error {
		base, buyer, err := open()
		if err != nil {
			return err
		}
		b, err := buyer.Balance(ctx, base)
		if err != nil {
			return err
		}
		return a.showBalance(b)
	}
}

// gatewayFlag declares --url. The function that it returns finds the gateway, from --url or else
// from the configuration, and opens the buyer.
func (a *app) gatewayFlag(fs *pflag.FlagSet) func() (base string, buyer *client.Client, err error) {
	url := fs.String("url", "", "gateway's `URL`; default gateway_url of the configuration")
	return func() (string, *client.Client, error) {
		cfg, err := a.config()
		if err != nil {
			return "", nil, err
		}
		base, err := cfg.gateway(*url)
		if err != nil {
			return "", nil, err
		}
		buyer, err := a.buyer(cfg)
		return base, buyer, err
	}
}

func (a *app) showBalance(b client.Balance) error {
	if a.json {
		return a.print(b)
	}
	err := a.say("account    %s\navailable  %s", b.Account, b.Available)
	for _, total := range []struct {
		name   string
		amount *l402.Msat
	}{{"held", b.Held}, {"deposited", b.Deposited}, {"charged", b.Charged}, {"refunded", b.Refunded}} {
		if err == nil && total.amount != nil {
			err = a.say("%-10s %s", total.name, *total.amount)
		}
	}
	for _, budget := range b.Budgets {
		if err == nil {
			err = a.say("budget     %s of %s left  %s", budget.Available, budget.Limit, budget.Label)
		}
	}
	return err
}

func (a *app) quote(fs *pflag.FlagSet) cli.Run {
	var base string
	v := url.Values{}
	fs.StringVar(&base, "url", "", "gateway's `URL`; default gateway_url of the configuration")
	fs.Func("model", "`NAME` of the model", func(s string) error { v.Set("model", s); return nil })
	fs.Func("path", "`PATH` of the API that is meant, such as /v1/embeddings; default: any", func(s string) error { v.Set("path", s); return nil })
	for name, usage := range map[string]string{
		"input-tokens": "`N` tokens in the prompt", "max-tokens": "most `N` tokens in the answer",
		"searches": "`N` queries over at most 100 documents each, to rank", "documents": "`N` documents to rank or to score",
	} {
		key := strings.ReplaceAll(name, "-", "_")
		fs.Func(name, usage, func(s string) error {
			n, err := strconv.ParseUint(s, 10, 63)
			v.Set(key, strconv.FormatUint(n, 10))
			return err
		})
	}
	return func(ctx context.Context, _ []string) error {
		if v.Get("model") == "" {
			return usagef("want --model NAME")
		}
		cfg, err := a.config()
		if err != nil {
			return err
		}
		if base, err = cfg.gateway(base); err != nil {
			return err
		}
		buyer, err := a.buyer(cfg)
		if err != nil {
			return err
		}
		q, err := buyer.Quote(ctx, base, v)
		if err != nil {
			return err
		}
		if a.json {
			return a.print(q)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, bytes.TrimSpace(q), "", "  "); err != nil {
			return fmt.Errorf("read quote: %w", err)
		}
		return a.say("%s", pretty.String())
	}
}

// topupHelp follows the summary in the help text of topup.
const topupHelp = `
    AMOUNT is whole satoshis: "50 sat", "50000 msat", "0.001 btc", or a number of
    msat. A gateway whose smallest purchase is larger is not paid.`

// topup buys exactly the amount that the user asked for, or nothing.
func (a *app) topup(fs *pflag.FlagSet) cli.Run {
	open := a.gatewayFlag(fs)
	return func(ctx context.Context, args []string) error {
		base, buyer, err := open()
		if err != nil {
			return err
		}
		n, err := purchase("AMOUNT", args[0])
		if err != nil {
			return err
		}
		p, b, err := buyer.TopUp(ctx, base, n)
		if err != nil {
			return err
		}
		if a.json {
			return a.print(struct {
				TokenID     string         `json:"token_id"`
				PaymentHash string         `json:"payment_hash"`
				Amount      l402.Msat      `json:"amount_msat"`
				Fee         l402.Msat      `json:"fee_msat"`
				Balance     client.Balance `json:"balance"`
			}{p.Token.ID.String(), p.Token.PaymentHash.String(), p.Amount, p.Fee, b})
		}
		if err := a.say("paid %s + %s fee", p.Amount, p.Fee); err != nil {
			return err
		}
		return a.showBalance(b)
	}
}
