package pricer

import (
	"context"
	"reflect"
	"time"

	"sluice.example/sluice/pricing"
)

// Change replaces the priced models by models, which Check must have accepted. A model whose
// configuration is the same keeps its state, and no epoch is published for it. If a model's rates or
// policy differ, its multiplier continues from its present value. The leader publishes the rates of the
// new card at once. Another process takes over what the leader publishes, even if its own card says
// otherwise. A new model has the price that was last published for it, if that price follows from its
// card.
//
// The error is the store's. The models are changed even so, and the next turn publishes what this call
// could not.
func (p *Pricer) Change(ctx context.Context, models []Model) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	p.set(models)
	defer p.nudge() // because Run may have another interval now
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

// set makes models the priced models, and keeps what is known of models that were priced before.
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

// warn logs the settings of m that work but may disappoint.
func (p *Pricer) warn(m Model) {
	warnings, _ := m.Params.Validate() // Check has accepted the parameters
	for _, w := range warnings {
		p.log.Warn("pricing", "model", m.Name, "warning", w)
	}
}

// changed returns the model with the card and policy of cfg, at its present multiplier.
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

// orphan says whether a model has waited longer than leaderless for a first price. This happens if the
// leader runs with an older configuration, which lacks the model.
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
