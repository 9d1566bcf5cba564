package pricer_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/pricing"
)

// crowded is a store with old rows. Another process leads its prices.
type crowded struct {
	pricer.Store
	old   int
	asked atomic.Int64
	fails atomic.Bool
}

func (*crowded) LatestEpochs(context.Context) ([]pricing.Epoch, error)         { return nil, nil }
func (*crowded) Overrides(context.Context) (map[string]float64, error)         { return nil, nil }
func (*crowded) LeadPrices(context.Context) (pricer.Lead, error)               { return nil, pricer.ErrNotLeader }
func (*crowded) ReportLoad(context.Context, string, []pricer.Report) error     { return nil }
func (*crowded) Loads(context.Context, time.Duration) ([]pricer.Report, error) { return nil, nil }
func (*crowded) WatchPrices(ctx context.Context, _ func()) error               { <-ctx.Done(); return ctx.Err() }

func (c *crowded) CleanPrices(_ context.Context, limit int) (int, error) {
	c.asked.Add(1)
	if c.fails.Load() {
		return 0, errors.New("the store is away")
	}
	n := min(c.old, limit)
	c.old -= n
	return n, nil
}

// Old prices are deleted in portions, without a request, also while another process leads, and again
// after a failure.
func TestOldPricesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &crowded{old: 2500}
		store.fails.Store(true)
		p, err := pricer.New(pricer.Config{Record: pricer.NewRecord(store), Board: new(pricing.Board)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); p.Run(ctx) }()
		time.Sleep(31 * time.Second)
		if n := store.asked.Load(); n != 1 {
			t.Errorf("asked %d times in the first round, want 1", n)
		}
		store.fails.Store(false)
		time.Sleep(30 * time.Second)
		stop()
		<-ended
		if n := store.asked.Load(); store.old != 0 || n != 4 {
			t.Errorf("%d rows are left after %d portions, want 0 after 4", store.old, n)
		}
	})
}
