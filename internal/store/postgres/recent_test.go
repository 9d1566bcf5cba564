package postgres_test

import (
	"context"
	"errors"
	"testing"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// afresh reserves with an id that the ledger makes, so that the store need not read whether the hold exists.
func afresh(l *metering.Ledger, id l402.TokenID, amount l402.Msat) (*metering.Hold, error) {
	return l.Reserve(context.Background(), metering.Reservation{Account: id, Amount: amount, Rates: pricing.Rates{pricing.Calls: 1}})
}

// TestNobodyIsRefusedFromMemory checks that a gateway which remembers an account as empty asks the database before it
// refuses a request, because another gateway may have credited the account.
func TestNobodyIsRefusedFromMemory(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	one, two := ledger(t, open(t, url), metering.Config{}), ledger(t, open(t, url), metering.Config{})
	id := account(t, one, 100)
	h, err := afresh(one, id, 100)
	if err != nil {
		t.Fatal(err)
	}
	var short *metering.InsufficientError
	if _, err := afresh(one, id, 1); !errors.As(err, &short) || short.Available != 0 {
		t.Fatalf("an empty account: %v", err)
	}
	if _, err := two.Deposit(ctx, metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: id, Amount: 50}); err != nil {
		t.Fatal(err)
	}
	second, err := afresh(one, id, 50)
	if err != nil {
		t.Fatalf("who has paid at another gateway is refused: %v", err)
	}
	for _, h := range []*metering.Hold{h, second} {
		if _, err := h.Settle(ctx, calls(10)); err != nil {
			t.Error(err)
		}
	}
	if r := audit(t, one); r.Charged != 20 || r.Held != 0 {
		t.Errorf("report: %+v", r)
	}
}

// TestWhatOthersWroteIsNoticed checks that a gateway does not overwrite rows that another gateway, or an operator, has
// changed since.
func TestWhatOthersWroteIsNoticed(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	ledgers := []*metering.Ledger{ledger(t, open(t, url), metering.Config{}), ledger(t, open(t, url), metering.Config{})}
	id := account(t, ledgers[0], 1000)
	budget := l402.Budget{ID: [32]byte{7}, Limit: 500}
	var held [2]*metering.Hold
	for i := range 100 {
		l := ledgers[i%2]
		if i >= 50 { // each ledger for a while
			l = ledgers[i/10%2]
		}
		r := metering.Reservation{Account: id, Amount: 4, Rates: pricing.Rates{pricing.Calls: 1}, Budgets: []l402.Budget{budget}}
		h, err := l.Reserve(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		if old := held[i%2]; old != nil {
			if _, err := old.Settle(ctx, calls(3)); err != nil {
				t.Fatal(err)
			}
		}
		held[i%2] = h
	}
	for _, h := range held {
		if _, err := h.Settle(ctx, calls(3)); err != nil {
			t.Fatal(err)
		}
	}
	if r := audit(t, ledgers[0]); r.Charged != 300 || r.Held != 0 {
		t.Errorf("report: %+v", r)
	}
	if _, err := admin(t, url).Exec(ctx, "UPDATE accounts SET status = 1 WHERE id = $1", id[:]); err != nil {
		t.Fatal(err)
	}
	for _, l := range ledgers {
		if _, err := afresh(l, id, 1); !errors.Is(err, metering.ErrFrozen) {
			t.Errorf("a frozen account: %v", err)
		}
	}
}
