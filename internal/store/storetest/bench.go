package storetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// Bench measures one reservation and one durable settlement, by concurrent callers on one account and on many accounts.
// ns/op is wall time per pair. ops/batch is the number of operations that the writer put into one transaction.
func Bench(b *testing.B, open func(b *testing.B) metering.Store) {
	for _, accounts := range []int{1, 1000} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("accounts=%d/callers=%d", accounts, callers), func(b *testing.B) {
				benchPairs(b, open(b), accounts, callers)
			})
		}
	}
}

func benchPairs(b *testing.B, s metering.Store, accounts, callers int) {
	background := context.Background()
	l, err := metering.Open(background, metering.Config{Store: s})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := l.Close(background); err != nil {
			b.Error(err)
		}
		if r, err := l.Audit(background); err != nil || !r.OK() {
			b.Errorf("audit: %v, %v", r.Mismatches, err)
		}
	}()
	ids := make([]l402.TokenID, accounts)
	inTurn(accounts, func(i int) {
		ids[i] = l402.NewTokenID()
		d := metering.Deposit{Hash: newHash(), Account: ids[i], Amount: 1e11}
		if _, err := l.Deposit(background, d); err != nil {
			b.Error(err)
		}
	})
	before := l.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := pair(l, ids[n%int64(accounts)]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	after := l.Stats()
	b.ReportMetric(float64(after.Operations-before.Operations)/float64(after.Batches-before.Batches), "ops/batch")
}

func pair(l *metering.Ledger, id l402.TokenID) error {
	r := reservation(id, 400)
	r.ID = metering.HoldID{} // the gateway sets no id either
	h, err := l.Reserve(context.Background(), r)
	if err != nil {
		return err
	}
	_, err = h.Settle(context.Background(), calls(150))
	return err
}

// inTurn runs fn n times, up to 512 at once.
func inTurn(n int, fn func(i int)) {
	const at = 512
	parallel(at, func(first int) {
		for i := first; i < n; i += at {
			fn(i)
		}
	})
}
