package storetest

import (
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// envHistory names the variable with the number of charges that BenchAudits makes before it measures. The default is
// 100,000.
const envHistory = "SLUICE_BENCH_HISTORY"

// BenchAudits measures how much an audit of a whole history slows down other operations. 64 callers reserve and settle
// on 10,000 accounts, once alone and once beside the audit. log returns the size of the store's log in bytes. A nil log
// means that the store has no log that an audit could make grow.
func BenchAudits(b *testing.B, open func(b *testing.B) (s metering.Store, log func() int64)) {
	history := 100_000
	if n, err := strconv.Atoi(os.Getenv(envHistory)); err == nil {
		history = n
	}
	store, log := open(b)
	l, err := metering.Open(context.Background(), metering.Config{Store: store, AuditEvery: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close(context.Background())
	r := &auditRig{B: b, ledger: l, log: log, ids: make([]l402.TokenID, 10_000)}
	inTurn(len(r.ids), func(i int) {
		r.ids[i] = l402.NewTokenID()
		if _, err := l.Deposit(context.Background(), metering.Deposit{Hash: newHash(), Account: r.ids[i], Amount: 1e12}); err != nil {
			b.Error(err)
		}
	})
	inTurn(history, func(i int) {
		if err := pair(l, r.ids[i%len(r.ids)]); err != nil {
			b.Error(err)
		}
	})
	b.ResetTimer()
	alone := func(ctx context.Context) error {
		time.Sleep(10 * time.Second)
		return nil
	}
	before, _ := r.beside("alone", alone)
	for _, audit := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"new", func(ctx context.Context) error { return report(l.AuditNew(ctx)) }},
		{"new-again", func(ctx context.Context) error { return report(l.AuditNew(ctx)) }},
		{"all", func(ctx context.Context) error { return report(l.AuditWith(ctx, metering.AuditOptions{Pause: 4})) }},
		{"all-at-once", func(ctx context.Context) error { return report(l.Audit(ctx)) }},
	} {
		rate, took := r.beside(audit.name, audit.run)
		b.ReportMetric(rate/before, audit.name+"-ratio")
		b.ReportMetric(took.Seconds(), audit.name+"-s")
	}
	after, _ := r.beside("alone", alone)
	b.ReportMetric(after/before, "alone-ratio")
}

func report(r metering.Report, err error) error {
	if err == nil && !r.OK() {
		err = errMismatch(r.Mismatches[0])
	}
	return err
}

type errMismatch string

func (e errMismatch) Error() string { return string(e) }

type auditRig struct {
	*testing.B
	ledger *metering.Ledger
	log    func() int64
	ids    []l402.TokenID
}

// beside runs fn while 64 callers work. It returns how many pairs per second the callers finished, and how long fn
// took.
func (r *auditRig) beside(name string, fn func(context.Context) error) (rate float64, took time.Duration) {
	var pairs, most atomic.Int64
	working, stop := context.WithCancel(context.Background())
	var load sync.WaitGroup
	for i := range 64 {
		load.Go(func() {
			for n := i; working.Err() == nil; n += 64 {
				if err := pair(r.ledger, r.ids[n%len(r.ids)]); err != nil {
					r.Error(err)
					return
				}
				pairs.Add(1)
			}
		})
	}
	if r.log != nil {
		load.Go(func() {
			for working.Err() == nil {
				most.Store(max(most.Load(), r.log()))
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	began, first := time.Now(), pairs.Load()
	err := fn(working)
	took = time.Since(began)
	rate = float64(pairs.Load()-first) / took.Seconds()
	stop()
	load.Wait()
	if err != nil {
		r.Errorf("%s: %v", name, err)
	}
	r.Logf("%s: %.0f pairs/s, %s, log of %d MiB", name, rate, took.Round(time.Millisecond), most.Load()>>20)
	return rate, took
}
