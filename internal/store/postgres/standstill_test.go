package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// freezing is a store whose gateway stands still between reading a batch and writing it.
type freezing struct {
	*postgres.DB
	mu      sync.Mutex
	entered chan struct{}
	thaw    chan struct{}
}

func (f *freezing) Apply(ctx context.Context, b *metering.Batch, decide func()) error {
	return f.DB.Apply(context.WithoutCancel(ctx), b, func() {
		decide()
		f.mu.Lock()
		entered, thaw := f.entered, f.thaw
		f.mu.Unlock()
		if entered != nil {
			entered <- struct{}{}
			<-thaw
		}
	})
}

// TestStoppedBetweenRoundTrips checks that a gateway which stands still in the middle of a batch holds no lock: another
// gateway works on the same account. When the first gateway continues, it decides its batch again.
func TestStoppedBetweenRoundTrips(t *testing.T) {
	url := pgtest.Start(t)
	frozen := &freezing{DB: open(t, url)}
	slow, err := metering.Open(context.Background(), metering.Config{Store: frozen})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close(context.Background())
	quick := ledger(t, open(t, url), metering.Config{})
	id := account(t, quick, 1000)

	frozen.mu.Lock()
	frozen.entered, frozen.thaw = make(chan struct{}, 1), make(chan struct{})
	frozen.mu.Unlock()
	late := make(chan error, 1)
	go func() {
		_, err := reserve(context.Background(), slow, id, 600)
		late <- err
	}()
	<-frozen.entered
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for range 20 {
		h, err := reserve(ctx, quick, id, 30)
		if err != nil {
			t.Fatalf("beside a gateway that stands still: %v", err)
		}
		if _, err := h.Settle(ctx, calls(30)); err != nil {
			t.Fatal(err)
		}
	}
	if n := quick.Stats().Conflicts; n != 0 {
		t.Errorf("%d operations met a lock", n)
	}
	frozen.mu.Lock()
	frozen.entered = nil
	frozen.mu.Unlock()
	close(frozen.thaw)
	var short *metering.InsufficientError
	if err := <-late; err == nil || !errors.As(err, &short) || short.Available != 400 {
		t.Errorf("decided over rows that had changed: %v", err)
	}
	if r := audit(t, quick); r.Charged != 600 || r.Held != 0 {
		t.Errorf("report: %+v", r)
	}
}

// TestLockedAccountsWaitAlone keeps 64 of 1000 accounts locked. It checks that all other accounts work meanwhile, and
// the locked accounts once they are free.
func TestLockedAccountsWaitAlone(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	l := ledger(t, open(t, url), metering.Config{Patience: time.Minute})
	ids := make([]l402.TokenID, 200)
	for i := range ids {
		ids[i] = account(t, l, 1000)
	}
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const locked = 64
	for _, id := range ids[:locked] {
		if _, err := tx.Exec(ctx, "SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE", id[:]); err != nil {
			t.Fatal(err)
		}
	}
	pay := func(id l402.TokenID) error {
		h, err := reserve(ctx, l, id, 10)
		if err == nil {
			_, err = h.Settle(ctx, calls(10))
		}
		return err
	}
	var stuck, free sync.WaitGroup
	errs := make(chan error, 4*len(ids))
	for round := range 4 {
		for i, id := range ids {
			group := &free
			if i < locked {
				group = &stuck
			}
			group.Go(func() {
				if err := pay(id); err != nil {
					errs <- fmt.Errorf("round %d: %w", round, err)
				}
			})
		}
	}
	free.Wait() // while the locked accounts are still locked
	if got := l.Stats().Charged; got != l402.Msat(4*10*(len(ids)-locked)) {
		t.Errorf("charged %d beside locked accounts", got)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	stuck.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if r := audit(t, l); r.Charged != l402.Msat(4*10*len(ids)) || r.Held != 0 {
		t.Errorf("report: %+v", r)
	}
}

// TestHoldsStaySmall checks that a gateway removes the dead rows of ended holds itself, long before autovacuum looks.
func TestHoldsStaySmall(t *testing.T) {
	ctx := context.Background()
	url := pgtest.Start(t)
	l := ledger(t, open(t, url), metering.Config{})
	id := account(t, l, 1e9)
	var wg sync.WaitGroup
	for range 128 {
		wg.Go(func() {
			for range 50_000 / 128 {
				h, err := reserve(ctx, l, id, 10)
				if err == nil {
					_, err = h.Settle(ctx, calls(1))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	c := admin(t, url)
	eventually(t, "a vacuum of the table of holds", func() bool {
		var vacuums int
		err := c.QueryRow(ctx, "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'holds'").Scan(&vacuums)
		return err == nil && vacuums > 0
	})
	var size int64
	if err := c.QueryRow(ctx, "SELECT pg_total_relation_size('holds')").Scan(&size); err != nil || size > 16<<20 {
		t.Errorf("the table of holds takes %d bytes, %v", size, err)
	}
	t.Logf("%d KiB after 50,000 holds", size>>10)
}
