package pricer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sluice.example/sluice/pricing"
)

// Model is one model to be priced.
type Model struct {
	Name   string
	Base   pricing.Rates
	Params pricing.Params
	Shadow *pricing.Params // a second policy that decides without effect; nil means none
	Energy Energy          // zero means that there is no floor from energy
	Hook   Hook            // asked if the policy is PolicyHook
}

// Energy is what electricity costs.
type Energy struct {
	SatPerKWh float64
	Overhead  float64 // factor from the GPUs' joules to the joules on the bill, at least 1
}

// Config is everything that a Pricer needs. All fields except Moved, Log and Clock are required.
type Config struct {
	Models []Model
	Record *Record // where prices are published and loads are exchanged
	Board  *pricing.Board
	Load   func(model string, now time.Time) pricing.Load // returns the load of the model's pool
	// Work returns the work of the model that was delivered through this process since the process
	// started, in msat at the base rates. It is a counter.
	Work func(model string) float64
	// Moved is called for each price that comes into force in this process. It must not block. Nil
	// means that nobody is told.
	Moved   func(ctx context.Context, e pricing.Epoch)
	Replica string // names this process among the processes on the ledger
	Log     *slog.Logger
	Clock   func() time.Time
}

// Bounds on talking to the store. A slow store must not delay the prices of other models.
const (
	storeTimeout = 5 * time.Second
	// leaderless is how long a process waits for the leader to price a model. A leader that was started
	// with an older configuration does not know the model.
	leaderless = 3 * time.Second
	// slowest is the longest time between two looks at the store, even if every model has a longer
	// interval. The looks find overrides, and prices of which the store did not notify the process.
	slowest = 5 * time.Second
)

// Pricer keeps the prices of one process.
type Pricer struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	tick    time.Duration
	changed chan struct{} // signals that the store may have something new; capacity 1

	mu     sync.Mutex // guards all fields below, and tick
	models []*model
	byName map[string]*model
	lead   Lead // nil means that another process leads
	away   bool // the store did not answer last time
}

// New checks the configuration and returns a Pricer.
func New(cfg Config) (*Pricer, error) {
	p := &Pricer{cfg: cfg, log: cfg.Log, now: cfg.Clock, changed: make(chan struct{}, 1)}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.now == nil {
		p.now = time.Now
	}
	if err := p.Check(cfg.Models); err != nil {
		return nil, err
	}
	p.set(cfg.Models)
	return p, nil
}

// Check returns what is wrong with models that are to be priced.
func (p *Pricer) Check(models []Model) error {
	for _, m := range models {
		_, err := m.Params.Validate()
		if err == nil && m.Shadow != nil {
			_, err = m.Shadow.Validate()
		}
		if err != nil {
			return fmt.Errorf("price of model %q: %w", m.Name, err)
		}
	}
	return nil
}

// Open gives every model a price. It is the price last published, if that follows from the model's rate
// card, so that a restart changes nothing. Otherwise it is a new price. Only the leader publishes new
// prices. Another process waits for the leader as long as leaderless, and then publishes a model's very
// first price itself.
func (p *Pricer) Open(ctx context.Context) error {
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for until := time.Now().Add(leaderless); ; {
		missing, err := p.open(ctx, time.Now().After(until))
		if err != nil || !missing {
			return err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the first prices: %w", ctx.Err())
		}
	}
}

func (p *Pricer) open(ctx context.Context, alone bool) (missing bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.refresh(ctx); err != nil {
		return false, err
	}
	if err := p.takeLead(ctx); err != nil && !errors.Is(err, ErrNotLeader) {
		return false, err
	}
	for _, m := range p.models {
		switch {
		case p.lead != nil && !m.standing():
			err = p.publish(ctx, m, m.opening(), p.now())
		case alone && m.epoch.ID == 0:
			err = p.put(ctx, m, m.opening(), p.now(), p.cfg.Record.PublishEpoch)
		}
		if err != nil {
			return false, err
		}
		missing = missing || m.epoch.ID == 0
	}
	return missing, nil
}

// Run moves the prices until ctx ends. After that another process may lead.
func (p *Pricer) Run(ctx context.Context) {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { p.watch(ctx) })
	beside.Go(func() { p.keepClean(ctx) })
	defer p.resign()
	every := p.interval()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.step(ctx)
		case <-p.changed:
			p.hear(ctx)
		}
		if now := p.interval(); now != every { // the models have changed
			every = now
			tick.Reset(every)
		}
	}
}

// interval returns the time between two turns.
func (p *Pricer) interval() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tick
}

// watch listens for what other processes publish. If the store cannot be heard, step still polls the
// store.
func (p *Pricer) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.cfg.Record.WatchPrices(ctx, p.nudge)
		if err != nil && ctx.Err() == nil {
			p.log.Debug("prices are polled until the store can be heard again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// nudge makes Run look at the store.
func (p *Pricer) nudge() {
	select {
	case p.changed <- struct{}{}:
	default: // Run will look anyway
	}
}

// hear takes over what was published, and applies an override at once if it changed.
func (p *Pricer) hear(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	before := make([]float64, len(p.models))
	for i, m := range p.models {
		before[i] = m.fixed
	}
	if p.answered(p.refresh(ctx)) != nil {
		return
	}
	for i, m := range p.models {
		if m.fixed != before[i] {
			p.decide(ctx, m, m.last, p.now())
		}
	}
}

// Override fixes a model's multiplier for all processes at once, whatever the model's policy says. This
// is the kill switch. Zero lifts it. The error is pricing.ErrArgument if the model is not priced here,
// or the multiplier is impossible.
func (p *Pricer) Override(ctx context.Context, model string, multiplier float64) error {
	p.mu.Lock()
	known := p.byName[model] != nil
	p.mu.Unlock()
	if !known {
		return fmt.Errorf("there is no model %q: %w", model, pricing.ErrArgument)
	}
	if multiplier < 0 || multiplier > pricing.MaxMultiplier || multiplier != multiplier {
		return fmt.Errorf("a multiplier of %g cannot be: want more than 0, or 0 to lift it: %w", multiplier, pricing.ErrArgument)
	}
	if err := p.cfg.Record.SetOverride(ctx, model, multiplier); err != nil {
		return err
	}
	// Without cancel, so that the price has changed when the operator is told that it is done.
	p.hear(context.WithoutCancel(ctx))
	return nil
}
