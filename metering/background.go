package metering

import (
	"context"
	"time"

	"sluice.example/sluice/l402"
)

// Sizes of background work. They are small enough not to delay a paying request.
const (
	sweepChunk  = 256 // abandoned holds read at once
	tidyChunk   = 1000
	budgetChunk = 10_000 // budgets looked at in one call of closeBudgets
	tidyEvery   = 30 * time.Second
	readLimit   = 10 * time.Second
)

// every calls fn once each period until ctx ends. The first call comes after one period.
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

// tidyLoop calls Tidy every tidyEvery until ctx ends.
func (l *Ledger) tidyLoop(ctx context.Context) {
	every(ctx, tidyEvery, func() { l.Tidy(ctx) })
}

// Tidy removes expired idempotency keys, past rate windows, owners that were fenced long ago, and budgets whose tokens
// have all expired. It also counts the unconfirmed payments for the Stats. The ledger calls Tidy by itself every 30 s.
// Tidy logs a removal that fails, and the next Tidy tries again.
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

// maxAlarm is the number of unconfirmed payments at which Tidy stops counting, because more would not change the alarm.
const maxAlarm = 1000

// budgetGrace is how long after the expiry of its last token a budget is closed. A late settlement may still come
// before that.
const budgetGrace = 24 * time.Hour

// closeBudgets closes budgets whose tokens have all expired. Each call looks at the next budgetChunk budgets.
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
