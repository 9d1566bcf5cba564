package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

func ledger(t *testing.T, db *postgres.DB, cfg metering.Config) *metering.Ledger {
	t.Helper()
	cfg.Store = db
	l, err := metering.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return l
}

func account(t *testing.T, l *metering.Ledger, amount l402.Msat) l402.TokenID {
	t.Helper()
	id := l402.NewTokenID()
	if _, err := l.Deposit(context.Background(), metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: id, Amount: amount}); err != nil {
		t.Fatal(err)
	}
	return id
}

func reserve(ctx context.Context, l *metering.Ledger, id l402.TokenID, amount l402.Msat) (*metering.Hold, error) {
	return l.Reserve(ctx, metering.Reservation{ID: metering.NewHoldID(), Account: id, Amount: amount, Rates: pricing.Rates{pricing.Calls: 1}})
}

func calls(n int64) metering.Settlement {
	return metering.Settlement{Usage: pricing.Units{pricing.Calls: n}, Outcome: metering.OutcomeComplete}
}

func audit(t *testing.T, l *metering.Ledger) metering.Report {
	t.Helper()
	r, err := l.Audit(context.Background())
	if err != nil || !r.OK() {
		t.Errorf("audit: %q, %v", r.Mismatches, err)
	}
	return r
}

// TestServerKilled kills the server without a checkpoint again and again while two gateways work. It checks that
// acknowledged operations are not lost, and that nothing is charged twice or above its hold.
func TestServerKilled(t *testing.T) {
	server := pgtest.New(t, true)
	url := server.Fresh(t)
	ledgers := []*metering.Ledger{ledger(t, open(t, url), metering.Config{Patience: 200 * time.Millisecond}),
		ledger(t, open(t, url), metering.Config{Patience: 200 * time.Millisecond})}
	id := account(t, ledgers[0], 1e9)

	var mu sync.Mutex
	settled := map[metering.HoldID]l402.Msat{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			l := ledgers[i%2]
			for {
				select {
				case <-stop:
					return
				default:
				}
				h, err := reserve(context.Background(), l, id, 100)
				if errors.Is(err, metering.ErrUnavailable) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				entry, err := h.Settle(context.Background(), calls(7))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				settled[h.ID()] = entry.Charged
				mu.Unlock()
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(settled) }
	for range 3 {
		until := count() + 300
		eventually(t, "settlements", func() bool { return count() >= until })
		server.Kill()
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
	}
	until := count() + 300
	eventually(t, "settlements after the last crash", func() bool { return count() >= until })
	close(stop)
	wg.Wait()

	// The ledgers release by themselves the reservations whose callers were refused meanwhile.
	eventually(t, "releases", func() bool {
		b, err := ledgers[0].Balance(context.Background(), id, nil)
		return err == nil && b.Held == 0
	})
	report := audit(t, ledgers[0])
	want := l402.Msat(0)
	db := open(t, url)
	for hold, charged := range settled {
		c, found, err := db.Charge(context.Background(), hold)
		if err != nil || !found || c.Charged != charged || charged != 7 {
			t.Fatalf("settlement %s: %+v, %v, %v", hold, c, found, err)
		}
		want += charged
	}
	if report.Charged != want || report.Available+want != 1e9 {
		t.Errorf("charged %d, %d were answered: %+v", report.Charged, want, report)
	}
	t.Logf("%d settlements, %d attempts without an answer", len(settled), ledgers[0].Stats().Retries+ledgers[1].Stats().Retries)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestLockedAccount checks that a session which keeps one account's row locked delays only that account.
func TestLockedAccount(t *testing.T) {
	url := pgtest.Start(t)
	l := ledger(t, open(t, url), metering.Config{Patience: 10 * time.Second})
	stuck := account(t, l, 1000)
	h, err := reserve(context.Background(), l, stuck, 100)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE", stuck[:]); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := h.Settle(ctx, calls(60))
		answered <- err
	}()
	eventually(t, "conflict", func() bool { return l.Stats().Conflicts > 0 })
	began := time.Now()
	others := make([]l402.TokenID, 20)
	for i := range others {
		others[i] = account(t, l, 100)
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			h, err := reserve(ctx, l, others[i%len(others)], 10)
			if err == nil {
				_, err = h.Settle(ctx, calls(10))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("200 others in %s", time.Since(began))
	select {
	case err := <-answered:
		t.Errorf("settled a locked account: %v", err)
	default:
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if r := audit(t, l); r.Charged != 60+2000 || r.Held != 0 {
		t.Errorf("report: %+v", r)
	}
}

// TestOpenAtOnce checks that many gateways which start on an empty database agree on the ledger's id and on its master
// keys.
func TestOpenAtOnce(t *testing.T) {
	url := pgtest.Start(t)
	ids, bound := make([]l402.LedgerID, 8), make([]error, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			l := ledger(t, open(t, url), metering.Config{})
			ids[i] = l.ID()
			bound[i] = l.BindKeys(context.Background(), [][32]byte{{byte(1 + i%2)}})
		})
	}
	wg.Wait()
	refused := 0
	for i := range ids {
		if ids[i] != ids[0] || ids[i] == (l402.LedgerID{}) {
			t.Errorf("ledger ids differ: %v, %v", ids[i], ids[0])
		}
		if errors.Is(bound[i], metering.ErrForeignKeys) {
			refused++
		} else if bound[i] != nil {
			t.Error(bound[i])
		}
	}
	if refused != 4 {
		t.Errorf("%d of 8 gateways with two different keys were refused", refused)
	}
	if _, err := postgres.OpenReader(context.Background(), url); err != nil {
		t.Error(err)
	}
}

// TestForeignRace lets two accounts present one payment at once, to two gateways. No row is locked by both, so only the
// primary key decides which account gets the payment.
func TestForeignRace(t *testing.T) {
	url := pgtest.Start(t)
	ledgers := []*metering.Ledger{ledger(t, open(t, url), metering.Config{}), ledger(t, open(t, url), metering.Config{})}
	for range 20 {
		h := l402.NewPreimage().Hash()
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = ledgers[i].Deposit(context.Background(), metering.Deposit{Hash: h, Account: l402.NewTokenID(), Amount: 100})
			})
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), metering.ErrForeignDeposit) {
			t.Fatalf("got %v and %v", errs[0], errs[1])
		}
	}
	if r := audit(t, ledgers[0]); r.Deposited != 2000 {
		t.Errorf("report: %+v", r)
	}
}

// TestGuards checks that the schema refuses impossible rows, whichever program writes them.
func TestGuards(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	open(t, url)
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	id := `'\x` + strings.Repeat("01", 32) + `'`
	for _, sql := range []string{
		`INSERT INTO accounts (id, available, held, deposited) VALUES (` + id + `, 60, 40, 100)`,
		`INSERT INTO budgets (id, account, max_spend, spent, held) VALUES (` + id + `, ` + id + `, 100, 60, 40)`,
		`INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, '\x01', '\x02', 100, '\x03', 0)`,
		`INSERT INTO deposits (hash, account, credited) VALUES (` + id + `, ` + id + `, 100)`,
		`INSERT INTO price_overrides VALUES ('m', 2, 0)`,
	} {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	for _, sql := range []string{
		`UPDATE accounts SET available = -1, held = 101`,
		`UPDATE accounts SET held = -1, available = 101`,
		`UPDATE accounts SET available = 61`,
		`UPDATE accounts SET status = 3`,
		`UPDATE budgets SET spent = 61`,
		`UPDATE budgets SET spent = -1`,
		`UPDATE transfers SET amount = 5`,
		`DELETE FROM transfers`,
		`TRUNCATE transfers`,
		`TRUNCATE budget_lines`,
		`INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, '\x01', '\x02', 0, '\x03', 0)`,
		`INSERT INTO accounts (id) VALUES ('\x01')`,
		`INSERT INTO accounts (id) VALUES (` + id + `)`,
		`INSERT INTO meta VALUES (2, '\x00000000000000000000000000000000', 0)`,
		`UPDATE deposits SET covered = -1`,
		`UPDATE price_overrides SET multiplier = 0`,
		`UPDATE price_overrides SET multiplier = 'NaN'`,
	} {
		var pg *pgconn.PgError
		if _, err := c.Exec(ctx, sql); !errors.As(err, &pg) || pg.Code[:2] != "23" {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestBadURL(t *testing.T) {
	_, err := postgres.Open(context.Background(), "postgres://u:secret@host:port/db")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}
