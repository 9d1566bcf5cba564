// Package sqlite keeps the ledger in one SQLite file. This store is embedded in a single gateway process.
//
//	db, err := sqlite.Open(ctx, "/var/lib/sluice/ledger.db")
//	ledger, err := metering.Open(ctx, metering.Config{Store: db})
//
// One connection writes, and a few connections read, in WAL mode. A batch that moves money is committed with
// synchronous=FULL, so it is on the disk when the ledger acknowledges it. A batch that only makes or extends holds is
// committed with synchronous=NORMAL. A killed process loses no such batch. A power failure may lose the last of them,
// in order, and the settlement that follows makes again what it needs. Measured on a disk that syncs in about a
// millisecond, with one caller: a reservation takes 41 µs and a settlement 1.2 ms. In batches of 126, both together
// take 24 µs.
//
// A lock file beside the database keeps a second gateway out. OpenReader reads a ledger, also while a gateway serves
// it.
package sqlite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	lib "modernc.org/sqlite/lib"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/migrations"
)

var (
	_ metering.Store = (*DB)(nil)
	_ pricer.Store   = (*DB)(nil)
)

const (
	// readers is how many connections read.
	readers = 4
	// A negative cache_size is in KiB. At each commit after SQLite had to renumber a split page, SQLite searches its
	// whole cache. So a larger cache costs more than it saves: with a history that fills the cache and a thousand
	// accounts, a reservation and its settlement took 28.1 µs with 64 MiB and 25.8 µs with 16 MiB. A checkpoint after
	// every 4000 pages is too rare to be noticed, and keeps the log at 16 MiB.
	writerPragmas = `PRAGMA journal_mode=WAL; PRAGMA cache_size=-16384; PRAGMA wal_autocheckpoint=4000;
PRAGMA journal_size_limit=67108864; PRAGMA busy_timeout=2000; PRAGMA foreign_keys=OFF`
	readerPragmas = `PRAGMA query_only=ON; PRAGMA cache_size=-8192; PRAGMA busy_timeout=2000`
)

// errReadOnly reports a write to a database that OpenReader opened.
var errReadOnly = errors.New("sqlite: opened for reading only")

// DB is a ledger in a SQLite file. Safe for concurrent use.
type DB struct {
	path  string
	clock func() time.Time
	log   *slog.Logger
	lock  *os.File // nil: opened for reading only

	mu   sync.Mutex // guards w and last
	w    *writer    // nil: the next write opens the connection again, after a failure
	last int64      // the last time that now returned, µs since 1970; now never returns less

	prices prices // what only this process remembers about prices

	pool   chan *reader
	opened int          // number of readers, in the pool or in use
	breath atomic.Int64 // when an audit last waited for the log to begin anew, ns since 1970
	closed chan struct{}
}

// Option changes how a database is opened.
type Option func(*DB)

// WithClock sets the clock from which all times are taken. The default is the machine's clock.
func WithClock(now func() time.Time) Option { return func(d *DB) { d.clock = now } }

// WithLog sets the log in which a waiting migration says what it waits for. Without WithLog nothing is logged.
func WithLog(log *slog.Logger) Option { return func(d *DB) { d.log = log } }

// Open opens or creates the ledger at path, and brings its schema up to date. It fails when another process serves the
// ledger.
func Open(ctx context.Context, path string, opts ...Option) (*DB, error) {
	d := newDB(path, opts)
	var err error
	if d.lock, err = lockFile(path + ".lock"); err != nil {
		return nil, fmt.Errorf("open ledger %s: %w", path, err)
	}
	if err := d.create(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("open ledger %s: %w", path, err)
	}
	return d, nil
}

// OpenReader opens an existing ledger for reading, also while a gateway serves it. Operations that write then fail.
func OpenReader(ctx context.Context, path string, opts ...Option) (*DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	d := newDB(path, opts)
	if err := d.openReaders(); err != nil {
		d.Close()
		return nil, fmt.Errorf("open ledger %s: %w", path, err)
	}
	if err := d.read(ctx, func(r *reader) error { return migrations.Check(ctx, migrations.SQLite, schema{c: r.conn}) }); err != nil {
		d.Close()
		return nil, fmt.Errorf("open ledger %s: %w", path, err)
	}
	return d, nil
}

func newDB(path string, opts []Option) *DB {
	d := &DB{path: path, clock: time.Now, log: slog.New(slog.DiscardHandler),
		pool: make(chan *reader, readers), closed: make(chan struct{})}
	for _, o := range opts {
		o(d)
	}
	return d
}

// lockFile takes an advisory lock that ends with the process, even when the process is killed.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("another process serves this ledger; stop it first, or use PostgreSQL for several gateways")
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// create makes the file if it is missing, and brings the schema up to date.
func (d *DB) create(ctx context.Context) error {
	// create makes the file itself to give it mode 0600, because only the gateway's user may see accounts and money. No
	// connection of SQLite is open yet, so closing the file here drops no lock of SQLite.
	f, err := os.OpenFile(d.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	c, err := openConn(d.path, lib.SQLITE_OPEN_READWRITE)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.script(writerPragmas); err != nil {
		return err
	}
	if err := migrations.Run(ctx, migrations.SQLite, schema{c, d.log}); err != nil {
		return err
	}
	if err := d.identify(c); err != nil {
		return err
	}
	if err := d.openReaders(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.openWriter()
}

// openReaders fills the pool with connections that read.
func (d *DB) openReaders() error {
	for range readers {
		c, err := openConn(d.path, lib.SQLITE_OPEN_READWRITE)
		if err != nil {
			return err
		}
		if err := c.script(readerPragmas); err != nil {
			c.close()
			return err
		}
		d.pool <- &reader{conn: c, cached: make(map[string]*stmt)}
		d.opened++
	}
	return nil
}

// Close waits until no reader is in use, closes all connections, and frees the lock.
func (d *DB) Close() error {
	select {
	case <-d.closed:
		return nil
	default:
		close(d.closed)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for range d.opened {
		(<-d.pool).close()
	}
	if d.w != nil {
		d.w.close()
		d.w = nil
	}
	if d.lock != nil {
		return d.lock.Close()
	}
	return nil
}

// identify gives a new ledger its random id, and notes when it was made.
func (d *DB) identify(c *conn) error {
	q, err := c.prepare("INSERT OR IGNORE INTO meta (one, ledger_id, born) VALUES (1, ?, ?)")
	if err != nil {
		return err
	}
	var id [16]byte
	rand.Read(id[:])
	return q.blob(id[:]).int(d.clock().UnixMicro()).run()
}
