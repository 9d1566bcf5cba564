package chaos

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab/labtest"
)

// flood is a gateway at its default limits with what its attackers own.
type flood struct {
	till   *Till
	g      *Gateway
	gauges *gauges
	first  reading // before the first attack

	payer Credential // pays and streams through all of it
	rich  Credential // pays for what it takes up
	sub   Credential // is delegated from, without end
	poor  []Credential

	answers [600]atomic.Int64 // what attackers were told, by status
	told    atomic.Int64      // answers of any status
	bought  atomic.Int64      // requests that attackers pay for
}

// attack is one way to take more than one's share, and the most that it may get.
type attack struct {
	name  string
	model string                                            // that the payer asks for meanwhile
	run   func(ctx context.Context, t *testing.T, f *flood) // until ctx ends
	least int64                                             // answers that it goes on for

	answers     []int // that attackers may get
	invoices    rate  // at the node
	descriptors int64 // more than before
	holds       int64 // at a time
	waiting     int64 // in the queue, at a time
}

// rate is a limit on invoices: so many at once, so many in a second.
type rate struct{ burst, perSecond float64 }

// The rates are the defaults of limits.challenges, for an address, for all and
// for an account. An attacker's connection is one descriptor, and one more where
// the backend is asked.
func attacks() []attack {
	return []attack{
		{name: "challenges for one address", run: floodFromOne, model: "demo",
			answers: []int{402, 429}, invoices: rate{200, 50}, descriptors: 64},
		{name: "challenges for 10,000 addresses", run: floodFromMany, model: "demo",
			answers: []int{402, 429}, invoices: rate{600, 300}, descriptors: 128},
		{name: "100,000 fresh sub-budgets", run: freshBudgets, least: either[int64](100_000, 0), model: "demo",
			answers: []int{400, 402, 403, 429}, invoices: rate{100, 5}, descriptors: 128},
		{name: "1,000 caveats", run: manyCaveats, model: "demo",
			answers: []int{200, 400, 403}, descriptors: 64},
		{name: "empty accounts queue", run: emptyAccounts, model: "narrow",
			answers: []int{402, 429}, invoices: rate{poorAccounts * 100, poorAccounts * 5}, descriptors: 256,
			holds: houseCallers + 2*narrowSlots, waiting: houseCallers - narrowSlots}, // twice: see countNow in internal/gateway
		{name: "2,000 slow readers", run: slowReaders, model: "padded",
			descriptors: int64(2 * readers()), holds: int64(readers())},
	}
}

const (
	narrowSlots  = 4  // of the backend that is full
	houseCallers = 8  // of one account, that keep it full
	poorAccounts = 16 // of which half have spent all, half have too little
)

// readers do not read.
func readers() int { return either(2000, 300) }

// payerLimit is how long the payer's top-up and its stream of 16 tokens may
// take, each. On two cores, which attackers, daemons and backends share, both
// take 5 s at most, and up to 15 s when those have more to do besides.
const payerLimit = payLimit

// TestFlood has strangers and holders take what they can get of one gateway at
// its default limits, one attack after the other: what it takes up stays within
// bounds, and somebody who pays is served as ever. It is the one test here that
// runs alone, for it keeps the machine busy, and on a network of its own: a test
// that starts a gateway after it would read thousands of invoices.
func TestFlood(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has /proc and all of 127.0.0.0/8")
	}
	f := newFlood(t)
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) { f.under(t, a) })
	}
	f.g.Verify(t)
}

func newFlood(t *testing.T) *flood {
	f := &flood{till: another(t)}
	settings := f.till.Settings(quick(t).URL)
	narrow := NewBackend(t, inference.Config{TokensPerSecond: 100, Slots: narrowSlots, MaxModelLen: 4096})
	settings.More = []Model{
		{Name: "narrow", URL: narrow.URL, Slots: narrowSlots, Queue: 64},
		{Name: "padded", URL: padded(t), Slots: readers() + 64, Queue: 16},
	}
	f.g = site.Gateway(t, settings)
	few := buyMany(t, f.till, f.g, poorAccounts+1, 4000)
	f.sub, f.poor = few[0], few[1:]
	many := buyMany(t, f.till, f.g, 2, 20_000_000)
	f.payer, f.rich = many[0], many[1]
	for _, k := range slices.Concat(few, many) { // presented, they are credited
		f.g.Balance(t, k)
	}
	for _, k := range f.poor[:poorAccounts/2] {
		for range 4000 / FlatPrice {
			f.g.Ask(t, "POST", ChatPath, Chat("flat", 4, false), k.Header()).Want(t, 200)
		}
	}
	f.gauges = watch(t, f.till, f.g)
	for _, model := range []string{"demo", "narrow", "padded"} {
		f.pay(t, model)
	}
	f.settle(t)
	var err error
	if f.first, err = f.gauges.read(); err != nil {
		t.Fatal(err)
	}
	return f
}

// under runs one attack while somebody pays.
func (f *flood) under(t *testing.T, a attack) {
	for i := range f.answers {
		f.answers[i].Store(0)
	}
	f.told.Store(0)
	f.bought.Store(0)
	before, err := f.gauges.read()
	if err != nil {
		t.Fatal(err)
	}
	var rounds atomic.Int64 // of the payer, begun
	var peak reading
	complained := map[string]bool{}
	began, duration := time.Now(), either(time.Minute, 3*time.Second)
	stop := f.gauges.each(t, func(now reading) {
		peak.merge(now)
		for what, complaint := range f.judge(a, before, now, rounds.Load(), time.Since(began)) {
			if !complained[what] {
				complained[what] = true
				t.Error(complaint)
			}
		}
	})
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	var attackers sync.WaitGroup
	attackers.Go(func() { a.run(ctx, t, f) })
	defer attackers.Wait()
	defer cancel()
	var slowest [2]time.Duration // top-up, stream
	for rounds.Load() < 3 || time.Since(began) < duration || f.told.Load() < a.least {
		if time.Since(began) > 4*duration+payerLimit {
			t.Fatalf("after %s attackers had %d answers", 4*duration, f.told.Load())
		}
		rounds.Add(1)
		took := f.pay(t, a.model)
		slowest = [2]time.Duration{max(slowest[0], took[0]), max(slowest[1], took[1])}
		time.Sleep(either(time.Second, 200*time.Millisecond))
	}
	cancel()
	attackers.Wait()
	took := time.Since(began)
	answers := map[int]int64{}
	for status := range f.answers {
		if n := f.answers[status].Load(); n > 0 {
			answers[status] = n
			if !slices.Contains(a.answers, status) {
				t.Errorf("attackers were answered %d, %d times", status, n)
			}
		}
	}
	f.settle(t)
	stop()
	t.Logf("%.0f s, answers %v, %d requests bought; %d more descriptors, %.0f MiB (%+.0f), %d more invoices, %d rows; payer %d times, slowest top-up %s, stream %s",
		took.Seconds(), answers, f.bought.Load(), peak.descriptors-f.first.descriptors, mib(peak.memory), mib(peak.memory-f.first.memory),
		peak.invoices-before.invoices, peak.total()-before.total(), rounds.Load(), slowest[0].Round(time.Millisecond), slowest[1].Round(time.Millisecond))
}

// pay tops the payer's account up, over the channel, and streams; it returns
// what each took.
func (f *flood) pay(t *testing.T, model string) (took [2]time.Duration) {
	t.Helper()
	began := time.Now()
	fresh := f.till.TopUp(t, f.g, f.payer, 4000)
	took[0] = time.Since(began)
	began = time.Now()
	s := f.g.Send(t.Context(), fresh, Chat(model, 16, true))
	took[1] = time.Since(began)
	if !s.Paid() || s.Tokens != 16 {
		t.Fatalf("the payer's stream, %d tokens: %s", s.Tokens, s)
	}
	for i, what := range []string{"top-up", "stream"} {
		if took[i] > payerLimit {
			t.Errorf("the payer's %s took %s", what, took[i])
		}
	}
	return took
}

// judge compares what the gateway takes up with what it may, for the attack and
// for the payer, and returns complaints.
func (f *flood) judge(a attack, before, now reading, rounds int64, elapsed time.Duration) map[string]string {
	complaints := map[string]string{}
	within := func(what string, n, most int64) {
		if n > most {
			complaints[what] = fmt.Sprintf("after %s: %d %s, want at most %d", elapsed.Round(time.Second), n, what, most)
		}
	}
	// 192 KiB for each stream that is stuck, and the heap that comes and goes.
	within("MiB of memory more", int64(mib(now.memory-f.first.memory)), raceMemory*(96+a.holds*192>>10))
	const own = 16 // the payer's connections, and others of the gateway that come and go
	within("descriptors more", now.descriptors-f.first.descriptors, a.descriptors+own)
	within("requests waiting", now.waiting, a.waiting+1)
	most := a.invoices.burst + a.invoices.perSecond*elapsed.Seconds()
	within("invoices more", now.invoices-before.invoices, int64(most)+rounds+1)
	paid := f.bought.Load() + rounds
	rows := map[string]int64{"holds": a.holds + 2, "charges": paid, "deposits": rounds, "transfers": paid + rounds,
		"price_epochs": 4 * (1 + int64(elapsed/(5*time.Second)))} // four models, stepped every 5 s
	// An audit keeps one row for each account, budget and payment that has lines.
	rows["audited"] = now.rows["accounts"] + now.rows["budgets"] + now.rows["deposits"] - before.rows["audited"]
	for table, n := range now.rows {
		within("rows more in "+table, n-before.rows[table], rows[table])
	}
	return complaints
}

// settle waits until nothing of an attack is left.
func (f *flood) settle(t *testing.T) {
	t.Helper()
	f.g.HTTP.CloseIdleConnections()
	labtest.Eventually(t, 15*time.Second, "the gateway is as before", func() error {
		r, err := f.gauges.read()
		if err != nil {
			return err
		}
		left := map[string]float64{"holds": float64(r.rows["holds"]), "waiting": float64(r.waiting)}
		for _, name := range []string{"sluice_http_in_flight", "sluice_http_places_taken", "sluice_ledger_open_holds", "sluice_ledger_queue",
			`sluice_backend_in_flight{backend="one"}`, `sluice_backend_in_flight{backend="narrow"}`, `sluice_backend_in_flight{backend="padded"}`} {
			left[name] = r.metrics[name]
		}
		if f.first.rows != nil {
			left["descriptors"] = float64(max(0, r.descriptors-f.first.descriptors-8))
			left["goroutines"] = max(0, r.metrics["go_goroutines"]-f.first.metrics["go_goroutines"]-32)
		}
		maps.DeleteFunc(left, func(_ string, n float64) bool { return n == 0 })
		if len(left) > 0 {
			return fmt.Errorf("left are %v", left)
		}
		return nil
	})
	for _, k := range append([]Credential{f.payer, f.rich, f.sub}, f.poor...) {
		f.g.Idle(t, k, 5*time.Second)
	}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func (r reading) total() (n int64) {
	for _, rows := range r.rows {
		n += rows
	}
	return n
}

// merge keeps the largest of each.
func (r *reading) merge(o reading) {
	r.memory, r.descriptors, r.invoices = max(r.memory, o.memory), max(r.descriptors, o.descriptors), max(r.invoices, o.invoices)
	if o.total() > r.total() {
		r.rows = o.rows
	}
}
