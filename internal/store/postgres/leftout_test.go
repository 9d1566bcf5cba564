package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// TestLeftOutWhole checks that a batch writes nothing of an account that another session has locked: no balance, no
// line, no end of a hold, no cursor. The account's operations are answered once they are written, or refused when their
// callers have waited long enough.
func TestLeftOutWhole(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	db := open(t, url)
	l := ledger(t, db, metering.Config{Patience: 300 * time.Millisecond})
	c := admin(t, url)
	id := account(t, l, 1000)
	other := account(t, l, 1000)
	h, err := reserve(ctx, l, id, 100)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE", id[:]); err != nil {
		t.Fatal(err)
	}
	count := func(sql string) (n int64) {
		t.Helper()
		if err := tx.QueryRow(ctx, sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	lines := count("SELECT count(*) FROM transfers")
	settled := make(chan error, 2)
	go func() {
		_, err := h.Settle(ctx, calls(40))
		settled <- err
	}()
	go func() {
		_, err := l.CreditSettled(ctx, metering.Settled{Deposit: metering.Deposit{Hash: l402.PaymentHash{1}, Account: id, Amount: 50},
			Node: "02aa", Index: 7, Cursor: l402.PaymentHash{1}, At: time.Now()})
		settled <- err
	}()
	_, err = reserve(ctx, l, id, 10)
	if !errors.Is(err, metering.ErrUnavailable) {
		t.Errorf("a reservation on a locked account: %v", err)
	}
	if n := l.Stats().Conflicts; n < 3 || n > 200 {
		t.Errorf("locked operations were tried %d times", n)
	}
	if n := count("SELECT count(*) FROM transfers"); n != lines {
		t.Errorf("%d lines were written", n-lines)
	}
	if n := count("SELECT count(*) FROM holds"); n != 1 {
		t.Errorf("%d open holds, want 1", n)
	}
	if n := count("SELECT count(*) FROM settle_cursors"); n != 0 {
		t.Error("the cursor has moved past a payment that is not credited")
	}
	if n := count("SELECT count(*) FROM deposits WHERE account = (SELECT id FROM accounts WHERE held > 0)"); n != 1 {
		t.Errorf("%d deposits, want 1", n)
	}
	if h, err := reserve(ctx, l, other, 10); err != nil {
		t.Errorf("beside a locked account: %v", err)
	} else if _, err := h.Settle(ctx, calls(10)); err != nil {
		t.Error(err)
	}
	select {
	case err := <-settled:
		t.Fatalf("answered while the account is locked: %v", err)
	default:
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-settled; err != nil {
			t.Error(err)
		}
	}
	if cursor, _, err := l.Cursor(ctx, "02aa"); err != nil || cursor.Index != 7 {
		t.Errorf("cursor %+v, %v", cursor, err)
	}
	if r := audit(t, l); r.Charged != 50 || r.Held != 0 || r.Deposited != 2050 {
		t.Errorf("report: %+v", r)
	}
}

// TestRefusalsAreOfOneMoment presents one payment for a new account to two gateways. One gateway reads the account
// before the other gateway has made it, and the deposit afterwards. That gateway must not refuse the client, who has
// paid.
func TestRefusalsAreOfOneMoment(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	l := ledger(t, open(t, url+"&lock_timeout=10s"), metering.Config{})
	c := admin(t, url)
	buy := func(paid metering.Deposit) error {
		_, err := l.Reserve(ctx, metering.Reservation{ID: metering.NewHoldID(), Account: paid.Account, Amount: 10,
			Rates: pricing.Rates{pricing.Calls: 1}, Deposit: &paid})
		return err
	}
	for i := range 10 { // prepares all statements first, because preparing takes locks of its own
		if err := buy(metering.Deposit{Hash: l402.PaymentHash{2, byte(i)}, Account: l402.NewTokenID(), Amount: 10}); err != nil {
			t.Fatal(err)
		}
	}
	paid := metering.Deposit{Hash: l402.PaymentHash{1}, Account: l402.NewTokenID(), Amount: 1000}
	other, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		sql  string
		args []any
	}{
		{"LOCK TABLE deposits IN ACCESS EXCLUSIVE MODE", nil},
		{`INSERT INTO accounts (id, status, available, held, deposited, charged, adjusted) VALUES ($1, 0, 1000, 0, 1000, 0, 0)`,
			[]any{paid.Account[:]}},
		{`INSERT INTO deposits (hash, account, credited, presented) VALUES ($1, $2, 1000, 1)`, []any{paid.Hash[:], paid.Account[:]}},
		{`INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, 'lightning', $1, 1000, $2, 1)`,
			[]any{paid.Account[:], paid.Hash[:]}},
	} {
		if _, err := other.Exec(ctx, s.sql, s.args...); err != nil {
			t.Fatal(s.sql, err)
		}
	}
	refused := make(chan error, 1)
	go func() { refused <- buy(paid) }()
	watch := admin(t, url)
	for waits, until := 0, time.Now().Add(10*time.Second); waits == 0; {
		err := watch.QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&waits)
		if err != nil || time.Now().After(until) {
			t.Fatalf("the reservation does not wait for the deposits: %v", err)
		}
	}
	if err := other.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-refused; err != nil {
		t.Errorf("who has paid is refused: %v", err)
	}
	if r := audit(t, l); r.Deposited != 1100 || r.Held != 110 {
		t.Errorf("report: %+v", r)
	}
}

// TestTimeIsTheServers checks that the time of a batch is the server's time, so that all gateways have the same time.
// The server of this test has a clock of its own.
func TestTimeIsTheServers(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	open(t, url)
	_, err := admin(t, url).Exec(ctx, `CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql
		AS $$ SELECT to_timestamp(1000000) $$`)
	if err != nil {
		t.Fatal(err)
	}
	var b metering.Batch
	if err := open(t, url+"&options=-csearch_path%3Dpublic,pg_catalog").Apply(ctx, &b, func() {}); err != nil || b.Now != 1e12 {
		t.Errorf("now is %d, %v", b.Now, err)
	}
}
