package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/store/pgtest"
)

// TestSessionSettings checks that each session has the ledger's settings, or those of the URL, and nothing that another
// client of the pooler left in it.
func TestSessionSettings(t *testing.T) {
	ctx := context.Background()
	server := pgtest.New(t, false)
	direct := server.Fresh(t)
	// The server's administrator has chosen an isolation level for this database.
	c, err := pgx.Connect(ctx, direct)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$`); err != nil {
		t.Fatal(err)
	}
	// The pooler gives one session to one client after another, and cleans nothing up.
	lax := server.Bouncer(t, "pool_mode=session", "default_pool_size=2", "server_reset_query=").URL(direct)
	for name, url := range map[string]string{"direct": direct, "pooler": lax} {
		t.Run(name, func(t *testing.T) {
			litter(t, url)
			d, err := connect(ctx, url+"&statement_timeout=7s&search_path=it%27s%5C")
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			conn, err := d.pool.Acquire(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			for setting, want := range map[string]string{
				"lock_timeout": "200ms", "statement_timeout": "7s", "idle_in_transaction_session_timeout": "10s",
				"plan_cache_mode": "force_generic_plan", "application_name": "sluice", "search_path": `it's\`,
				"synchronous_commit": "on", "default_transaction_isolation": "read committed", "idle_session_timeout": "0",
			} {
				var got string
				if err := conn.QueryRow(ctx, "SELECT current_setting($1)", setting).Scan(&got); err != nil || got != want {
					t.Errorf("%s is %q, want %q (%v)", setting, got, want, err)
				}
			}
			var locks, channels int
			err = conn.QueryRow(ctx, `SELECT
				(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
				(SELECT count(*) FROM pg_listening_channels())`).Scan(&locks, &channels)
			if err != nil || locks != 0 || channels != 0 {
				t.Errorf("%d locks and %d channels of somebody else, %v", locks, channels, err)
			}
		})
	}
}

// litter leaves settings, locks, channels and prepared statements in two sessions.
func litter(t *testing.T, url string) {
	t.Helper()
	ctx := context.Background()
	for range 2 {
		c, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		for _, sql := range []string{
			"SET default_transaction_isolation = serializable", "SET synchronous_commit = off",
			"SET idle_session_timeout = '20s'",
			"SELECT pg_advisory_lock_shared(1)", "LISTEN x", `PREPARE stmtcache_1 AS SELECT 1`,
		} {
			if _, err := c.Exec(ctx, sql); err != nil {
				t.Fatal(sql, err)
			}
		}
	}
}
