package metering

import (
	"context"
	"time"

	"sluice.example/sluice/l402"
)

// Sizes of background work, small enough not to delay a paying request.
const (
	sweepChunk  = 256 // abandoned holds taken up at once
	tidyChunk   = 1000
	budgetChunk = 10_000 // budgets looked at in one go
	tidyEvery   = 30 * time.Second
	readLimit   = 10 * time.Second
)

// every calls fn each period until ctx ends.
func every(ctx context.Context, period time.Duration, fn func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			fn()
		}
	}
}

// tidyLoop removes what has run out and counts what an operator should know.
func (l *Ledger) tidyLoop(ctx context.Context) {
	every(ctx, tidyEvery, func() { l.Tidy(ctx) })
}

// Tidy removes what has run out: idempotency keys, rate windows, budgets whose
// tokens have expired. It happens by itself every 30 s. A removal that fails is
// logged and tried again the next time.
func (l *Ledger) Tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	for {
		n, err := l.store.Clean(ctx, tidyChunk)
		if err != nil && ctx.Err() == nil {
			l.log.Warn("remove expired rows", "error", err)
		}
		if n < tidyChunk || err != nil {
			break
		}
	}
	l.closeBudgets(ctx)
	var unconfirmed int64
	filter := DepositFilter{Unconfirmed: time.Now().Add(-l.cfg.ConfirmWithin), Limit: maxAlarm}
	err := l.store.Deposits(ctx, filter, func(DepositRow) error { unconfirmed++; return nil })
	if err == nil {
		l.stats.unconfirmed.Store(unconfirmed)
	}
}

// maxAlarm is where counting alarms ends: it is bad enough.
const maxAlarm = 1000

// budgetGrace is how long after the expiry of its last token a budget is closed.
// A late settlement may still come until then.
const budgetGrace = 24 * time.Hour

// closeBudgets ends budgets whose tokens have all expired.
func (l *Ledger) closeBudgets(ctx context.Context) {
	before := time.Now().Add(-max(budgetGrace, 2*l.cfg.LateSettle)).Unix()
	l.mu.Lock()
	after := l.looked
	l.mu.Unlock()
	rows, next, err := l.store.ExpiredBudgets(ctx, before, after, budgetChunk)
	if err != nil {
		if ctx.Err() == nil {
			l.log.Warn("look for expired budgets", "error", err)
		}
		return
	}
	l.mu.Lock()
	l.looked = next
	l.mu.Unlock()
	byAccount := make(map[l402.TokenID][]BudgetRow)
	for _, r := range rows {
		byAccount[r.Account] = append(byAccount[r.Account], r)
	}
	for id, rows := range byAccount {
		op := &closeOp{who: id, rows: rows, before: before}
		if err := l.do(ctx, "close budgets", op, true); err != nil {
			return
		}
		l.stats.closed.Add(op.closed)
	}
}
