// Package postgres keeps the ledger in PostgreSQL (15 or newer): the store for
// any number of gateway processes.
//
//	db, err := postgres.Open(ctx, "postgres://sluice@db/sluice")
//	ledger, err := metering.Open(ctx, metering.Config{Store: db})
//
// A batch takes two round trips: one that locks and reads its rows, one that
// writes the changes and commits. Accounts are locked first and in the order of
// their ids, so that batches of different gateways never wait for each other in
// a circle; everything else in a batch belongs to a locked account. Waiting for
// a lock ends after lockTimeout, and the ledger splits the batch.
//
// A batch of holds and renewals only is committed with synchronous_commit=off: a
// crash of the server may lose the last of them, and the settlement that follows
// re-creates what it needs. A batch that moves money is durable.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sluice/metering"
	"sluice/migrations"
)

var _ metering.Store = (*DB)(nil)

// What a session waits for at most. A gateway that stands still in the middle of
// a batch (stopped, swapped out) must not keep its rows locked for the others.
const (
	lockTimeout      = "200ms"
	statementTimeout = "30s"
	idleTimeout      = "10s" // within a transaction
)

// minConns: one to write, the rest to read; pool_max_conns in the URL may ask
// for more.
const minConns = 4

// DB is a ledger in a PostgreSQL database. Safe for concurrent use.
type DB struct {
	pool *pgxpool.Pool
	life context.Context // ends with Close
	end  context.CancelFunc
}

// Open connects to the database that the URL names (postgres://…, or the
// key=value form) and brings its schema up to date. Several processes may do so
// at the same time.
func Open(ctx context.Context, url string) (*DB, error) {
	d, err := connect(ctx, url)
	if err != nil {
		return nil, err
	}
	if err := d.migrate(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("open ledger in PostgreSQL: %w", err)
	}
	return d, nil
}

// OpenReader connects without changing the schema: it must be up to date.
func OpenReader(ctx context.Context, url string) (*DB, error) {
	d, err := connect(ctx, url)
	if err != nil {
		return nil, err
	}
	conn, err := d.pool.Acquire(ctx)
	if err == nil {
		err = migrations.Check(ctx, migrations.Postgres, schema{conn.Conn()})
		conn.Release() // before Close, which waits for it
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("open ledger in PostgreSQL: %w", err)
	}
	return d, nil
}

func connect(ctx context.Context, url string) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		// The library's message would repeat the URL; it redacts the password only
		// when it could parse it.
		return nil, errors.New("open ledger in PostgreSQL: the URL is not of the form postgres://user:password@host/database")
	}
	cfg.MaxConns = max(cfg.MaxConns, minConns)
	params := cfg.ConnConfig.RuntimeParams
	for name, value := range map[string]string{"lock_timeout": lockTimeout, "statement_timeout": statementTimeout,
		"idle_in_transaction_session_timeout": idleTimeout, "application_name": "sluice",
		// Every statement has one good plan, whatever its parameters: making new ones
		// took a quarter of the server's time.
		"plan_cache_mode": "force_generic_plan"} {
		if _, set := params[name]; !set {
			params[name] = value
		}
	}
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		// A server that is set to answer before it has written would break the
		// promise of a durable batch.
		_, err := c.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open ledger in PostgreSQL: %w", err)
	}
	d := &DB{pool: pool}
	d.life, d.end = context.WithCancel(context.WithoutCancel(ctx))
	return d, nil
}

// Close closes all connections.
func (d *DB) Close() error {
	d.end()
	d.pool.Close()
	return nil
}

// Ping asks the server for nothing.
func (d *DB) Ping(ctx context.Context) error { return d.pool.Ping(ctx) }

// migrationLock keeps processes from migrating at the same time: a number of no
// meaning, the same in all of them.
const migrationLock = 0x51_1c_e0_01

func (d *DB) migrate(ctx context.Context) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	c := conn.Conn()
	// Another process may take longer to migrate than anything else may take.
	if _, err := c.Exec(ctx, "SET lock_timeout = 0; SET statement_timeout = 0"); err != nil {
		return err
	}
	if _, err := c.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(migrationLock)); err != nil {
		return err
	}
	err = migrateLocked(ctx, c)
	// On a connection of its own kind no more: the lock and the settings go with it.
	return errors.Join(err, conn.Hijack().Close(context.WithoutCancel(ctx)))
}

func migrateLocked(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `CREATE TABLE IF NOT EXISTS schema_versions (
		version integer PRIMARY KEY, name text NOT NULL, applied timestamptz NOT NULL DEFAULT now())`)
	if err != nil {
		return err
	}
	if err := migrations.Run(ctx, migrations.Postgres, schema{c}); err != nil {
		return err
	}
	var id [16]byte
	rand.Read(id[:])
	_, err = c.Exec(ctx, `INSERT INTO meta (one, ledger_id, born) VALUES (1, $1, $2) ON CONFLICT DO NOTHING`,
		id[:], time.Now().UnixMicro())
	return err
}

// schema is a connection as a target of migrations.
type schema struct{ c *pgx.Conn }

func (s schema) Version(ctx context.Context) (v int, err error) {
	var made bool
	if err := s.c.QueryRow(ctx, "SELECT to_regclass('schema_versions') IS NOT NULL").Scan(&made); err != nil || !made {
		return 0, err
	}
	err = s.c.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM schema_versions").Scan(&v)
	return v, err
}

func (s schema) Migrate(ctx context.Context, m migrations.Migration) error {
	return pgx.BeginFunc(ctx, s.c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, m.SQL); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO schema_versions (version, name) VALUES ($1, $2)", m.Version, m.Name)
		return err
	})
}

// classify says what became of a transaction, where the server's answer tells.
func classify(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Severity == "FATAL" || pg.Severity == "PANIC" {
		return err
	}
	switch {
	case pg.Code == "55P03", pg.Code == "40001", pg.Code == "40P01", // lock timeout, serialization, deadlock
		pg.Code == "23505": // someone inserted the same row first: it will be found
		return fmt.Errorf("%w: %w", metering.ErrConflict, err)
	case len(pg.Code) == 5 && (pg.Code[:2] == "22" || pg.Code[:2] == "23"):
		return fmt.Errorf("%w: %w", metering.ErrRejected, err)
	}
	return err
}
