package pricer_test

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/pricing"
)

const (
	modelName = "m"
	interval  = 100 * time.Millisecond
)

var base = pricing.Rates{pricing.InputTokens: 100_000, pricing.OutputTokens: 400_000}

func params() pricing.Params {
	p := pricing.DefaultParams()
	p.Interval, p.SlewDown, p.Delay = interval, 0.3, 0
	return p
}

// pool is a load that a test sets.
type pool struct {
	mu   sync.Mutex
	load pricing.Load
	work float64
}

func idle() pricing.Load {
	l := pricing.UnknownLoad()
	l.Running, l.Waiting, l.Queued, l.InFlight, l.Capacity = 0, 0, 0, 0, 10
	return l
}

func (p *pool) set(change func(*pricing.Load)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.load)
}

func (p *pool) read(string, time.Time) pricing.Load {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.load
}

func (p *pool) delivered(string) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.work
}

// gateway is one process that keeps prices.
type gateway struct {
	*testing.T
	*pool
	record *pricer.Record
	board  *pricing.Board
	pricer *pricer.Pricer
	stop   func()

	mu    sync.Mutex
	moves []pricing.Epoch // the prices that Moved was called with
}

func (g *gateway) moved(_ context.Context, e pricing.Epoch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moves = append(g.moves, e)
}

// start opens a pricer on the record and runs it.
func start(t *testing.T, record *pricer.Record, replica string, m pricer.Model) *gateway {
	t.Helper()
	g := &gateway{T: t, pool: &pool{load: idle()}, record: record, board: new(pricing.Board)}
	m.Name = modelName
	if m.Base == (pricing.Rates{}) {
		m.Base = base
	}
	if m.Params.Policy == "" {
		m.Params = params()
	}
	var err error
	g.pricer, err = pricer.New(pricer.Config{Models: []pricer.Model{m}, Record: record, Board: g.board, Load: g.read, Work: g.delivered, Moved: g.moved, Replica: replica})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	opening, done := context.WithTimeout(ctx, 20*time.Second)
	defer done()
	if err := g.pricer.Open(opening); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { g.pricer.Run(ctx) })
	g.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(g.stop)
	return g
}

func embedded(t *testing.T) *pricer.Record {
	t.Helper()
	db, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	return open(t, db)
}

func open(t *testing.T, store interface {
	pricer.Store
	Close() error
}) *pricer.Record {
	t.Helper()
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return pricer.NewRecord(store)
}

func (g *gateway) until(what string, ok func(pricing.Epoch, pricing.Standing) bool) {
	g.Helper()
	var e pricing.Epoch
	var s pricing.Standing
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		e, _ = g.board.Live(modelName)
		s, _ = g.board.Standing(modelName)
		if ok(e, s) {
			return
		}
	}
	g.Fatalf("never: %s; %+v, %+v", what, e, s)
}

func (g *gateway) epochs() []pricing.Epoch {
	g.Helper()
	list, err := g.record.Epochs(context.Background(), pricing.EpochQuery{Limit: 10_000})
	if err != nil {
		g.Fatal(err)
	}
	return list
}

func TestPriceFollowsTheLoad(t *testing.T) {
	g := start(t, embedded(t), "a", pricer.Model{Shadow: shadow()})
	e, _ := g.board.Current(modelName)
	if e.Rates != base || e.Multiplier != 1 || e.ID == 0 {
		t.Fatalf("opens with %+v", e)
	}
	g.set(func(l *pricing.Load) { l.Running, l.InFlight, l.Waiting, l.Queued = 10, 10, 8, 8 })
	g.until("the ceiling", func(e pricing.Epoch, _ pricing.Standing) bool {
		return e.Multiplier == 4 && e.BoundBy == pricing.BoundCeiling
	})
	g.set(func(l *pricing.Load) { *l = idle() })
	g.until("the floor again", func(e pricing.Epoch, s pricing.Standing) bool {
		return e.Multiplier == 1 && e.BoundBy == pricing.BoundFloor && e.Rates == base && s.Leads && s.Shadow.Multiplier == 1
	})
	last, p := pricing.Epoch{Multiplier: 1}, params()
	for i, e := range g.epochs() {
		step := math.Log(e.Multiplier / last.Multiplier)
		if e.ID <= last.ID || step > p.SlewUp+1e-9 || step < -p.SlewDown-1e-9 || (i > 0 && e.Rates == last.Rates) || e.Rates != base.Scale(e.Multiplier) {
			t.Errorf("epoch %+v after %+v", e, last)
		}
		last = e
	}
	g.stop()
	same := func(a, b pricing.Epoch) bool { return a.ID == b.ID && a.Rates == b.Rates }
	if !slices.EqualFunc(g.moves, g.epochs(), same) {
		t.Errorf("told of %+v, want each epoch once", g.moves)
	}
}

func shadow() *pricing.Params {
	p := params()
	p.Policy = pricing.PolicyCurve
	return &p
}

func TestRestartKeepsThePrice(t *testing.T) {
	record := embedded(t)
	g := start(t, record, "a", pricer.Model{})
	g.set(func(l *pricing.Load) { l.Running, l.InFlight = 10, 10 })
	g.until("a higher price", func(e pricing.Epoch, _ pricing.Standing) bool { return e.Multiplier > 1.2 })
	g.stop()
	last, _ := g.board.Current(modelName)
	slow := params()
	slow.Interval = time.Hour
	g = start(t, record, "b", pricer.Model{Params: slow})
	if e, _ := g.board.Current(modelName); e.ID != last.ID || e.Rates != last.Rates {
		t.Errorf("%+v after %+v", e, last)
	}
	g.stop()
	double := base.Scale(2)
	g = start(t, record, "c", pricer.Model{Params: slow, Base: double})
	if e, _ := g.board.Current(modelName); e.ID <= last.ID || e.Rates != double.Scale(last.Multiplier) {
		t.Errorf("with another rate card: %+v after %+v", e, last)
	}
	g.stop()
	static := slow
	static.Policy = pricing.PolicyStatic
	g = start(t, record, "d", pricer.Model{Params: static})
	if e, _ := g.board.Current(modelName); e.Rates != base || e.BoundBy != pricing.BoundFixed {
		t.Errorf("static: %+v", e)
	}
}

func TestKillSwitch(t *testing.T) {
	slow := params()
	slow.Interval = time.Hour // so the change cannot come from a turn
	g := start(t, embedded(t), "a", pricer.Model{Params: slow})
	ctx := context.Background()
	if err := g.pricer.Override(ctx, modelName, 2.5); err != nil {
		t.Fatal(err)
	}
	if standing, ok := g.board.Standing(modelName); !ok || standing.Fixed != 2.5 {
		t.Errorf("the operator was told that the price is fixed, and it is not: %+v", standing)
	}
	g.until("a fixed price", func(e pricing.Epoch, s pricing.Standing) bool {
		return e.Multiplier == 2.5 && e.BoundBy == pricing.BoundFixed && e.Rates == base.Scale(2.5) && s.Fixed == 2.5
	})
	if err := g.pricer.Override(ctx, modelName, 0); err != nil {
		t.Fatal(err)
	}
	g.until("the policy again", func(_ pricing.Epoch, s pricing.Standing) bool { return s.Fixed == 0 && s.BoundBy != pricing.BoundFixed })
	for _, wrong := range []float64{-1, math.NaN(), math.Inf(1)} {
		if g.pricer.Override(ctx, modelName, wrong) == nil {
			t.Errorf("took %g", wrong)
		}
	}
	if g.pricer.Override(ctx, "other", 1) == nil {
		t.Error("took another model")
	}
}

func TestStaleLoadNeverRaisesThePrice(t *testing.T) {
	p := params()
	p.HalfLife = 300 * time.Millisecond
	g := start(t, embedded(t), "a", pricer.Model{Params: p})
	g.set(func(l *pricing.Load) { l.Running, l.InFlight = 10, 10 })
	g.until("a higher price", func(e pricing.Epoch, _ pricing.Standing) bool { return e.Multiplier > 1.5 })
	g.set(func(l *pricing.Load) { l.Running, l.Waiting, l.Stale = 10, 1000, true })
	top, _ := g.board.Current(modelName)
	g.until("it sinks", func(e pricing.Epoch, _ pricing.Standing) bool {
		if e.Multiplier > top.Multiplier*math.Exp(p.SlewUp)+1e-9 { // one turn may have been under way
			t.Fatalf("rose to %g from %g", e.Multiplier, top.Multiplier)
		}
		return e.BoundBy == pricing.BoundStale && e.Multiplier < 1.2
	})
}

func TestHooks(t *testing.T) {
	p := params()
	p.Policy = pricing.PolicyHook
	ok := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.Error(w, "no", http.StatusMethodNotAllowed)
			return
		}
		w.Write([]byte(`{"multiplier": 1.75}`))
	}))
	defer ok.Close()
	at, _ := url.Parse(ok.URL)
	for name, h := range map[string]pricer.Hook{
		"command": {Command: []string{"sh", "-c", `grep -q '"model":"m"' && test -z "$SLUICE_SECRET" && echo 1.75`}},
		"url":     {URL: at},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SLUICE_SECRET", "x")
			g := start(t, embedded(t), "a", pricer.Model{Params: p, Hook: h})
			g.until("its multiplier", func(e pricing.Epoch, _ pricing.Standing) bool { return math.Abs(e.Multiplier-1.75) < 1e-9 })
		})
	}
	t.Run("failing", func(t *testing.T) {
		g := start(t, embedded(t), "a", pricer.Model{Params: p, Hook: pricer.Hook{Command: []string{"sh", "-c", "echo 2e9; sleep 60"}, Timeout: 50 * time.Millisecond}})
		g.until("failures", func(e pricing.Epoch, s pricing.Standing) bool {
			return s.HookFailures > 2 && e.Multiplier == 1 && s.BoundBy == pricing.BoundStale
		})
	})
}

func TestEnergyFloor(t *testing.T) {
	g := start(t, embedded(t), "a", pricer.Model{Energy: pricer.Energy{SatPerKWh: 100, Overhead: 1}})
	stop := make(chan struct{})
	defer close(stop)
	go func() { // 7.2 MJ for work worth 100 sat at the base rates cost 200 sat
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			g.set(func(l *pricing.Load) {
				if math.IsNaN(l.Energy) {
					l.Energy = 0
				}
				l.Running, l.InFlight, l.Energy, g.work = 7, 7, l.Energy+7.2e6, g.work+100_000
			})
		}
	}()
	g.until("twice the rate card", func(e pricing.Epoch, s pricing.Standing) bool {
		return math.Abs(e.Multiplier-2) < 0.1 && s.BoundBy == pricing.BoundFloor && math.Abs(s.EnergyFloor-2) < 0.1
	})
}

func TestWrongParametersAreRefused(t *testing.T) {
	p := params()
	p.Floor = 0
	if _, err := pricer.New(pricer.Config{Models: []pricer.Model{{Name: modelName, Params: p}}}); err == nil {
		t.Error("a floor of 0 was taken")
	}
}

// A price that is fixed before the first turn has the time at which it was fixed, because a recording
// of prices without times cannot be read.
func TestPriceFixedBeforeTheFirstTurnHasATime(t *testing.T) {
	slow := params()
	slow.Interval = time.Hour
	began := time.Now()
	g := start(t, embedded(t), "a", pricer.Model{Params: slow})
	for i, multiplier := range []float64{2.5, 3} {
		if err := g.pricer.Override(context.Background(), modelName, multiplier); err != nil {
			t.Fatal(err)
		}
		g.until("a fixed price", func(e pricing.Epoch, _ pricing.Standing) bool { return e.Multiplier == multiplier })
		list := g.epochs()
		for _, e := range list {
			if e.At.Before(began.Add(-time.Second)) || e.At.After(time.Now().Add(time.Second)) {
				t.Errorf("epoch %d at multiplier %g is of %v", e.ID, e.Multiplier, e.At)
			}
		}
		if len(list) < i+2 {
			t.Errorf("%d epochs", len(list))
		}
	}
	at := map[time.Time]bool{}
	for _, e := range g.epochs() {
		if at[e.At] {
			t.Errorf("two prices are of %v", e.At)
		}
		at[e.At] = true
	}
}
