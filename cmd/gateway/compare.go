package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// settledAtNode is the part of *lightning.Client that a comparison uses.
type settledAtNode interface {
	NodeKey(ctx context.Context) (string, error)
	SettledSince(ctx context.Context, since time.Time, fn func(lightning.SettledInvoice) error) error
	Settled(ctx context.Context, hash l402.PaymentHash) (lightning.SettledInvoice, bool, error)
}

// settling is how long a payment that just arrived may take from lnd to the ledger. When such a
// payment differs, the comparison asks both about it again every settlingBeat, for at most
// settlingWait.
const (
	settling     = 2 * time.Minute
	settlingBeat = 500 * time.Millisecond
	settlingWait = 10 * time.Second
	// sealMargin is how much is compared before the beginning of the open period, because a payment
	// may have settled before the period began and have reached the ledger after that.
	sealMargin = 24 * time.Hour
)

// comparison compares the ledger's deposits with lnd's settled invoices. Both may change during the
// comparison. When only one of them has a payment, the comparison looks the payment up again in
// both, by its hash, before it counts a difference.
type comparison struct {
	out    io.Writer
	ledger *metering.Reader
	node   settledAtNode
	keys   *l402.Keyring
	expiry time.Duration // how long an invoice can be paid
	wait   time.Duration // how long to wait for payments that are on their way

	since       time.Time // payments that settled before are left out; zero: all payments are compared
	pubkey      string
	rebuilt     int64                                    // start of the node's present history, in µs since 1970; 0: never rebuilt
	deposits    map[l402.PaymentHash]metering.DepositRow // deposits that were not found at lnd yet
	doubtful    map[l402.PaymentHash]bool
	differences int
	received    l402.Msat // at lnd, for the payments that were compared
	credited    l402.Msat
	elsewhere   l402.Msat // credited for payments to a node that was replaced or rebuilt
	foreign     int
}

func (c *comparison) differ(format string, args ...any) {
	const shown = 100
	if c.differences++; c.differences <= shown {
		fmt.Fprintf(c.out, "DIFFERENCE "+format+"\n", args...)
	}
}

// run compares what settled since sealed, in µs since 1970. 0 means that everything is compared.
func (c *comparison) run(ctx context.Context, sealed int64) (err error) {
	if sealed > 0 {
		c.since = time.UnixMicro(sealed).Add(-sealMargin)
	}
	if c.pubkey, err = c.node.NodeKey(ctx); err != nil {
		return notComparable(err)
	}
	cursor, _, err := c.ledger.Cursor(ctx, c.pubkey)
	if err != nil {
		return err
	}
	c.rebuilt = cursor.Since
	c.deposits, c.doubtful = make(map[l402.PaymentHash]metering.DepositRow), make(map[l402.PaymentHash]bool)
	// The ledger is read first, because lnd has received each payment before the ledger credits it.
	if err := c.readLedger(ctx); err != nil {
		return err
	}
	if err := c.readNode(ctx); err != nil {
		return notComparable(err)
	}
	for hash := range c.deposits {
		c.doubtful[hash] = true
	}
	if err := c.settle(ctx); err != nil {
		return notComparable(err)
	}
	fmt.Fprintf(c.out, "lnd %s…: %d msat received for this ledger, %d msat credited (%d invoices of others)\n",
		c.pubkey[:min(16, len(c.pubkey))], c.received, c.credited, c.foreign)
	if !c.since.IsZero() {
		fmt.Fprintf(c.out, "payments that settled before %s are not compared\n", c.since.UTC().Format(time.RFC3339))
	}
	if c.elsewhere > 0 {
		fmt.Fprintf(c.out, "credited earlier from other nodes, or before this one was rebuilt, not compared: %d msat\n", c.elsewhere)
	}
	return nil
}

func notComparable(err error) error {
	if errors.Is(err, lightning.ErrUnavailable) {
		return fmt.Errorf("lnd cannot be compared with: %w", err)
	}
	return err
}

// readLedger collects the deposits to compare. Deposits that the node has not reported as settled
// are always among them.
func (c *comparison) readLedger(ctx context.Context) error {
	return c.ledger.EachDeposit(ctx, func(d metering.DepositRow) error {
		switch {
		case d.Settled != 0 && d.Node != c.pubkey:
			c.elsewhere += d.Credited // the other node has reported the deposit as settled
		case d.Settled == 0 || c.inTime(time.UnixMicro(d.Settled)):
			c.deposits[d.Hash] = d
		}
		return nil
	})
}

func (c *comparison) inTime(settled time.Time) bool { return !settled.Before(c.since) }

// readNode compares the settled invoices whose memo was sealed with a key of this ledger.
func (c *comparison) readNode(ctx context.Context) error {
	since, err := c.ledger.Born(ctx)
	if err != nil {
		return err
	}
	if from := c.since.Add(-c.expiry - time.Hour); !c.since.IsZero() && from.After(since) {
		since = from // an invoice can only be paid within its expiry
	}
	return c.node.SettledSince(ctx, since, func(inv lightning.SettledInvoice) error {
		d, known := c.deposits[inv.Hash]
		if !known && !c.inTime(inv.At) {
			return nil
		}
		if !c.ours(inv) {
			c.foreign++
			return nil
		}
		if known && same(&d, &inv) {
			c.agree(d.Credited, inv.Paid)
			delete(c.deposits, inv.Hash)
			return nil
		}
		c.doubtful[inv.Hash] = true
		return nil
	})
}

func (c *comparison) ours(inv lightning.SettledInvoice) bool {
	_, err := c.keys.OpenMemo(gateway.SealedMemo(inv.Memo), inv.Hash, inv.Amount)
	return err == nil
}

// same reports whether the ledger credited exactly what arrived. For a payment that did not arrive,
// it reports whether the ledger credited nothing.
func same(d *metering.DepositRow, inv *lightning.SettledInvoice) bool {
	return d.Credited == inv.Paid && d.Owed == 0
}

func (c *comparison) agree(credited, received l402.Msat) {
	c.credited += credited
	c.received += received
}

// settle looks the payments that differed up again, in the ledger and at lnd. A payment that has
// just settled, or was just presented, may be on its way. settle repeats the question until both
// agree or c.wait is over.
func (c *comparison) settle(ctx context.Context) error {
	for end := time.Now().Add(c.wait); ; {
		recent := false
		for hash := range c.doubtful {
			again, err := c.ask(ctx, hash, time.Now().Before(end))
			if err != nil {
				return err
			}
			recent = recent || again
		}
		if !recent {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settlingBeat):
		}
	}
}

// ask looks one payment up in the ledger and at lnd. again means that the two differ and that the
// difference may disappear, so the caller must ask again.
func (c *comparison) ask(ctx context.Context, hash l402.PaymentHash, patient bool) (again bool, err error) {
	d, known, err := c.ledger.LookupDeposit(ctx, hash)
	if err != nil {
		return false, err
	}
	inv, paid, err := c.node.Settled(ctx, hash)
	if err != nil {
		return false, err
	}
	youngest := max(d.Presented, d.Settled)
	if paid {
		youngest = max(youngest, inv.At.UnixMicro())
	}
	differs := !same(&d, &inv)
	if differs && patient && time.Since(time.UnixMicro(youngest)) < settling {
		return true, nil
	}
	delete(c.doubtful, hash)
	if !paid && d.Settled != 0 && d.Settled < c.rebuilt {
		c.elsewhere += d.Credited // the payment settled in a history of this node that no longer exists
		return false, nil
	}
	c.agree(d.Credited, inv.Paid)
	switch {
	case !differs:
	case !paid:
		c.differ("payment %s: the ledger credited %d msat that lnd never received", hash, d.Credited)
	case !known:
		c.differ("payment %s: lnd received %d msat that the ledger has not credited", hash, inv.Paid)
	default:
		c.differ("payment %s: lnd received %d msat, the ledger credited %d, and says that %d of them are owed", hash, inv.Paid, d.Credited, d.Owed)
	}
	return false, nil
}
