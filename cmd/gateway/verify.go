package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sluice/internal/config"
	"sluice/internal/gateway"
	"sluice/internal/lightning"
	"sluice/l402"
	"sluice/metering"
)

func verifyLedger(ctx context.Context, e env, args []string) error {
	set := flags(e, "verify-ledger")
	path := set.String("config", "", "the gateway's configuration file (required)")
	if err := parse(set, args, 0); err != nil {
		return err
	}
	cfg, err := loadConfig(e, *path)
	if err != nil {
		return err
	}
	return verify(ctx, cfg, e.stdout)
}

// verify recomputes the ledger from its lines and compares its deposits with
// what lnd says was paid. It changes nothing and may run beside a gateway.
func verify(ctx context.Context, cfg *config.Config, out io.Writer) error {
	store, err := openReader(ctx, cfg.Store)
	if err != nil {
		return err
	}
	defer store.Close()
	ledger, err := metering.NewReader(ctx, store)
	if err != nil {
		return err
	}
	report, err := ledger.Audit(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ledger %s: %d accounts, %d open holds\n", ledger.ID(), report.Accounts, report.OpenHolds)
	fmt.Fprintf(out, "deposited %d + adjusted %d = available %d + held %d + charged %d msat\n",
		report.Deposited, report.Adjusted, report.Available, report.Held, report.Charged)
	for _, m := range report.Mismatches {
		fmt.Fprintln(out, "MISMATCH", m)
	}
	c := &comparison{out: out}
	if err := c.run(ctx, cfg, ledger); err != nil {
		return err
	}
	if !report.OK() || c.differences > 0 {
		return fmt.Errorf("%d mismatches in the ledger, %d differences from lnd", report.Mismatched, c.differences)
	}
	fmt.Fprintln(out, "all agrees")
	return nil
}

// comparison holds the ledger's deposits against lnd's settled invoices.
type comparison struct {
	out         io.Writer
	differences int
	settled     map[l402.PaymentHash]l402.Msat // arrived, for invoices of ours
	paid        l402.Msat
	foreign     int
}

func (c *comparison) differ(format string, args ...any) {
	const shown = 100
	if c.differences++; c.differences <= shown {
		fmt.Fprintf(c.out, "DIFFERENCE "+format+"\n", args...)
	}
}

func (c *comparison) run(ctx context.Context, cfg *config.Config, ledger *metering.Reader) error {
	keys, err := l402.NewKeyring(ledger.ID(), cfg.MasterKeys())
	if err != nil {
		return err
	}
	node, err := lightning.Dial(lightningConfig(cfg.Lightning, nil))
	if err != nil {
		return err
	}
	defer node.Close()
	pubkey, err := node.NodeKey(ctx)
	if err != nil {
		return err
	}
	if err := c.readNode(ctx, node, ledger, keys); err != nil {
		return err
	}
	var credited, elsewhere l402.Msat
	err = ledger.EachDeposit(ctx, func(d metering.DepositRow) error {
		arrived, here := c.settled[d.Hash]
		delete(c.settled, d.Hash)
		switch {
		case here && arrived != d.Credited:
			c.differ("payment %s: lnd received %d msat, the ledger credited %d", d.Hash, arrived, d.Credited)
		case !here && d.Settled != 0 && d.Node != pubkey:
			elsewhere += d.Credited // of a node that was replaced: it has been reported settled there
			return nil
		case !here:
			c.differ("payment %s: the ledger credited %d msat that lnd never received", d.Hash, d.Credited)
		}
		credited += d.Credited
		return nil
	})
	if err != nil {
		return err
	}
	for hash, amount := range c.settled {
		c.differ("payment %s: lnd received %d msat that the ledger has not credited", hash, amount)
	}
	fmt.Fprintf(c.out, "lnd %s…: %d msat received for this ledger, %d msat credited (%d invoices of others)\n", pubkey[:16], c.paid, credited, c.foreign)
	if elsewhere > 0 {
		fmt.Fprintf(c.out, "credited earlier from other nodes, not compared: %d msat\n", elsewhere)
	}
	return nil
}

// readNode collects the settled invoices that carry a memo of ours.
func (c *comparison) readNode(ctx context.Context, node *lightning.Client, ledger *metering.Reader, keys *l402.Keyring) error {
	born, err := ledger.Born(ctx)
	if err != nil {
		return err
	}
	c.settled = map[l402.PaymentHash]l402.Msat{}
	err = node.SettledSince(ctx, born, func(inv lightning.SettledInvoice) error {
		if _, err := keys.OpenMemo(gateway.SealedMemo(inv.Memo), inv.Hash, inv.Amount); err != nil {
			c.foreign++
			return nil
		}
		c.settled[inv.Hash] = inv.Paid
		c.paid += inv.Paid
		return nil
	})
	if errors.Is(err, lightning.ErrUnavailable) {
		return fmt.Errorf("lnd cannot be compared with: %w", err)
	}
	return err
}
