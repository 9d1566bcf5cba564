package postgres

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/pgtest"
)

// both returns one URL for a database on several servers, which are tried in order.
func both(t *testing.T, urls ...string) string {
	t.Helper()
	var hosts []string
	var all *url.URL
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		hosts, all = append(hosts, u.Query().Get("host")), u
	}
	query := all.Query()
	query.Set("host", strings.Join(hosts, ","))
	query.Set("port", strings.TrimSuffix(strings.Repeat("5432,", len(hosts)), ","))
	all.RawQuery = query.Encode()
	return all.String()
}

// on returns the URL of another server's copy of a database.
func on(t *testing.T, s *pgtest.Server, like string) string {
	t.Helper()
	u, err := url.Parse(like)
	if err != nil {
		t.Fatal(err)
	}
	return s.URL(strings.TrimPrefix(u.Path, "/"))
}

// caughtUp waits until a standby has the ledger's schema.
func caughtUp(t *testing.T, standby string) {
	t.Helper()
	ctx := context.Background()
	within(t, "a copy on the standby", func() bool {
		c, err := pgx.Connect(ctx, standby)
		if err != nil {
			return false
		}
		defer c.Close(ctx)
		var named bool
		err = c.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM meta)").Scan(&named)
		return err == nil && named
	})
}

func count(t *testing.T, d *DB, generation, restarts uint64) {
	t.Helper()
	if d.Generation() != generation || d.Restarts() != restarts {
		t.Errorf("generation %d after %d restarts, want %d and %d", d.Generation(), d.Restarts(), generation, restarts)
	}
}

// TestFailover checks that a standby is refused until it is promoted. After the promotion, the first connection notices
// the new generation, the leader on the old server has lost the lead, and a former primary that comes back is refused.
func TestFailover(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	primary := pgtest.New(t, false)
	database := primary.Fresh(t)
	standby := primary.Standby(t, "second")
	copied := on(t, standby, database)
	d, err := Open(ctx, both(t, database, copied))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	caughtUp(t, copied)
	refuseStandby(t, database, copied)
	count(t, d, 1, 0)
	lead, err := d.LeadPrices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	watch := make(chan error, 1)
	heard := make(chan struct{}, 10)
	go func() { watch <- d.WatchPrices(ctx, func() { heard <- struct{}{} }) }()
	<-heard

	// Both servers can be written for a while: the old primary is not stopped yet.
	standby.Promote(t)
	other, err := Open(ctx, copied)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.LeadPrices(ctx); err != nil {
		t.Error(err)
	}
	count(t, d, 1, 0)
	primary.Kill()
	within(t, "a connection to the new primary", func() bool { return d.Ping(ctx) == nil })
	count(t, d, 2, 0)
	if err := lead.Check(ctx); !errors.Is(err, pricer.ErrNotLeader) {
		t.Errorf("check: %v", err)
	}
	if err := <-watch; err == nil || ctx.Err() != nil {
		t.Errorf("watches a server that was replaced: %v", err)
	}
	if err := primary.Start(); err != nil {
		t.Fatal(err)
	}
	d.pool.Reset()
	for range 5 {
		if got := dataOf(t, d); got != dataOf(t, other) {
			t.Errorf("works on %s", got)
		}
	}
	count(t, d, 2, 0)

	standby.Kill() // restarts unchanged
	if err := standby.Start(); err != nil {
		t.Fatal(err)
	}
	within(t, "a connection after the restart", func() bool { return d.Ping(ctx) == nil })
	count(t, d, 2, 1)
}

func refuseStandby(t *testing.T, database, copied string) {
	t.Helper()
	ctx := context.Background()
	if d, err := Open(ctx, copied); err == nil || !strings.Contains(err.Error(), "is a standby") {
		t.Errorf("opened a standby: %v, %v", d, err)
	}
	reader, err := OpenReader(ctx, copied)
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	second, err := Open(ctx, both(t, copied, database)) // connects to the primary
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

func dataOf(t *testing.T, d *DB) (dir string) {
	t.Helper()
	if err := d.pool.QueryRow(context.Background(), "SHOW data_directory").Scan(&dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestFailoverUnderLife checks a failover while the old primary still answers. One connection that finds the new
// primary must be enough: no other connection to the old primary is used again, and its sessions end.
func TestFailoverUnderLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	primary := pgtest.New(t, false)
	database := primary.Fresh(t)
	standby := primary.Standby(t, "second")
	copied := on(t, standby, database)
	d, err := Open(ctx, both(t, copied, database))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	caughtUp(t, copied)
	lead, err := d.LeadPrices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	watch := make(chan error, 1)
	heard := make(chan struct{}, 10)
	go func() { watch <- d.WatchPrices(ctx, func() { heard <- struct{}{} }) }()
	<-heard
	before := dataOf(t, d)
	standby.Promote(t)

	idle := d.pool.AcquireAllIdle(ctx)
	if len(idle) == 0 {
		t.Fatal("the pool has no connection")
	}
	after := dataOf(t, d)
	for _, c := range idle {
		c.Release()
	}
	if after == before {
		t.Fatalf("a new connection went to %s", after)
	}
	count(t, d, 2, 0)
	for range 10 {
		if got := dataOf(t, d); got != after {
			t.Errorf("a connection of before was used: %s", got)
		}
	}
	if err := lead.Check(ctx); !errors.Is(err, pricer.ErrNotLeader) {
		t.Errorf("check: %v", err)
	}
	if err := <-watch; err == nil || ctx.Err() != nil {
		t.Errorf("watches a server that was replaced: %v", err)
	}
}

// TestLineage checks what counts as another server, and what counts as the same server.
func TestLineage(t *testing.T) {
	a := identity{started: "1", system: "7", timeline: 1}
	for _, c := range []struct {
		name                 string
		next                 identity
		generation, restarts uint64
	}{
		{"the same", a, 1, 0},
		{"restarted", identity{started: "2", system: "7", timeline: 1}, 1, 1},
		{"promoted", identity{started: "1", system: "7", timeline: 2}, 2, 0},
		{"another cluster", identity{started: "2", system: "8", timeline: 1}, 2, 0},
		{"promoted many times", identity{started: "2", system: "7", timeline: 0x10}, 2, 0},
		{"without the right to know the system", identity{started: "1", timeline: 1}, 1, 0},
		{"without the right to know anything", identity{started: "2"}, 1, 1},
	} {
		l := &lineage{}
		for _, id := range []identity{a, c.next, c.next} {
			if g, err := l.observe(context.Background(), id); err != nil || g != l.generation.Load() {
				t.Errorf("%s: %d, %v", c.name, g, err)
			}
		}
		if l.generation.Load() != c.generation || l.restarts.Load() != c.restarts {
			t.Errorf("%s: generation %d, restarts %d", c.name, l.generation.Load(), l.restarts.Load())
		}
		if c.generation == 2 && c.next.system == a.system {
			if _, err := l.observe(context.Background(), a); err == nil || !strings.Contains(err.Error(), "was replaced") {
				t.Errorf("%s: the server of before was taken again: %v", c.name, err)
			}
		}
	}
}

// TestIdentityWithoutRights checks that a role which may not read all of the identity works with a part of it.
func TestIdentityWithoutRights(t *testing.T) {
	ctx := context.Background()
	server := pgtest.New(t, false)
	database := server.Fresh(t)
	c, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("user", "app")
	u.RawQuery = query.Encode()
	for _, step := range []struct {
		sql              string
		system, timeline bool
	}{
		{`CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app; SELECT`, true, true},
		{`REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC`, false, true},
		{`REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC`, false, false},
	} {
		if _, err := c.Exec(ctx, step.sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		d, err := Open(ctx, u.String())
		if err != nil {
			t.Fatal(err)
		}
		if id := d.lineage.last; (id.system != "") != step.system || (id.timeline == 1) != step.timeline || id.started == "" {
			t.Errorf("after %q: %+v", step.sql, id)
		}
		count(t, d, 1, 0)
		d.Close()
	}
}
