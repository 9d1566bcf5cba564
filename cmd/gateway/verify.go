package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

func verifyLedger(e env, set *pflag.FlagSet) cli.Run {
	path := set.String("config", "", "the gateway's configuration `FILE` (required)")
	full := set.Bool("full", false, "read closed months again as well, all of their lines and invoices")
	pause := set.Float64("pause", 0, "rest this many times as long as each step took, to spare a gateway that serves")
	return func(ctx context.Context, _ []string) error {
		cfg, err := loadConfig(e, *path)
		if err != nil {
			return err
		}
		return verify(ctx, cfg, metering.AuditOptions{Open: !*full, Pause: *pause}, e.stdout)
	}
}

// verify recomputes the ledger from its lines and compares its deposits with the payments that lnd
// received. Unless everything is requested, it checks only what came since the last closed month.
// It changes nothing and may run beside a gateway.
func verify(ctx context.Context, cfg *config.Config, o metering.AuditOptions, out io.Writer) error {
	store, err := openReader(ctx, cfg.Store)
	if err != nil {
		return err
	}
	defer store.Close()
	ledger, err := metering.NewReader(ctx, store)
	if err != nil {
		return err
	}
	report, err := ledger.AuditWith(ctx, o)
	if err != nil {
		return err
	}
	printReport(out, ledger.ID(), &report)
	c, err := compareWithLnd(ctx, cfg, ledger, &report, out)
	if err != nil {
		return err
	}
	if !report.OK() || c.differences > 0 {
		return fmt.Errorf("%d mismatches in the ledger, %d differences from lnd", report.Mismatched, c.differences)
	}
	fmt.Fprintln(out, "all agrees")
	return nil
}

func printReport(out io.Writer, id l402.LedgerID, r *metering.Report) {
	fmt.Fprintf(out, "ledger %s: %d accounts, %d open holds\n", id, r.Accounts, r.OpenHolds)
	fmt.Fprintf(out, "deposited %d + adjusted %d = available %d + held %d + charged %d msat\n",
		r.Deposited, r.Adjusted, r.Available, r.Held, r.Charged)
	if r.Since != "" {
		fmt.Fprintf(out, "%d lines since %s was closed; --full reads closed months again\n", r.Lines, r.Since)
	} else {
		fmt.Fprintf(out, "%d lines, %d closed months among them\n", r.Lines, r.Periods)
	}
	for _, m := range r.Mismatches {
		fmt.Fprintln(out, "MISMATCH", m)
	}
}

// compareWithLnd compares the deposits that settled since the last closed month was closed. When
// everything is requested, it compares all deposits.
func compareWithLnd(ctx context.Context, cfg *config.Config, ledger *metering.Reader, r *metering.Report, out io.Writer) (*comparison, error) {
	keys, err := l402.NewKeyring(ledger.ID(), cfg.MasterKeys())
	if err != nil {
		return nil, err
	}
	node, err := lightning.Dial(lightningConfig(cfg.Lightning, nil))
	if err != nil {
		return nil, err
	}
	defer node.Close()
	c := &comparison{out: out, ledger: ledger, node: node, keys: keys, expiry: cfg.Lightning.InvoiceExpiry, wait: settlingWait}
	return c, c.run(ctx, r.SealedAt)
}
