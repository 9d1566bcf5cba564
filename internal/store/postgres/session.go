package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The longest waits of a session. A gateway that stands still in the middle of a batch (stopped, swapped out) must not
// keep rows locked for the others.
const (
	lockTimeout      = "200ms"
	statementTimeout = "30s"
	idleTimeout      = "10s" // idle time within a transaction
)

// defaults are the settings of a session. The URL may set other values.
var defaults = map[string]string{
	"lock_timeout": lockTimeout, "statement_timeout": statementTimeout,
	"idle_in_transaction_session_timeout": idleTimeout, "application_name": "sluice",
	// A batch that meets a row which was just changed leaves out the row's account. At any higher isolation level the
	// server would refuse the whole batch.
	"default_transaction_isolation": "read committed",
	// Every statement has one good plan for all its parameters. Making new plans took a quarter of the server's time.
	"plan_cache_mode": "force_generic_plan",
}

// cleanUp removes what an earlier client of a pooler may have left in the session: settings, locks, prepared
// statements, channels. PgBouncer does so by itself, unless its server_reset_query was emptied. (These are the parts of
// DISCARD ALL that may be in one round trip with other statements.)
const cleanUp = `RESET SESSION AUTHORIZATION; RESET ALL; DEALLOCATE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();`

// begin is what each new connection runs, in one round trip of the simple protocol. It makes the settings here and not
// at startup, because PgBouncer refuses startup parameters that it does not know.
type begin struct {
	settings string
	level    atomic.Int32 // index in identities of the first query that the server has not refused
}

// newBegin takes the settings out of the startup parameters.
func newBegin(cfg *pgconn.Config) *begin {
	settings := make(map[string]string)
	for name, value := range defaults {
		settings[name] = value
	}
	for name, value := range cfg.RuntimeParams {
		if name != "options" && name != "replication" { // these two exist at startup only
			settings[name] = value
			delete(cfg.RuntimeParams, name)
		}
	}
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	sql := cleanUp
	for _, name := range names {
		sql += "SELECT set_config(" + literal(name) + ", " + literal(settings[name]) + ", false);"
	}
	// A server that answers a commit before the commit is on the disk would break the promise of a durable batch.
	sql += "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';"
	return &begin{settings: sql}
}

// literal quotes a string, for any value of standard_conforming_strings.
func literal(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\x00", "").Replace(s) + "'"
}

// run prepares a new connection, and returns the identity of the server at its other end. pgx calls run within the
// attempt to connect, so after an error pgx tries the URL's next host.
func (b *begin) run(ctx context.Context, c *pgconn.PgConn) (identity, error) {
	for level := b.level.Load(); ; level++ {
		results, err := c.Exec(ctx, b.settings+identities[level]).ReadAll()
		if err == nil {
			b.level.Store(level)
			return readIdentity(results[len(results)-1].Rows[0])
		}
		if !refusesIdentity(err) || int(level) == len(identities)-1 {
			return identity{}, fmt.Errorf("begin a session: %w", err)
		}
	}
}

// refusesIdentity reports whether the server refused the query because of no privilege, the kind of server, or a
// missing function.
func refusesIdentity(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "42501" || pg.Code == "0A000" || pg.Code == "42883")
}

// errShared reports a pooler in the wrong mode.
var errShared = errors.New("the connection pooler before PostgreSQL gives one server session to several clients " +
	"in turn (transaction or statement pooling), but the ledger needs sessions of its own, for locks and notifications: " +
	"set pool_mode=session for this database in PgBouncer, or connect to PostgreSQL directly")

// probes is how many rounds of questions ownSessions asks two connections. PgBouncer takes either the server connection
// that was used last, or the connection that was idle longest. A few rounds show either, even while other clients use
// the pooler.
const probes = 4

// checkPooler fails with errShared unless two connections of the pool, open at the same time, each have a server
// session of their own and keep it.
func (d *DB) checkPooler(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	var two [2]*pgconn.PgConn
	for i := range two {
		conn, err := d.pool.Acquire(ctx)
		if err != nil {
			if i == 1 && errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("no second session in time: a pooler before PostgreSQL needs room for all connections "+
					"of all gateways (PgBouncer: default_pool_size): %w", err)
			}
			return err
		}
		defer conn.Release()
		two[i] = conn.Conn().PgConn()
	}
	return ownSessions(ctx, two[0], two[1])
}

// ownSessions asks both connections again and again for their sessions. It does so outside of transactions, because a
// sharing pooler takes the session away after a transaction.
func ownSessions(ctx context.Context, a, b *pgconn.PgConn) error {
	seen := make(map[*pgconn.PgConn]string)
	for range probes {
		for _, c := range []*pgconn.PgConn{a, a, b, b, a, b} {
			s, err := sessionOf(ctx, c)
			if err != nil {
				return err
			}
			for other, was := range seen {
				if (other == c) != (was == s) {
					return errShared
				}
			}
			seen[c] = s
		}
	}
	return nil
}

// sessionOf names the session of a connection: its process id, when the session began, and when the server started. The
// times are needed because another host has other processes with the same ids.
func sessionOf(ctx context.Context, c *pgconn.PgConn) (string, error) {
	results, err := c.Exec(ctx, `SELECT concat_ws(' ', pg_backend_pid(), pg_postmaster_start_time(),
		(SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()))`).ReadAll()
	if err != nil {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

// session takes a connection out of the pool for good. The caller must close it.
func (d *DB) session(ctx context.Context) (*pgx.Conn, error) {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Hijack(), nil
}
