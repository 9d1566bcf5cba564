package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// How the server tells a dead leader from one that is alive. The server ends a session that is silent for
// idle_session_timeout, because its process stands still, and a session whose host does not answer. The advisory lock
// ends with its session.
const (
	leadBeat     = 5 * time.Second
	leadSettings = "SET idle_session_timeout = '20s'; SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
	// answerLimit bounds the wait for a server that is asked whether it still answers.
	answerLimit = 5 * time.Second
	// listenBeat is how long a watcher waits for a notification before it asks whether the server still answers.
	listenBeat = 10 * time.Second
)

// hangUp closes a connection. It does not wait longer than answerLimit for a server that does not answer.
func hangUp(c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	return c.Close(ctx)
}

// leadKey returns the number of the advisory lock for a ledger's prices or audits.
func leadKey(id l402.LedgerID, what string) int64 {
	sum := sha256.Sum256(append([]byte("sluice "+what+" "), id[:]...))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// lead is the lead of prices or audits: a session that has the advisory lock.
type lead struct {
	key  int64
	lost error         // the error that callers get once the lead is lost
	turn chan struct{} // has one token while the connection is in use
	conn *pgx.Conn     // nil: the lead is lost or released
	live context.Context
	stop context.CancelFunc
}

// LeadPrices takes the advisory lock of prices, or fails with pricer.ErrNotLeader when another session has it. The lock
// belongs to a session. Open has made sure that no pooler gives this session to another client.
func (d *DB) LeadPrices(ctx context.Context) (pricer.Lead, error) {
	l, err := d.takeLead(ctx, "prices", pricer.ErrNotLeader)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// takeLead takes the advisory lock of what. It fails with lost when another session has the lock.
func (d *DB) takeLead(ctx context.Context, what string, lost error) (*lead, error) {
	id, _, err := d.Meta(ctx)
	if err != nil {
		return nil, err
	}
	l := &lead{key: leadKey(id, what), lost: lost, turn: make(chan struct{}, 1)}
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	var got bool
	err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", l.key).Scan(&got)
	if err == nil && !got {
		conn.Release()
		return nil, lost
	}
	l.conn = conn.Hijack() // also after an error, because the lock may have been taken
	if err == nil {
		_, err = l.conn.Exec(ctx, leadSettings)
	}
	if err != nil {
		return nil, errors.Join(err, hangUp(l.conn))
	}
	l.live, l.stop = context.WithCancel(d.eraOf(l.conn))
	go l.beat()
	return l, nil
}

// beat checks the lead every leadBeat, which keeps the server from ending the session. It releases the lead when a
// check fails or the store is closed.
func (l *lead) beat() {
	defer l.Release() // when the store is closed, or the check fails
	ticker := time.NewTicker(leadBeat)
	defer ticker.Stop()
	for {
		select {
		case <-l.live.Done():
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(l.live, answerLimit)
		err := l.Check(ctx)
		cancel()
		if err != nil {
			return
		}
	}
}

// use runs fn on the connection. When fn finds the lead lost, or leaves the connection broken, use drops the
// connection, and the lead with it.
func (l *lead) use(ctx context.Context, fn func(*pgx.Conn) error) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	if l.conn == nil || l.live.Err() != nil { // a lock on a server that was replaced is worth nothing
		return l.lost
	}
	err := fn(l.conn)
	if errors.Is(err, l.lost) || l.conn.IsClosed() {
		_ = hangUp(l.conn) // the connection is of no use any more
		l.conn = nil
	}
	return err
}

// held fails with l.lost unless the session of q has the lock. A session that has ended cannot answer.
func (l *lead) held(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) error {
	var held bool
	err := q.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
		AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = $1 AND granted)`, l.key).Scan(&held)
	if err == nil && !held {
		err = l.lost
	}
	return err
}

// Check asks the server whether the session still has the lock. A broken connection means that the lead is lost.
func (l *lead) Check(ctx context.Context) error {
	return l.use(ctx, func(c *pgx.Conn) error {
		err := l.held(ctx, c)
		if err != nil && c.IsClosed() {
			return fmt.Errorf("%w: %w", l.lost, err)
		}
		return err
	})
}

// Publish appends a price in a transaction of the session that has the lock.
func (l *lead) Publish(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error) {
	rates, err := json.Marshal(e.Rates)
	if err != nil {
		return e, fmt.Errorf("encode rates: %w", err)
	}
	err = l.use(ctx, func(c *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			if err := l.held(ctx, tx); err != nil {
				return err
			}
			return insertEpoch(ctx, tx, &e, rates)
		})
	})
	return e, err
}

// Release frees the lock and ends the session.
func (l *lead) Release() error {
	l.stop()
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	if l.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	// Free the lock at once, before the server notices that the session has ended. If this fails, the server frees the
	// lock when it notices.
	_, _ = l.conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", l.key)
	_ = hangUp(l.conn)
	l.conn = nil
	return nil
}

// channel returns the name of the notification channel for changes of prices.
func channel(id l402.LedgerID) string { return "sluice_prices_" + hex.EncodeToString(id[:]) }

// notify notifies all watchers of prices once the transaction is committed.
func notify(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "SELECT pg_notify('sluice_prices_' || encode(ledger_id, 'hex'), '') FROM meta")
	return err
}

// WatchPrices calls changed once at the start and after each change of prices. It listens on a session of its own.
func (d *DB) WatchPrices(ctx context.Context, changed func()) error {
	id, _, err := d.Meta(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
	c, err := d.session(ctx)
	if err != nil {
		return err
	}
	defer hangUp(c)
	defer context.AfterFunc(d.eraOf(c), cancel)() // ends when the server was replaced: nobody notifies on it any more
	if _, err := c.Exec(ctx, "LISTEN "+pgx.Identifier{channel(id)}.Sanitize()); err != nil {
		return err
	}
	changed()
	for {
		if err := await(ctx, c, listenBeat); err != nil {
			return err
		}
		changed()
	}
}

// await waits for a notification. When the server is silent for a beat, await asks whether the server still answers.
func await(ctx context.Context, c *pgx.Conn, beat time.Duration) error {
	for {
		waiting, cancel := context.WithTimeout(ctx, beat)
		_, err := c.WaitForNotification(waiting)
		silent := waiting.Err() != nil && ctx.Err() == nil && !c.IsClosed()
		cancel()
		if err == nil || !silent {
			return err
		}
		asking, cancel := context.WithTimeout(ctx, answerLimit)
		err = c.Ping(asking)
		cancel()
		if err != nil {
			return err
		}
	}
}
