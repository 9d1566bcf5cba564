package pricer

import (
	"context"
	"reflect"
	"time"

	"sluice.example/sluice/pricing"
)

// Change puts other models in place of those that are priced, which Check has found to
// be right. A model that is the same goes on as if nothing had happened: no epoch is
// published for it. Where rates or policy differ, prices go on from where they stand:
// the leader publishes the rates of the new card at once; another process takes over
// what the leader publishes, whatever its own card says. A model that comes has the
// price that was last published for it, as far as that follows from its card.
//
// The error is the store's: the models are changed all the same, and the next turn
// publishes what this one could not.
func (p *Pricer) Change(ctx context.Context, models []Model) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	p.set(models)
	defer p.nudge() // Run has perhaps another interval to keep
	if err := p.answered(p.refresh(ctx)); err != nil {
		return err
	}
	if p.lead == nil {
		return nil
	}
	for _, m := range p.models {
		if m.standing() {
			continue
		}
		if err := p.answered(p.publish(ctx, m, m.opening(), p.now())); err != nil {
			return err
		}
	}
	return nil
}

// set makes the models those that are priced, and keeps what is known of them.
func (p *Pricer) set(models []Model) {
	before := p.byName
	p.models, p.byName, p.tick = nil, map[string]*model{}, slowest
	for _, cfg := range models {
		p.tick = min(p.tick, cfg.Params.Interval)
		m := before[cfg.Name]
		switch {
		case m == nil:
			m = newModel(cfg)
			m.since = p.now()
			p.warn(cfg)
		case !reflect.DeepEqual(m.cfg, cfg):
			m = m.changed(cfg)
			p.warn(cfg)
		}
		p.models = append(p.models, m)
		p.byName[cfg.Name] = m
	}
}

// warn says what works and may disappoint.
func (p *Pricer) warn(m Model) {
	warnings, _ := m.Params.Validate() // Check has seen that it is right
	for _, w := range warnings {
		p.log.Warn("pricing", "model", m.Name, "warning", w)
	}
}

// changed is the model with another card or policy, at the price where it stands.
func (m *model) changed(cfg Model) *model {
	next := newModel(cfg)
	next.control = pricing.NewController(cfg.Params, m.control.State())
	if next.shadow != nil && m.shadow != nil {
		next.shadow = pricing.NewController(*cfg.Shadow, m.shadow.State())
	}
	next.epoch, next.fixed, next.last, next.since = m.epoch, m.fixed, m.last, m.since
	next.energy, next.joules, next.work = m.energy, m.joules, m.work
	return next
}

// orphan says whether a model has waited in vain for a first price: a leader that runs
// with an older configuration does not know it.
func (m *model) orphan(now time.Time) bool {
	return m.epoch.ID == 0 && now.Sub(m.since) > leaderless
}

// adopt publishes the first prices of models that the leader does not know.
func (p *Pricer) adopt(ctx context.Context, now time.Time) error {
	for _, m := range p.models {
		if p.lead != nil || !m.orphan(now) {
			continue
		}
		if err := p.put(ctx, m, m.opening(), now, p.cfg.Record.PublishEpoch); err != nil {
			return err
		}
	}
	return nil
}
