package pricer

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/pricing"
)

// step is one turn: it takes the lead if no process leads, exchanges loads, and moves the prices.
func (p *Pricer) step(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := p.keepLead(ctx)
	if err == nil && p.lead == nil {
		err = p.refresh(ctx)
	}
	now := p.now()
	if err == nil {
		err = p.adopt(ctx, now)
	}
	loads := p.measure(now)
	others, exchanged := p.exchange(ctx, loads)
	_ = p.answered(errors.Join(err, exchanged)) // answered logs the error; prices then follow what this process sees
	for _, m := range p.models {
		if now.Before(m.next) {
			continue
		}
		// The half tick is subtracted so that a tick that comes early does not delay the turn by a tick.
		m.next = now.Add(m.cfg.Params.Interval - p.tick/2)
		p.decide(ctx, m, m.observe(now, loads[m.cfg.Name], others), now)
	}
}

// measured is what this process knows of a model at one turn.
type measured struct {
	pricing.Load
	work float64 // see Config.Work
}

// measure reads the load of every pool.
func (p *Pricer) measure(now time.Time) map[string]measured {
	loads := make(map[string]measured, len(p.models))
	for _, m := range p.models {
		loads[m.cfg.Name] = measured{p.cfg.Load(m.cfg.Name, now), p.cfg.Work(m.cfg.Name)}
	}
	return loads
}

// exchange tells the other processes the requests of this process, and returns theirs.
func (p *Pricer) exchange(ctx context.Context, loads map[string]measured) ([]Report, error) {
	own := make([]Report, 0, len(loads))
	for _, m := range p.models {
		l := loads[m.cfg.Name]
		own = append(own, Report{Model: m.cfg.Name, Running: max(l.InFlight, 0), Waiting: l.Queued, Work: l.work})
	}
	if err := p.cfg.Record.ReportLoad(ctx, p.cfg.Replica, own); err != nil {
		return nil, err
	}
	all, err := p.cfg.Record.Loads(ctx, 3*p.tick+time.Second)
	others := all[:0]
	for _, l := range all {
		if l.Replica != p.cfg.Replica {
			others = append(others, l)
		}
	}
	return others, err
}

// decide moves one model's price if this process leads. Otherwise it only observes. at is the time of
// the decision and of the price. It is later than the observation if an operator sets an override
// between two turns, and it is set even if nothing was observed yet.
func (p *Pricer) decide(ctx context.Context, m *model, o pricing.Observation, at time.Time) {
	m.last = o
	o.Fixed = m.fixed
	if m.shadow != nil {
		m.shadowed = m.shadow.Step(o)
	}
	observed := o
	o.At = at // the board shows this time
	if p.lead == nil {
		m.control.Observe(observed)
		m.show(p.cfg.Board, pricing.Decision{Signal: m.control.State().Smoothed, BoundBy: m.epoch.BoundBy, Multiplier: m.epoch.Multiplier}, o, false)
		return
	}
	d := m.control.Step(observed)
	if m.differs(d) {
		if err := p.answered(p.publish(ctx, m, d, at)); err != nil {
			m.control.Follow(m.epoch.Multiplier, m.epoch.At) // so that the next step begins at the price in force
			return
		}
	}
	m.show(p.cfg.Board, d, o, true)
}

// publish appends an epoch and puts it in force here. If the publication fails, the leader cannot tell
// whether the store has the epoch, so it gives the lead up and reads the store later.
func (p *Pricer) publish(ctx context.Context, m *model, d pricing.Decision, at time.Time) error {
	err := p.put(ctx, m, d, at, p.lead.Publish)
	if err != nil {
		p.release()
	}
	return err
}

// put publishes a decision with the time at which the decision was made. The next leader steps an
// interval after that time, however long the store took.
func (p *Pricer) put(ctx context.Context, m *model, d pricing.Decision, at time.Time, publish func(context.Context, pricing.Epoch) (pricing.Epoch, error)) error {
	e, err := publish(ctx, pricing.Epoch{Model: m.cfg.Name, Rates: m.cfg.Base.Scale(d.Multiplier),
		Multiplier: d.Multiplier, Signal: d.Signal, BoundBy: d.BoundBy, At: at})
	if err != nil {
		return err
	}
	m.epoch = e
	p.inForce(ctx, e)
	return nil
}

// inForce puts a price on the board.
func (p *Pricer) inForce(ctx context.Context, e pricing.Epoch) {
	if p.cfg.Board.Set(e) && p.cfg.Moved != nil {
		p.cfg.Moved(ctx, e)
	}
}

// refresh takes over the published prices and the overrides.
func (p *Pricer) refresh(ctx context.Context) error {
	latest, err := p.cfg.Record.LatestEpochs(ctx)
	if err != nil {
		return err
	}
	fixed, err := p.cfg.Record.Overrides(ctx)
	if err != nil {
		return err
	}
	for _, e := range latest {
		if m := p.byName[e.Model]; m != nil && e.ID > m.epoch.ID {
			m.follow(e)
			p.inForce(ctx, e)
		}
	}
	for _, m := range p.models {
		m.fixed = fixed[m.cfg.Name]
	}
	return nil
}

// keepLead checks that this process still leads, or tries to get the lead.
func (p *Pricer) keepLead(ctx context.Context) error {
	if p.lead != nil {
		err := p.lead.Check(ctx)
		if err == nil {
			return nil
		}
		p.release()
		if !errors.Is(err, ErrNotLeader) {
			return err
		}
	}
	if err := p.takeLead(ctx); err != nil && !errors.Is(err, ErrNotLeader) {
		return err
	}
	return nil
}

// takeLead makes this process the leader, and reads what the leader before published.
func (p *Pricer) takeLead(ctx context.Context) error {
	if p.lead != nil {
		return nil
	}
	lead, err := p.cfg.Record.LeadPrices(ctx)
	if err != nil {
		return err
	}
	p.lead = lead
	if err := p.refresh(ctx); err != nil {
		p.release()
		return err
	}
	p.log.Info("this process leads the prices", "replica", p.cfg.Replica)
	return nil
}

func (p *Pricer) release() {
	if p.lead != nil {
		_ = p.lead.Release() // the lead is gone in any case
		p.lead = nil
		p.log.Info("this process leads the prices no more", "replica", p.cfg.Replica)
	}
}

// resign gives the lead up, so that another process can lead.
func (p *Pricer) resign() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release()
}

// answered logs once when the store stops answering, and once when it answers again. It returns err.
func (p *Pricer) answered(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrNotLeader) {
		return err
	}
	if away := err != nil; away != p.away {
		p.away = away
		if away {
			p.log.Warn("prices stand still: the store does not answer", "error", err)
		} else {
			p.log.Info("prices move again")
		}
	}
	return err
}
