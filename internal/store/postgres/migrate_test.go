package postgres

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/migrations"
	"sluice.example/sluice/pricing"
)

// page is a log that tests can read while it is written.
type page struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// made opens the database, and returns it with a connection for migrations.
func made(t *testing.T, url string, opts ...Option) (*DB, *pgx.Conn) {
	t.Helper()
	d, err := Open(context.Background(), url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	c, err := d.session(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp(c) })
	return d, c
}

// next returns the steps of a migration that follows all existing migrations.
func next(t *testing.T, sql ...string) (steps []migrations.Step) {
	t.Helper()
	all, err := migrations.Load(migrations.Postgres)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sql {
		steps = append(steps, migrations.Step{Version: len(all) + 1, Name: "9999_next", Number: i + 1, Of: len(sql), SQL: s})
	}
	return steps
}

// TestMigrationBesideAudit runs a migration that needs a strong lock while an audit reads all tables for a long time.
// It checks that the migration waits for the lock, stops neither readers nor payments meanwhile, and logs what it waits
// for.
func TestMigrationBesideAudit(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	url := pgtest.Start(t)
	log := &page{}
	d, c := made(t, url, WithLog(slog.New(slog.NewJSONHandler(log, nil))))
	l, err := metering.Open(ctx, metering.Config{Store: d})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(ctx)
	id := l402.NewTokenID()
	if _, err := l.Deposit(ctx, metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: id, Amount: 1e9}); err != nil {
		t.Fatal(err)
	}
	auditor, err := d.session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(auditor)
	audit := beginAudit(t, auditor)

	var looks atomic.Int64
	var slowest time.Duration
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // a failing read fails at once, so every read is counted
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			if _, _, found, err := d.Balance(ctx, id, nil); err != nil || !found {
				t.Errorf("look-up %d: %v, %v", looks.Load(), found, err)
			}
			slowest = max(slowest, time.Since(began))
			looks.Add(1)
		}
	}()
	migrated := make(chan error, 1)
	go func() {
		migrated <- schema{c, d}.Migrate(ctx, next(t, "ALTER TABLE accounts ADD COLUMN color bigint")[0])
	}()
	within(t, "a word in the log", func() bool { return strings.Contains(log.String(), "waits for a lock") })
	pay(t, l, id, 20)
	before := looks.Load()
	within(t, "look-ups", func() bool { return looks.Load() > before+200 })
	select {
	case err := <-migrated:
		t.Fatalf("migrated beside the audit: %v", err)
	default:
	}
	if err := audit.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-migrated; err != nil {
		t.Error(err)
	}
	pay(t, l, id, 20)
	before = looks.Load()
	within(t, "look-ups after", func() bool { return looks.Load() > before+20 })
	close(stop)
	<-stopped
	if slowest > 2*time.Second {
		t.Errorf("a look-up took %s", slowest)
	}
	text := log.String()
	holder := fmt.Sprintf("pid %d", auditor.PgConn().PID())
	for _, want := range []string{"9999_next, step 1 of 1", "AccessExclusiveLock on accounts", holder} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not say %q: %s", want, text)
		}
	}
	if strings.Contains(strings.ToUpper(text), "SELECT") {
		t.Errorf("the log tells a statement: %s", text)
	}
	t.Logf("%d look-ups, the slowest took %s", looks.Load(), slowest)
}

// beginAudit begins a transaction like that of a backup or a long audit: one snapshot that reads every table of money.
func beginAudit(t *testing.T, c *pgx.Conn) pgx.Tx {
	t.Helper()
	ctx := context.Background()
	tx, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"SET LOCAL idle_in_transaction_session_timeout = 0",
		"SELECT count(*) FROM accounts", "SELECT count(*) FROM budgets", "SELECT count(*) FROM holds",
		"SELECT count(*) FROM charges", "SELECT count(*) FROM deposits", "SELECT count(*) FROM transfers",
		"SELECT count(*) FROM budget_lines", "SELECT count(*) FROM settle_cursors",
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	return tx
}

func pay(t *testing.T, l *metering.Ledger, id l402.TokenID, times int) {
	t.Helper()
	ctx := context.Background()
	for range times {
		h, err := l.Reserve(ctx, metering.Reservation{ID: metering.NewHoldID(), Account: id, Amount: 100,
			Rates: pricing.Rates{pricing.Calls: 1}})
		if err == nil {
			_, err = h.Settle(ctx, metering.Settlement{Usage: pricing.Units{pricing.Calls: 7}, Outcome: metering.OutcomeComplete})
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestMigrationStops checks that the wait for a lock ends with the context, and leaves nothing behind.
func TestMigrationStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log := &page{}
	d, c := made(t, pgtest.Start(t), WithLog(slog.New(slog.NewTextHandler(log, nil))))
	auditor, err := d.session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp(auditor)
	beginAudit(t, auditor)
	migrated := make(chan error, 1)
	go func() { migrated <- schema{c, d}.Migrate(ctx, next(t, "ALTER TABLE holds ADD COLUMN color bigint")[0]) }()
	within(t, "a word in the log", func() bool { return strings.Contains(log.String(), "waits for a lock") })
	cancel()
	if err := <-migrated; err == nil || ctx.Err() == nil {
		t.Errorf("got %v", err)
	}
	var waiting int
	err = auditor.QueryRow(context.Background(), `SELECT count(*) FROM pg_locks
		WHERE NOT granted AND relation = 'holds'::regclass`).Scan(&waiting)
	if err != nil || waiting != 0 {
		t.Errorf("%d still wait, %v", waiting, err)
	}
}

// TestMigrationGoesOn checks that a migration which was interrupted between its steps continues after the last step
// that ran, and counts as done only when all steps have run.
func TestMigrationGoesOn(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	d, c := made(t, url)
	s := schema{c, d}
	broken := next(t, "CREATE TABLE one (x bigint)", "CREATE TABLE two (x bigint); SELECT 1 / 0",
		"CREATE TABLE three (x bigint)")
	version, steps, err := s.Done(ctx, 99)
	if err != nil || steps != 0 || version != broken[0].Version-1 {
		t.Fatalf("done %d, %d, %v", version, steps, err)
	}
	if err := s.Migrate(ctx, broken[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(ctx, broken[1]); err == nil {
		t.Error("a step that fails ran")
	}
	for range 2 {
		if v, n, err := s.Done(ctx, 99); err != nil || v != version || n != 1 {
			t.Errorf("done %d, %d, %v", v, n, err)
		}
		if err := s.Migrate(ctx, broken[0]); err == nil {
			t.Error("a step ran twice")
		}
	}
	if _, err := Open(ctx, url); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("an older program opened it: %v", err)
	}
	fixed := next(t, "", "CREATE TABLE two (x bigint)", "CREATE TABLE three (x bigint)")
	for _, step := range fixed[1:] {
		if err := s.Migrate(ctx, step); err != nil {
			t.Fatal(err)
		}
	}
	if v, n, err := s.Done(ctx, 99); err != nil || v != version+1 || n != 0 {
		t.Errorf("done %d, %d, %v", v, n, err)
	}
}

// TestStartNeedsNoLock checks that a gateway whose schema is up to date starts while another gateway has the lock of
// migrations.
func TestStartNeedsNoLock(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	url := pgtest.Start(t)
	_, c := made(t, url)
	if _, err := c.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(migrationLock)); err != nil {
		t.Fatal(err)
	}
	second, err := Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

// TestAdditiveAhead checks what a program does with migrations of a newer one: it starts beside an additive one, whole or
// in part, and refuses the schema once another one has begun after it.
func TestAdditiveAhead(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	d, c := made(t, url)
	s := schema{c, d}
	added := next(t, "CREATE TABLE one (x bigint)", "CREATE TABLE two (x bigint)")
	for i := range added {
		added[i].Additive = true
		if err := s.Migrate(ctx, added[i]); err != nil {
			t.Fatal(err)
		}
		other, err := Open(ctx, url)
		if err != nil {
			t.Fatalf("step %d of an additive migration keeps this version from starting: %v", i+1, err)
		}
		other.Close()
		reader, err := OpenReader(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
	}
	after := next(t, "CREATE TABLE three (x bigint)", "CREATE TABLE four (x bigint)")
	for i := range after {
		after[i].Version++
	}
	if err := s.Migrate(ctx, after[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, url); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("it opened a schema that is being changed: %v", err)
	}
	var version int // what programs see that know no additive migrations
	if err := c.QueryRow(ctx, "SELECT max(version) FROM schema_versions").Scan(&version); err != nil || version != added[0].Version {
		t.Errorf("older programs see version %d, %v", version, err)
	}
}
