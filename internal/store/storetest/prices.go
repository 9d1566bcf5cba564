package storetest

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/pricing"
)

func newEpoch(model string, rate int64) pricing.Epoch {
	return pricing.Epoch{Model: model, Rates: pricing.Rates{pricing.OutputTokens: rate, pricing.InputTokens: 2},
		Multiplier: 1.25, Signal: 0.75, BoundBy: pricing.BoundSlew, At: time.UnixMicro(1_700_000_000_123_456).UTC()}
}

func testEpochs(e *env) {
	publish := func(model string, rate int64) pricing.Epoch {
		e.Helper()
		p, err := e.prices.PublishEpoch(ctx(e.T), newEpoch(model, rate))
		if err != nil {
			e.Fatal(err)
		}
		return p
	}
	a1, b1, a2 := publish("a", 1), publish("b", 2), publish("a", pricing.MaxRate)
	if a1.ID >= b1.ID || b1.ID >= a2.ID || a1.ID < 1 {
		e.Errorf("ids %d, %d, %d", a1.ID, b1.ID, a2.ID)
	}
	latest, err := e.prices.LatestEpochs(ctx(e.T))
	if err != nil || len(latest) != 2 || latest[0] != b1 || latest[1] != a2 {
		e.Errorf("latest: %+v, %v; want %+v, %+v", latest, err, b1, a2)
	}
	for _, bad := range []pricing.Epoch{{Rates: pricing.Rates{pricing.Calls: -1}}, {Multiplier: math.NaN()}, {Signal: math.Inf(1)}, {Multiplier: -1}, {Model: "a\x00"}} {
		_, err = e.prices.PublishEpoch(ctx(e.T), bad)
		e.refused(err, pricing.ErrArgument)
	}
	ids := make(chan int64, 20)
	parallel(cap(ids), func(int) { ids <- publish("c", 1).ID })
	close(ids)
	seen := map[int64]bool{}
	for id := range ids {
		if seen[id] {
			e.Errorf("id %d twice", id)
		}
		seen[id] = true
	}
}

// testEpochsEnd checks that a price is deleted EpochsKept after the next price of its model came, however old the price
// is. The price in force is never deleted.
func testEpochsEnd(e *env) {
	day, now := 24*time.Hour, time.Now()
	for _, p := range []struct {
		model string
		age   time.Duration
	}{{"a", 300 * day}, {"b", 290 * day}, {"a", 200 * day}, {"a", 91 * day}, {"a", 89 * day}, {"c", 95 * day}, {"c", day}} {
		epoch := newEpoch(p.model, 1)
		epoch.At = now.Add(-p.age).UTC().Truncate(time.Microsecond)
		if _, err := e.prices.PublishEpoch(ctx(e.T), epoch); err != nil {
			e.Fatal(err)
		}
	}
	left := func() (ids []int64) {
		list, err := e.prices.Epochs(ctx(e.T), pricing.EpochQuery{})
		if err != nil {
			e.Fatal(err)
		}
		for _, p := range list {
			ids = append(ids, p.ID)
		}
		return ids
	}
	first := left()[0]
	if n, err := e.prices.CleanPrices(ctx(e.T), 100); err != nil || n != 2 {
		e.Errorf("%d rows went, %v; want 2", n, err)
	}
	got := left()
	for i := range got {
		got[i] -= first - 1
	}
	if want := []int64{2, 4, 5, 6, 7}; !slices.Equal(got, want) {
		e.Errorf("epochs %v are left, want %v", got, want)
	}
	// The next price gets a number that was never used.
	if p, err := e.prices.PublishEpoch(ctx(e.T), newEpoch("b", 1)); err != nil || p.ID != first+7 {
		e.Errorf("the next epoch is %d, %v; want %d", p.ID, err, first+7)
	}
}

func testEpochQueries(e *env) {
	if latest, err := e.prices.LatestEpochs(ctx(e.T)); err != nil || len(latest) != 0 {
		e.Errorf("latest of nothing: %+v, %v", latest, err)
	}
	var all []pricing.Epoch
	began := time.UnixMicro(1_700_000_000_000_000).UTC()
	for i := range 30 {
		p := newEpoch([]string{"a", "b", "c"}[i%3], int64(i+1))
		p.At = began.Add(time.Duration(i) * time.Minute)
		p, err := e.prices.PublishEpoch(ctx(e.T), p)
		if err != nil {
			e.Fatal(err)
		}
		all = append(all, p)
	}
	for _, q := range []pricing.EpochQuery{{}, {Limit: 7}, {After: all[4].ID}, {After: all[4].ID, Limit: 3}, {Model: "b"}, {Model: "z"},
		{Since: all[20].At}, {Since: all[20].At, Model: "c", After: all[21].ID, Limit: 2}, {Model: "a", Limit: 4}, {After: all[29].ID}} {
		var want []pricing.Epoch
		for _, p := range all {
			if p.ID > q.After && (q.Model == "" || p.Model == q.Model) && !p.At.Before(q.Since) && (q.Limit == 0 || len(want) < q.Limit) {
				want = append(want, p)
			}
		}
		got, err := e.prices.Epochs(ctx(e.T), q)
		if err != nil || len(got) != len(want) {
			e.Errorf("%+v: %d epochs, %v; want %d", q, len(got), err, len(want))
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				e.Errorf("%+v: %+v, want %+v", q, got[i], want[i])
			}
		}
	}
	if got, found, err := e.prices.Epoch(ctx(e.T), all[11].ID); err != nil || !found || got != all[11] {
		e.Errorf("epoch: %+v, %v, %v", got, found, err)
	}
	if _, found, err := e.prices.Epoch(ctx(e.T), 9999); err != nil || found {
		e.Errorf("epoch that never was: %v, %v", found, err)
	}
	if latest, err := e.prices.LatestEpochs(ctx(e.T)); err != nil || len(latest) != 3 || latest[0] != all[27] || latest[2] != all[29] {
		e.Errorf("latest: %+v, %v", latest, err)
	}
}

// testLead checks that one caller leads at a time, and that only the leader can publish through its lead.
func testLead(e *env) {
	other := pricer.NewRecord(e.priceStore)
	lead := func(l *pricer.Record) pricer.Lead {
		e.Helper()
		p, err := l.LeadPrices(ctx(e.T))
		if err != nil {
			e.Fatal(err)
		}
		return p
	}
	first := lead(e.prices)
	for _, l := range []*pricer.Record{e.prices, other} {
		_, err := l.LeadPrices(ctx(e.T))
		e.refused(err, pricer.ErrNotLeader)
	}
	a, err := first.Publish(ctx(e.T), newEpoch("a", 1))
	if err != nil || first.Check(ctx(e.T)) != nil {
		e.Fatalf("publish: %v", err)
	}
	_, err = first.Publish(ctx(e.T), pricing.Epoch{Rates: pricing.Rates{pricing.Calls: -1}})
	e.refused(err, pricing.ErrArgument)
	if err := errors.Join(first.Check(ctx(e.T)), first.Release(), first.Release()); err != nil {
		e.Error(err)
	}
	second := lead(other)
	e.refused(first.Check(ctx(e.T)), pricer.ErrNotLeader)
	_, err = first.Publish(ctx(e.T), newEpoch("a", 2))
	e.refused(err, pricer.ErrNotLeader)
	b, err := second.Publish(ctx(e.T), newEpoch("a", 3))
	if err != nil || b.ID != a.ID+1 {
		e.Errorf("epochs %d, %d, %v", a.ID, b.ID, err)
	}
	if err := errors.Join(first.Release(), second.Check(ctx(e.T)), second.Release()); err != nil { // frees nothing
		e.Error(err)
	}
	// Of many callers at once, one gets the lead.
	var won atomic.Int64
	parallel(8, func(i int) {
		p, err := []*pricer.Record{e.prices, other}[i%2].LeadPrices(ctx(e.T))
		switch {
		case err == nil:
			won.Add(1)
			e.Cleanup(func() { p.Release() })
		case !errors.Is(err, pricer.ErrNotLeader):
			e.Error(err)
		}
	})
	if won.Load() != 1 {
		e.Errorf("%d lead", won.Load())
	}
}

// watch counts the notifications of prices that one process gets. It returns once the process listens.
func watch(t *testing.T, l *pricer.Record) (heard *atomic.Int64, stop func() error) {
	t.Helper()
	watching, cancel := context.WithCancel(context.Background())
	heard, ended := new(atomic.Int64), make(chan error, 1)
	listens := make(chan struct{})
	go func() {
		ended <- l.WatchPrices(watching, func() {
			if heard.Add(1) == 1 {
				close(listens)
			}
		})
	}()
	select {
	case <-listens:
	case err := <-ended:
		t.Fatalf("watch: %v", err)
	}
	return heard, func() error { cancel(); return <-ended }
}

func testWatch(e *env) {
	other := pricer.NewRecord(e.priceStore)
	mine, stop := watch(e.T, e.prices)
	theirs, stopTheirs := watch(e.T, other)
	heard := func(what string, do func() error) {
		e.Helper()
		m, t := mine.Load(), theirs.Load()
		if err := do(); err != nil {
			e.Fatalf("%s: %v", what, err)
		}
		e.eventually("a watcher hears of "+what, func() bool { return mine.Load() > m && theirs.Load() > t })
	}
	heard("an epoch", func() error { _, err := e.prices.PublishEpoch(ctx(e.T), newEpoch("a", 1)); return err })
	lead, err := other.LeadPrices(ctx(e.T))
	if err != nil {
		e.Fatal(err)
	}
	heard("a leader's epoch", func() error { _, err := lead.Publish(ctx(e.T), newEpoch("a", 2)); return err })
	heard("an override", func() error { return other.SetOverride(ctx(e.T), "a", 2.5) })
	heard("its end", func() error { return e.prices.SetOverride(ctx(e.T), "a", 0) })
	if err := lead.Release(); err != nil {
		e.Error(err)
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		e.Errorf("watch ended with %v", err)
	}
	before := mine.Load()
	t := theirs.Load()
	if _, err := e.prices.PublishEpoch(ctx(e.T), newEpoch("a", 3)); err != nil {
		e.Fatal(err)
	}
	e.eventually("the other watcher hears", func() bool { return theirs.Load() > t })
	if err := stopTheirs(); !errors.Is(err, context.Canceled) || mine.Load() != before {
		e.Errorf("watch ended with %v; heard %d more after the end", err, mine.Load()-before)
	}
}

func testOverrides(e *env) {
	set := func(model string, multiplier float64) {
		e.Helper()
		if err := e.prices.SetOverride(ctx(e.T), model, multiplier); err != nil {
			e.Fatal(err)
		}
	}
	check := func(want map[string]float64) {
		e.Helper()
		got, err := e.prices.Overrides(ctx(e.T))
		if err != nil || len(got) != len(want) {
			e.Errorf("overrides %v, %v; want %v", got, err, want)
		}
		for model, multiplier := range want {
			if got[model] != multiplier {
				e.Errorf("overrides %v, want %v", got, want)
			}
		}
	}
	check(nil)
	set("a", 1)
	set("b", 2.5)
	set("a", 0.25)
	check(map[string]float64{"a": 0.25, "b": 2.5})
	set("a", 0)
	set("c", 0)
	check(map[string]float64{"b": 2.5})
	for _, bad := range []float64{-1, math.NaN(), math.Inf(1)} {
		e.refused(e.prices.SetOverride(ctx(e.T), "a", bad), pricing.ErrArgument)
	}
	e.refused(e.prices.SetOverride(ctx(e.T), "", 1), pricing.ErrArgument)
	check(map[string]float64{"b": 2.5})
}

func testLoads(e *env) {
	report := func(replica string, loads ...pricer.Report) {
		e.Helper()
		if err := e.prices.ReportLoad(ctx(e.T), replica, loads); err != nil {
			e.Fatal(err)
		}
	}
	loads := func(maxAge time.Duration) map[string]pricer.Report {
		e.Helper()
		list, err := e.prices.Loads(ctx(e.T), maxAge)
		if err != nil {
			e.Fatal(err)
		}
		m := make(map[string]pricer.Report, len(list))
		for _, l := range list {
			if age := time.Since(l.At); age < -time.Minute || age > time.Minute {
				e.Errorf("reported at %s", l.At)
			}
			l.At = time.Time{}
			m[l.Replica+"/"+l.Model] = l
		}
		return m
	}
	if got := loads(time.Minute); len(got) != 0 {
		e.Errorf("loads before any: %v", got)
	}
	a, b := pricer.Report{Model: "a", Running: 3, Waiting: 0.5, Work: 12.25}, pricer.Report{Model: "b", Running: 1}
	report("one", a, b)
	report("two", a)
	a.Running, a.Work = 7, 1e15
	report("one", a)
	report("one")
	a.Replica, b.Replica = "one", "one"
	got := loads(time.Minute)
	if len(got) != 3 || got["one/a"] != a || got["one/b"] != b || got["two/a"].Running != 3 {
		e.Errorf("loads: %v", got)
	}
	e.eventually("loads to age", func() bool { return len(loads(time.Millisecond)) == 0 })
	report("two", b)
	if got := loads(time.Minute); len(got) != 4 {
		e.Errorf("loads: %v", got)
	}
	for _, bad := range [][]pricer.Report{{{Model: ""}}, {{Model: "a", Running: math.NaN()}}, {{Model: "a", Work: -1}},
		{{Model: "a", Waiting: math.Inf(1)}}, {{Model: "a"}, {Model: "a"}}} {
		e.refused(e.prices.ReportLoad(ctx(e.T), "one", bad), pricing.ErrArgument)
	}
	e.refused(e.prices.ReportLoad(ctx(e.T), "", nil), pricing.ErrArgument)
}
