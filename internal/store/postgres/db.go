// Package postgres keeps the ledger in PostgreSQL (15 or newer): the store for
// any number of gateway processes.
//
//	db, err := postgres.Open(ctx, "postgres://sluice@db/sluice")
//	ledger, err := metering.Open(ctx, metering.Config{Store: db})
//
// A batch takes two round trips at most: one that reads its rows without a lock, which
// falls away where this process wrote all of them last, and one that writes the changes
// with a single statement, sluice_apply_5. That statement takes
// the accounts whose rows are as they were read and that nobody else has locked, and
// writes everything that belongs to them; the others are tried again. So a gateway
// that stands still keeps no lock, and a locked account keeps only its own requests
// waiting. An account's version is PostgreSQL's own: xmin, the transaction that wrote
// the row.
//
// A batch of holds only is committed with synchronous_commit=off: a crash of the
// server may lose the last of them, and the settlement that follows re-creates what
// it needs. A batch that moves money, or holds an idempotency key, is durable.
//
// A pooler between gateway and server must leave each connection a session of
// its own (PgBouncer: pool_mode=session); Open refuses any other.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/migrations"
)

var (
	_ metering.Store = (*DB)(nil)
	_ pricer.Store   = (*DB)(nil)
)

// minConns: one to write, the rest to read; pool_max_conns in the URL may ask
// for more.
const minConns = 4

// writerConns: a batch, a heartbeat, and one more for a batch whose connection is
// being closed.
const writerConns = 3

// connectLimit bounds the wait for the first connections of a pool.
const connectLimit = 30 * time.Second

// DB is a ledger in a PostgreSQL database. Safe for concurrent use.
type DB struct {
	pool    *pgxpool.Pool // reads, and what is written seldom
	writers *pgxpool.Pool // batches and heartbeats
	log     *slog.Logger
	life    context.Context // ends with Close
	end     context.CancelFunc

	reader    bool // nothing is written
	lineage   lineage
	recent    recent
	dead      atomic.Int64 // holds ended since the last vacuum
	vacuuming atomic.Bool
}

// Option changes how a database is opened.
type Option func(*DB)

// WithLog says where a migration that waits tells what it waits for. Default:
// nowhere.
func WithLog(log *slog.Logger) Option { return func(d *DB) { d.log = log } }

// Open connects to the database that the URL names (postgres://…, or the
// key=value form) and brings its schema up to date. Several processes may do so
// at the same time, and beside gateways that work: a migration that needs a lock
// waits for it until ctx ends, and keeps nobody waiting meanwhile.
func Open(ctx context.Context, url string, opts ...Option) (*DB, error) {
	d, err := connect(ctx, url, opts...)
	if err != nil {
		return nil, err
	}
	if err := d.migrate(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("open ledger in PostgreSQL: %w", err)
	}
	return d, nil
}

// OpenReader connects without changing the schema: it must be up to date. The
// server may be a standby.
func OpenReader(ctx context.Context, url string) (*DB, error) {
	d, err := connect(ctx, url, func(d *DB) { d.reader = true })
	if err != nil {
		return nil, err
	}
	conn, err := d.pool.Acquire(ctx)
	if err == nil {
		err = migrations.Check(ctx, migrations.Postgres, schema{c: conn.Conn()})
		conn.Release() // before Close, which waits for it
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("open ledger in PostgreSQL: %w", err)
	}
	return d, nil
}

func connect(ctx context.Context, url string, opts ...Option) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		// The library's message would repeat the URL; it redacts the password only
		// when it could parse it.
		return nil, errors.New("open ledger in PostgreSQL: the URL is not of the form postgres://user:password@host/database")
	}
	cfg.MaxConns = max(cfg.MaxConns, minConns)
	d := &DB{log: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		o(d)
	}
	d.life, d.end = context.WithCancel(context.WithoutCancel(ctx))
	start, ask := newBegin(&cfg.ConnConfig.Config), cfg.ConnConfig.ValidateConnect
	cfg.ConnConfig.ValidateConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		if ask != nil { // target_session_attrs
			if err := ask(ctx, c); err != nil {
				return err
			}
		}
		return d.meet(ctx, start, c)
	}
	cfg.PrepareConn = d.current
	if d.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		d.end()
		return nil, fmt.Errorf("open ledger in PostgreSQL: %w", err)
	}
	if d.writers, err = pgxpool.NewWithConfig(ctx, writerConfig(cfg)); err != nil {
		d.end()
		d.pool.Close()
		return nil, fmt.Errorf("open ledger in PostgreSQL: %w", err)
	}
	if err := d.checkPooler(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("open ledger in PostgreSQL: %w", err)
	}
	return d, nil
}

// writerConfig is that of the connections that write batches. Holds come and go so
// fast that the planner takes their table for nearly empty and would read all of it,
// dead rows too. Each batch names its rows by key.
func writerConfig(cfg *pgxpool.Config) *pgxpool.Config {
	c := cfg.Copy()
	c.MinConns, c.MaxConns = 0, writerConns
	c.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SET enable_seqscan = off")
		return err
	}
	return c
}

// meet begins a session and notes whose it is.
func (d *DB) meet(ctx context.Context, start *begin, c *pgconn.PgConn) error {
	id, err := start.run(ctx, c)
	if err != nil {
		return err
	}
	if id.standby && !d.reader {
		return errStandby
	}
	generation, err := d.lineage.observe(d.life, id)
	c.CustomData()[generationKey] = generation
	return err
}

// Close closes all connections.
func (d *DB) Close() error {
	d.end()
	d.writers.Close()
	d.pool.Close()
	return nil
}

// Ping asks the server for nothing.
func (d *DB) Ping(ctx context.Context) error { return d.pool.Ping(ctx) }

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
