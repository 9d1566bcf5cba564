package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice.example/sluice/internal/backoff"
	"sluice.example/sluice/migrations"
)

const (
	// stepLock bounds one wait for a lock. While a session waits for a strong lock, all sessions that ask for the lock
	// after it wait as well. So the wait must be shorter than lockTimeout, and so short that a request does not notice
	// it.
	stepLock = "100ms"
	// pauseMin and pauseMax bound the pause between two attempts. The pause doubles after each attempt. So other
	// sessions are delayed for about a tenth of the time at first, and soon for a thirtieth.
	pauseMin, pauseMax = time.Second, 5 * time.Second
	// turnMin and turnMax bound the pause between two looks of a gateway that waits for another gateway to migrate.
	turnMin, turnMax = 10 * time.Millisecond, time.Second
	// tellEvery is how often a waiting migration logs that it waits.
	tellEvery = 10 * time.Second
)

// migrationLock is the number of the advisory lock that keeps processes from migrating at the same time. The number has
// no meaning, but must be the same in all processes.
const migrationLock = 0x51_1c_e0_01

func (d *DB) migrate(ctx context.Context) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	c := conn.Conn()
	if upToDate(ctx, c) {
		return nil
	}
	if err := d.takeTurn(ctx, c); err != nil {
		return err
	}
	err = d.migrateLocked(ctx, c)
	// Free the lock here, because behind a pooler the session may outlive the connection. Also close the connection, in
	// case that freeing the lock fails.
	_, unlock := c.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(migrationLock))
	return errors.Join(err, unlock, conn.Hijack().Close(context.WithoutCancel(ctx)))
}

// upToDate reports whether the schema is up to date and the ledger has its id, which is usual at a start. It takes no
// lock and needs no right to change the schema.
func upToDate(ctx context.Context, c *pgx.Conn) bool {
	if migrations.Check(ctx, migrations.Postgres, schema{c: c}) != nil {
		return false // or a newer program changed the schema, and then migrating fails
	}
	var named bool
	err := c.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM meta)").Scan(&named)
	return err == nil && named
}

// takeTurn takes the lock of migrations. It asks again and again instead of waiting in the server, because a session
// that waits for a lock keeps an old snapshot.
func (d *DB) takeTurn(ctx context.Context, c *pgx.Conn) error {
	pause, told := backoff.Jittered(turnMin, turnMax), time.Now()
	for {
		var got bool
		if err := c.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(migrationLock)).Scan(&got); err != nil || got {
			return err
		}
		if time.Since(told) > tellEvery {
			d.log.Info("waiting for another gateway, which migrates the database")
			told = time.Now()
		}
		if err := pause.Wait(ctx); err != nil {
			return fmt.Errorf("another gateway migrates the database: %w", err)
		}
	}
}

func (d *DB) migrateLocked(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `CREATE TABLE IF NOT EXISTS schema_versions (
		version integer PRIMARY KEY, name text NOT NULL, applied timestamptz NOT NULL DEFAULT now());
		CREATE TABLE IF NOT EXISTS schema_steps (
		version integer, step integer, applied timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (version, step));
		CREATE TABLE IF NOT EXISTS schema_additions (version integer, step integer, steps integer NOT NULL,
		applied timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (version, step))`,
		pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	if err := migrations.Run(ctx, migrations.Postgres, schema{c, d}); err != nil {
		return err
	}
	var id [16]byte
	rand.Read(id[:])
	_, err = c.Exec(ctx, `INSERT INTO meta (one, ledger_id, born) VALUES (1, $1, $2) ON CONFLICT DO NOTHING`,
		id[:], time.Now().UnixMicro())
	return err
}

// schema is a connection as a target of migrations.
type schema struct {
	c *pgx.Conn
	d *DB // nil: the connection only reads
}

// Done returns how far the migrations have run. schema_versions lists the migrations that older programs know as well.
// schema_additions lists the additive migrations, which older programs need not know. schema_steps lists the steps of
// migrations that have not run whole.
func (s schema) Done(ctx context.Context, known int) (version, steps int, err error) {
	var made, stepsMade, additions bool
	err = s.c.QueryRow(ctx, `SELECT to_regclass('schema_versions') IS NOT NULL,
		to_regclass('schema_steps') IS NOT NULL, to_regclass('schema_additions') IS NOT NULL`).Scan(&made, &stepsMade, &additions)
	if err != nil || !made {
		return 0, 0, err
	}
	if err = s.c.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM schema_versions").Scan(&version); err != nil {
		return 0, 0, err
	}
	for whole := additions; whole && version < known; {
		const sql = "SELECT EXISTS (SELECT 1 FROM schema_additions WHERE version = $1 AND step = steps)"
		if err = s.c.QueryRow(ctx, sql, version+1).Scan(&whole); err != nil {
			return 0, 0, err
		}
		if whole {
			version++
		}
	}
	var added, ahead int
	if additions && version < known {
		err = s.c.QueryRow(ctx, "SELECT count(*) FROM schema_additions WHERE version = $1", version+1).Scan(&added)
	}
	if stepsMade && err == nil {
		err = s.c.QueryRow(ctx, `SELECT count(*) FILTER (WHERE version = $1), coalesce(max(version), 0) FROM schema_steps`,
			version+1).Scan(&steps, &ahead)
	}
	if ahead > known+1 { // a migration began that this program does not know, after additive ones
		version, steps = ahead, 0
	}
	return version, steps + added, err
}

// Migrate tries the step until the step gets its lock.
func (s schema) Migrate(ctx context.Context, step migrations.Step) error {
	pause, told := backoff.Jittered(pauseMin, pauseMax), time.Time{}
	for {
		tell := time.Since(told) >= tellEvery
		err := s.try(ctx, step, tell)
		if tell {
			told = time.Now()
		}
		var pg *pgconn.PgError
		if err == nil || !errors.As(err, &pg) || pg.Code != "55P03" && pg.Code != "40P01" { // lock timeout, deadlock
			return err
		}
		if stopped := pause.Wait(ctx); stopped != nil {
			return fmt.Errorf("%w: %w", stopped, err)
		}
	}
}

// try runs a step once. The whole transaction is one message, so that the server never keeps a lock while it waits for
// the gateway, which may stand still.
func (s schema) try(ctx context.Context, step migrations.Step, tell bool) error {
	var sql strings.Builder
	fmt.Fprintf(&sql, "BEGIN; SET LOCAL lock_timeout = '%s'; SET LOCAL statement_timeout = 0;\n%s\n;", stepLock, step.SQL)
	if step.Additive {
		fmt.Fprintf(&sql, "INSERT INTO schema_additions (version, step, steps) VALUES (%d, %d, %d);", step.Version, step.Number, step.Of)
	} else {
		fmt.Fprintf(&sql, "INSERT INTO schema_steps (version, step) VALUES (%d, %d);", step.Version, step.Number)
	}
	if !step.Additive && step.Version > 1 { // after additive migrations: older programs must refuse the schema from here on
		fmt.Fprintf(&sql, "INSERT INTO schema_versions (version, name) VALUES (%d, 'additive') ON CONFLICT DO NOTHING;", step.Version-1)
	}
	if step.Last() && !step.Additive {
		fmt.Fprintf(&sql, "INSERT INTO schema_versions (version, name) VALUES (%d, %s);", step.Version, literal(step.Name))
	}
	sql.WriteString("COMMIT")
	if tell {
		defer s.d.watchBlockers(ctx, s.c, step)()
	}
	_, err := s.c.Exec(ctx, sql.String(), pgx.QueryExecModeSimpleProtocol)
	if err != nil && !s.c.IsClosed() {
		// A failure of the rollback closes the connection, and the next statement notices that.
		_, _ = s.c.Exec(ctx, "ROLLBACK")
	}
	return err
}
