package postgres

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/migrations"
)

// lookEvery is how often watchBlockers looks whether the migrating session waits.
const lookEvery = 10 * time.Millisecond

// blockers is a query for the sessions that keep the session $1 from a lock, and for the lock that the session waits
// for. Of sessions of other roles the server shows little more than the process id.
const blockers = `
SELECT (SELECT string_agg(w.mode || ' on ' || coalesce(w.relation::regclass::text, w.locktype), ', ')
		FROM pg_locks w WHERE w.pid = $1 AND NOT w.granted),
	b.pid, coalesce(a.backend_type, ''), coalesce(a.usename, ''), coalesce(a.application_name, ''),
	coalesce(host(a.client_addr), ''), coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::bigint
FROM (SELECT DISTINCT unnest(pg_blocking_pids($1)) AS pid) b LEFT JOIN pg_stat_activity a USING (pid) ORDER BY b.pid`

// blocker is a session that has the lock, or that asked for it before.
type blocker struct {
	pid                   int32
	kind, user, app, addr string
	seconds               int64 // seconds since its transaction began
}

func (b blocker) String() string {
	if b.pid == 0 {
		return "a prepared transaction"
	}
	parts := []string{fmt.Sprintf("pid %d", b.pid)}
	for _, p := range []struct{ name, value string }{
		{"", b.kind}, {"user ", b.user}, {"application ", b.app}, {"from ", b.addr},
	} {
		if p.value != "" {
			parts = append(parts, p.name+p.value)
		}
	}
	if b.seconds > 0 {
		parts = append(parts, fmt.Sprintf("in a transaction for %s", time.Duration(b.seconds)*time.Second))
	}
	return strings.Join(parts, ", ")
}

// watchBlockers looks from other sessions at the session c until its caller calls stop. stop logs what c waited for, if
// c waited.
func (d *DB) watchBlockers(ctx context.Context, c *pgx.Conn, step migrations.Step) (stop func()) {
	var pid int32
	if err := c.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		return func() {} // the step itself will fail
	}
	quit := make(chan struct{})
	var done sync.WaitGroup
	var wants, by string
	done.Go(func() {
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for {
			if w, b := d.blockersOf(ctx, pid); b != "" {
				wants, by = w, b
			}
			select {
			case <-quit:
				return
			case <-ticker.C:
			}
		}
	})
	return func() {
		close(quit)
		done.Wait()
		if by != "" {
			d.log.Warn("a migration waits for a lock and tries again until it gets it",
				"step", step.String(), "lock", wants, "blocked_by", by)
		}
	}
}

// blockersOf looks once. It returns "" when c does not wait, and also when the query fails, because a migration must
// not fail for that.
func (d *DB) blockersOf(ctx context.Context, pid int32) (wants, by string) {
	rows, err := d.pool.Query(ctx, blockers, pid)
	if err != nil {
		return "", ""
	}
	var w *string // NULL: the session has just got its lock
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var b blocker
		err := row.Scan(&w, &b.pid, &b.kind, &b.user, &b.app, &b.addr, &b.seconds)
		return b.String(), err
	})
	if err != nil || w == nil {
		return "", ""
	}
	return *w, strings.Join(list, "; ")
}
