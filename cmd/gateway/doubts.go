package main

import (
	"context"
	"log/slog"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// These constants govern the check of payments that were presented and that the Lightning node did
// not report.
const (
	doubtEvery = 30 * time.Second
	doubtChunk = 100 // payments looked up in one step
	// doubtSlack is how far the clocks of the gateway and the database may differ.
	doubtSlack = time.Minute
)

// doubts takes back a credit for which a credential is the only proof and of which the Lightning
// node knows nothing although it should. Only somebody with a leaked master key can have made such
// a credential.
type doubts struct {
	ledger *metering.Ledger
	node   watcher
	sink   *sink
	grace  time.Duration // how long after its presentation a payment may remain unreported
	expiry time.Duration // how long an invoice can be paid, and so how late a payment to a lost node may be presented
	log    *slog.Logger
}

// watcher is the part of lightning.Client that doubts uses.
type watcher interface {
	Watching() (live bool, since time.Time)
	NodeKey(ctx context.Context) (string, error)
	Settled(ctx context.Context, h l402.PaymentHash) (lightning.SettledInvoice, bool, error)
}

// run calls look every doubtEvery until ctx ends.
func (d *doubts) run(ctx context.Context) {
	ticker := time.NewTicker(doubtEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := d.look(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("compare presented payments with lnd", "err", err)
		}
	}
}

// look checks the payments that the live stream of settled invoices does not show. A payment that
// was presented before the node's history began anew may have reached a node that is lost. For such
// a payment look only raises an alarm.
func (d *doubts) look(ctx context.Context) error {
	live, since := d.node.Watching()
	if !live {
		return nil
	}
	key, err := d.node.NodeKey(ctx)
	if err != nil {
		return err
	}
	cursor, _, err := d.ledger.Cursor(ctx, key)
	if err != nil {
		return err
	}
	if recorded := time.UnixMicro(cursor.Since); cursor.Since > 0 && recorded.After(since) {
		since = recorded
	}
	list, err := d.ledger.Undoubted(ctx, d.grace, since.Add(d.expiry+doubtSlack), doubtChunk)
	if err != nil {
		return err
	}
	for _, row := range list {
		if err := d.ask(ctx, row); err != nil {
			return err
		}
	}
	return nil
}

// ask asks lnd directly whether a payment arrived, because the stream may hang.
func (d *doubts) ask(ctx context.Context, row metering.DepositRow) error {
	inv, settled, err := d.node.Settled(ctx, row.Hash)
	if err != nil {
		return err
	}
	if settled && d.sink.owner(inv) == row.Account {
		inv.Cursor = lightning.Cursor{} // only the stream moves the cursor
		return d.sink.Settled(ctx, inv)
	}
	// lnd does not know the payment, or it is not settled, or it paid an invoice of another account
	// or of somebody else on the same node.
	return d.ledger.Doubt(ctx, row)
}
