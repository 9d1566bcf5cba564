package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/pricing"
)

// admin opens a session beside those of the gateways.
func admin(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// cut ends sessions of this database, and returns how many.
func cut(t *testing.T, c *pgx.Conn, which string) (n int) {
	t.Helper()
	err := c.QueryRow(context.Background(), `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity a
		WHERE datname = current_database() AND pid <> pg_backend_pid() AND `+which).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	leaders   = `EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND locktype = 'advisory' AND granted)`
	listeners = `query LIKE 'LISTEN%'`
)

func epochOf(model string) pricing.Epoch {
	return pricing.Epoch{Model: model, Rates: pricing.Rates{pricing.Calls: 1}, Multiplier: 1, BoundBy: pricing.BoundNone, At: time.Now()}
}

// TestLeadLost checks that a leader whose connection was cut cannot publish, and that another gateway takes the lead at
// once.
func TestLeadLost(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	a, b := pricer.NewRecord(open(t, url)), pricer.NewRecord(open(t, url))
	first, err := a.LeadPrices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.LeadPrices(ctx); !errors.Is(err, pricer.ErrNotLeader) {
		t.Errorf("two lead: %v", err)
	}
	published, err := first.Publish(ctx, epochOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	c := admin(t, url)
	if n := cut(t, c, leaders); n != 1 {
		t.Fatalf("%d sessions lead", n)
	}
	var second pricer.Lead
	eventually(t, "another leader", func() bool {
		second, err = b.LeadPrices(ctx)
		return err == nil
	})
	if e, err := first.Publish(ctx, epochOf("a")); err == nil {
		t.Errorf("published without the lead: %+v", e)
	}
	for range 2 { // the lead remains lost
		if err := first.Check(ctx); !errors.Is(err, pricer.ErrNotLeader) {
			t.Errorf("check: %v", err)
		}
		if _, err := first.Publish(ctx, epochOf("a")); !errors.Is(err, pricer.ErrNotLeader) {
			t.Errorf("publish: %v", err)
		}
	}
	next, err := second.Publish(ctx, epochOf("b"))
	if err != nil || next.ID != published.ID+1 {
		t.Errorf("epoch %+v, %v", next, err)
	}
	if err := errors.Join(first.Release(), second.Check(ctx)); err != nil {
		t.Error(err)
	}

	cut(t, c, leaders)
	if err := second.Check(ctx); !errors.Is(err, pricer.ErrNotLeader) { // Check alone notices the loss
		t.Errorf("check: %v", err)
	}
	if all, err := a.Epochs(ctx, pricing.EpochQuery{}); err != nil || len(all) != 2 {
		t.Errorf("epochs: %+v, %v", all, err)
	}
	if err := second.Release(); err != nil {
		t.Error(err)
	}
}

// TestLeadsDoNotMix lets three gateways publish whenever they lead, while leaders are cut off again and again. It
// checks that no leader publishes after its successor began.
func TestLeadsDoNotMix(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	var published, unsure atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	records := make([]*pricer.Record, 3)
	for i := range records {
		records[i] = pricer.NewRecord(open(t, url))
	}
	for replica, l := range records {
		wg.Go(func() {
			for term := 0; ; term++ {
				var lead pricer.Lead
				var err error
				for lead == nil {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
					}
					lead, err = l.LeadPrices(ctx) // fails when another leads, or when cut off
				}
				for err == nil {
					select {
					case <-stop:
						lead.Release()
						return
					default:
					}
					if _, err = lead.Publish(ctx, epochOf(fmt.Sprintf("%d/%d", replica, term))); err == nil {
						published.Add(1)
					} else if !errors.Is(err, pricer.ErrNotLeader) {
						unsure.Add(1)
					}
				}
				lead.Release()
			}
		})
	}
	c := admin(t, url)
	for range 8 {
		until := published.Load() + 10
		eventually(t, "publications", func() bool { return published.Load() >= until })
		eventually(t, "a cut", func() bool { return cut(t, c, leaders) > 0 })
	}
	until := published.Load() + 10
	eventually(t, "publications after the last cut", func() bool { return published.Load() >= until })
	close(stop)
	wg.Wait()

	var all []pricing.Epoch
	for {
		page, err := records[0].Epochs(ctx, pricing.EpochQuery{After: int64(len(all))})
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, page...); len(page) == 0 {
			break
		}
	}
	ended := map[string]bool{}
	for i, e := range all {
		if e.ID != int64(i+1) {
			t.Fatalf("epoch %d in place %d", e.ID, i+1)
		}
		if i > 0 && all[i-1].Model != e.Model {
			ended[all[i-1].Model] = true
		}
		if ended[e.Model] {
			t.Fatalf("epoch %d: %s published after its successor", e.ID, e.Model)
		}
	}
	if n := int64(len(all)); n < published.Load() || n > published.Load()+unsure.Load() || len(ended) < 8 {
		t.Errorf("%d epochs under %d leaders; %d were answered, %d were not", n, len(ended)+1, published.Load(), unsure.Load())
	}
}

// TestWatchCut checks that a watcher is notified of other processes' changes, and that the watch fails when
// notifications cannot reach it any more.
func TestWatchCut(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	a, b := pricer.NewRecord(open(t, url)), pricer.NewRecord(open(t, url))
	c := admin(t, url)
	for range 2 {
		var heard atomic.Int64
		ended := make(chan error, 1)
		go func() { ended <- a.WatchPrices(ctx, func() { heard.Add(1) }) }()
		eventually(t, "watch", func() bool { return heard.Load() == 1 })
		if _, err := b.PublishEpoch(ctx, epochOf("a")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an epoch of the other", func() bool { return heard.Load() == 2 })
		if err := b.SetOverride(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an override of the other", func() bool { return heard.Load() == 3 })
		if n := cut(t, c, listeners); n != 1 {
			t.Fatalf("%d sessions listen", n)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Error("the watch ended without an error")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a watcher that was cut off goes on")
		}
	}
}

// TestLeadEndsWithTheStore checks that a gateway does not keep the lead after its store is closed.
func TestLeadEndsWithTheStore(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	db := open(t, url)
	if _, err := db.LeadPrices(ctx); err != nil {
		t.Fatal(err)
	}
	watching := make(chan error, 1)
	listens := make(chan struct{})
	go func() { watching <- db.WatchPrices(ctx, sync.OnceFunc(func() { close(listens) })) }()
	<-listens
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-watching; err == nil {
		t.Error("a watcher ended without an error")
	}
	other := open(t, url)
	eventually(t, "another leader", func() bool {
		lead, err := other.LeadPrices(ctx)
		return err == nil && lead.Release() == nil
	})
}

// TestOldReportsGo checks that only loads reported more than an hour ago are removed.
func TestOldReportsGo(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	record := pricer.NewRecord(open(t, url))
	for _, replica := range []string{"gone", "here"} {
		if err := record.ReportLoad(ctx, replica, []pricer.Report{{Model: "a"}, {Model: "b"}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin(t, url).Exec(ctx, "UPDATE replica_loads SET at = at - 3700 * 1000000::bigint WHERE replica = 'gone'"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{1, 1, 0} {
		if n, err := record.CleanPrices(ctx, 1); err != nil || n != want {
			t.Errorf("%d rows went, %v; want %d", n, err, want)
		}
	}
	if left, err := record.Loads(ctx, 24*time.Hour); err != nil || len(left) != 2 || left[0].Replica != "here" || left[1].Replica != "here" {
		t.Errorf("%+v are left, %v", left, err)
	}
}
