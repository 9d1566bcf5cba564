package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/metering"
)

// How often the ledger is looked at while the schedule runs.
const (
	watchEvery = 80 * time.Millisecond
	auditEvery = 1500 * time.Millisecond
	lookLimit  = time.Second
)

// watch looks for swept holds, and audits, until the function that it returns is
// called.
func (p *play) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var watchers sync.WaitGroup
	watchers.Go(func() { p.watchLedger(ctx) })
	watchers.Go(func() { p.watchMachine(ctx) })
	return func() {
		cancel()
		watchers.Wait()
	}
}

// watchMachine notes when this process stood still, as the tellers may have then.
func (p *play) watchMachine(ctx context.Context) {
	const period = 50 * time.Millisecond
	for last := time.Now(); ctx.Err() == nil; {
		time.Sleep(period)
		now := time.Now()
		if late := now.Sub(last) - period; late > stallAfter {
			p.record.past(history.Machine, "stalled", late.Microseconds())
		}
		last = now
	}
}

func (p *play) watchLedger(ctx context.Context) {
	var r *reader
	seen := map[metering.HoldID]bool{}
	last, audited := p.record.now(), time.Now()
	for ctx.Err() == nil {
		looking, cancel := context.WithTimeout(ctx, lookLimit)
		var err error
		if r == nil {
			r, err = p.site.open(looking)
		}
		if err == nil {
			last, err = p.lookForSweeps(looking, r, seen, last)
		}
		if err == nil && time.Since(audited) > auditEvery {
			audited = time.Now()
			err = p.audit(looking, r)
		}
		cancel()
		if err != nil && r != nil { // the server is away, or another serves now
			r.close()
			r = nil
		}
		time.Sleep(watchEvery)
	}
	if r != nil {
		r.close()
	}
}

// lookForSweeps notes new charges that were made by a sweep, with the time of
// the look before this one.
func (p *play) lookForSweeps(ctx context.Context, r *reader, seen map[metering.HoldID]bool, last int64) (int64, error) {
	began := p.record.now()
	for _, a := range p.accounts {
		page, _, err := r.Entries(ctx, metering.EntryQuery{Account: accountID(a.name), Limit: 30})
		if err != nil {
			return last, err
		}
		for _, e := range page {
			if !seen[e.ID] && (e.Provisional || e.Outcome == metering.OutcomeSwept) {
				seen[e.ID] = true
				p.sawSweep(e.ID, last)
			}
		}
	}
	return began, nil
}

func (p *play) sawSweep(id metering.HoldID, last int64) {
	name := p.holdName(id)
	before := p.record.now()
	p.record.note("hold "+name+" was swept", nil)
	p.record.with(func(h *history.History) {
		h.Sweeps = append(h.Sweeps, history.Sweep{Hold: name, After: last, Before: before})
	})
}

// holdName finds what the history calls a hold.
func (p *play) holdName(id metering.HoldID) string {
	p.record.mu.Lock()
	defer p.record.mu.Unlock()
	if name, ok := p.record.holds[id]; ok {
		return name
	}
	return id.String()
}

func (p *play) audit(ctx context.Context, r *reader) error {
	report, err := r.Audit(ctx)
	if err != nil {
		return err
	}
	p.record.with(func(h *history.History) { h.Audits = append(h.Audits, report.Mismatches...) })
	return nil
}

// pick is a generator for what is not drawn from the seed's schedule.
func pick() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), 0)) }
