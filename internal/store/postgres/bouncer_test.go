package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/metering"
)

// simple makes a client that works in any pooling mode.
func simple(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	c, err := pgx.ConnectConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// TestBouncerLedger checks that two gateways can use one ledger through PgBouncer in session mode.
func TestBouncerLedger(t *testing.T) {
	ctx := context.Background()
	server := pgtest.New(t, false)
	url := server.Bouncer(t, "pool_mode=session", "default_pool_size=50").URL(server.Fresh(t))
	ledgers := []*metering.Ledger{ledger(t, open(t, url), metering.Config{}), ledger(t, open(t, url), metering.Config{})}
	id := account(t, ledgers[0], 100_000)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 20 {
				h, err := reserve(ctx, ledgers[i%2], id, 100)
				if err == nil {
					_, err = h.Settle(ctx, calls(7))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if r := audit(t, ledgers[1]); r.Charged != 16*20*7 || r.Held != 0 {
		t.Errorf("report: %+v", r)
	}
}

// TestBouncerSessions checks that the lock of the prices' leader, the lock of migrations, and notifications work
// through session pooling. They must also work when the pooler cleans nothing up and gives its sessions to one client
// after another.
func TestBouncerSessions(t *testing.T) {
	ctx := context.Background()
	server := pgtest.New(t, false)
	for _, reset := range []string{"server_reset_query=DISCARD ALL", "server_reset_query="} {
		t.Run(reset, func(t *testing.T) {
			direct := server.Fresh(t)
			url := server.Bouncer(t, "pool_mode=session", "default_pool_size=50", reset).URL(direct)
			open(t, url).Close()
			// The first gateway has left nothing that disturbs the second.
			a, b := pricer.NewRecord(open(t, url)), pricer.NewRecord(open(t, url))
			var heard atomic.Int64
			watching, stop := context.WithCancel(ctx)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = b.WatchPrices(watching, func() { heard.Add(1) }) // ends with its context
			}()
			eventually(t, "watch", func() bool { return heard.Load() == 1 })
			for term := range 3 {
				lead, err := a.LeadPrices(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := b.LeadPrices(ctx); !errors.Is(err, pricer.ErrNotLeader) {
					t.Errorf("two lead: %v", err)
				}
				before := heard.Load()
				if _, err := lead.Publish(ctx, epochOf(fmt.Sprint(term))); err != nil {
					t.Fatal(err)
				}
				eventually(t, "a notification", func() bool { return heard.Load() > before })
				if err := lead.Release(); err != nil {
					t.Fatal(err)
				}
				a, b = b, a
			}
			stop()
			<-ended
			var held int
			c := admin(t, direct)
			err := c.QueryRow(ctx, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'`).Scan(&held)
			if err != nil || held != 0 {
				t.Errorf("%d session locks are left, %v", held, err)
			}
		})
	}
}

// TestBouncerRefused checks that a pooler which shares sessions is refused with a clear message, for any number and
// order of its server connections, idle or busy.
func TestBouncerRefused(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t, false)
	for _, mode := range []string{"transaction", "statement"} {
		for _, robin := range []int{0, 1} {
			for _, sessions := range []int{1, 2, 3, 8} {
				t.Run(fmt.Sprintf("%s/robin=%d/sessions=%d", mode, robin, sessions), func(t *testing.T) {
					url := server.Bouncer(t, "pool_mode="+mode, fmt.Sprint("server_round_robin=", robin),
						fmt.Sprint("default_pool_size=", sessions)).URL(server.Fresh(t))
					fill(t, url, sessions)
					refused(t, url)
					busy(t, url, sessions)
					for range 5 {
						refused(t, url)
					}
				})
			}
		}
	}
}

func refused(t *testing.T, url string) {
	t.Helper()
	for _, opens := range []func(context.Context, string) (*postgres.DB, error){
		func(ctx context.Context, url string) (*postgres.DB, error) { return postgres.Open(ctx, url) },
		postgres.OpenReader,
	} {
		// If the pooler is not noticed, the call hangs until this limit.
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		db, err := opens(ctx, url)
		cancel()
		if err == nil {
			db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "pool_mode=session") {
			t.Fatalf("got %v", err)
		}
	}
}

// fill makes a pooler open a number of server connections. A statement keeps each connection busy until all are open.
func fill(t *testing.T, url string, sessions int) {
	t.Helper()
	done := make(chan error, sessions)
	for range sessions {
		c := simple(t, url)
		go func() {
			_, err := c.Exec(context.Background(), "SELECT pg_sleep(0.1)")
			done <- err
		}()
	}
	for range sessions {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// busy keeps clients at work until the test ends.
func busy(t *testing.T, url string, clients int) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range clients {
		c := simple(t, url)
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.Exec(ctx, "SELECT pg_sleep(0.0005)"); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
}

// TestBouncerWithoutRoom checks that the error names the pooler when the pooler has too few sessions.
func TestBouncerWithoutRoom(t *testing.T) {
	server := pgtest.New(t, false)
	url := server.Bouncer(t, "pool_mode=session", "default_pool_size=1").URL(server.Fresh(t))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := postgres.Open(ctx, url)
	if err == nil || !strings.Contains(err.Error(), "default_pool_size") {
		t.Errorf("got %v", err)
	}
}
