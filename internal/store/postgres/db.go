// Package postgres keeps the ledger in PostgreSQL (15 or newer). This store serves any number of gateway processes.
//
//	db, err := postgres.Open(ctx, "postgres://sluice@db/sluice")
//	ledger, err := metering.Open(ctx, metering.Config{Store: db})
//
// A batch takes two round trips at most. The first reads the batch's rows without a lock. It is left out when this
// process was the last to write all of these rows. The second writes the changes with a single statement, which calls
// the function sluice_apply_5. That function takes the accounts whose rows have not changed since they were read and
// that no other process has locked, and writes everything that belongs to them. The ledger tries the other accounts
// again. So a gateway that stands still keeps no lock, and a locked account delays only its own requests. The version
// of an account is its row's xmin: the id of the transaction that wrote the row.
//
// A batch that only makes or extends holds is committed with synchronous_commit=off. A crash of the server may lose the
// last of these batches, and the settlement that follows makes again what it needs. A batch that moves money, or makes
// a hold with an idempotency key, is durable.
//
// A pooler between gateway and server must give each connection a session of its own (PgBouncer: pool_mode=session).
// Open refuses any other pooler.
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

// minConns is the least number of connections of the pool: one for rare writes, the others for reads. pool_max_conns in
// the URL may ask for more.
const minConns = 4

// writerConns is how many connections write: one for a batch, one for a heartbeat, and one for a batch while the
// connection of the batch before is being closed.
const writerConns = 3

// connectLimit bounds the wait for the first two connections of a pool.
const connectLimit = 30 * time.Second

// DB is a ledger in a PostgreSQL database. Safe for concurrent use.
type DB struct {
	pool    *pgxpool.Pool // reads, and rare writes
	writers *pgxpool.Pool // batches and heartbeats
	log     *slog.Logger
	life    context.Context // ends with Close
	end     context.CancelFunc

	reader    bool // opened by OpenReader, which never writes
	lineage   lineage
	recent    recent
	dead      atomic.Int64 // holds that ended since the last vacuum
	vacuuming atomic.Bool
}

// Option changes how Open opens a database.
type Option func(*DB)

// WithLog sets the log in which a waiting migration says what it waits for. Without WithLog nothing is logged.
func WithLog(log *slog.Logger) Option { return func(d *DB) { d.log = log } }

// Open connects to the database that the URL names (postgres://…, or the key=value form), and brings its schema up to
// date. Several processes may call Open at the same time, also while gateways use the database. A migration that needs
// a lock waits for the lock until ctx ends. While the migration waits, it delays the requests of other gateways only
// briefly.
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

// OpenReader connects for reading only. It fails unless the schema is up to date. The server may be a standby.
func OpenReader(ctx context.Context, url string) (*DB, error) {
	d, err := connect(ctx, url, func(d *DB) { d.reader = true })
	if err != nil {
		return nil, err
	}
	conn, err := d.pool.Acquire(ctx)
	if err == nil {
		err = migrations.Check(ctx, migrations.Postgres, schema{c: conn.Conn()})
		conn.Release() // released before Close, because Close waits for the connection
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
		// The library's message would repeat the URL. It hides the password only when the library could parse the URL.
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
		if ask != nil { // the URL has target_session_attrs
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

// writerConfig returns the configuration of the connections that write batches. These connections never use sequential
// scans, because holds come and go so fast that the planner takes their table for nearly empty. It would then read all
// of the table, including the dead rows. Each batch names its rows by key.
func writerConfig(cfg *pgxpool.Config) *pgxpool.Config {
	c := cfg.Copy()
	c.MinConns, c.MaxConns = 0, writerConns
	c.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SET enable_seqscan = off")
		return err
	}
	return c
}

// meet begins a session on a new connection, and notes which server the connection leads to.
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

// Ping sends an empty statement to the server.
func (d *DB) Ping(ctx context.Context) error { return d.pool.Ping(ctx) }

// classify adds ErrConflict or ErrRejected to an error of the server which tells that the transaction was rolled back.
// It returns any other error unchanged.
func classify(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Severity == "FATAL" || pg.Severity == "PANIC" {
		return err
	}
	switch {
	case pg.Code == "55P03", pg.Code == "40001", pg.Code == "40P01", // lock timeout, serialization, deadlock
		pg.Code == "23505": // another transaction inserted the same row first; the next attempt finds that row
		return fmt.Errorf("%w: %w", metering.ErrConflict, err)
	case len(pg.Code) == 5 && (pg.Code[:2] == "22" || pg.Code[:2] == "23"):
		return fmt.Errorf("%w: %w", metering.ErrRejected, err)
	}
	return err
}
