package metering

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"sluice.example/sluice/pricing"
)

// ErrNotLeader says that another process leads the prices, or that this one does
// no more.
var ErrNotLeader = errors.New("another process leads the prices")

// EpochsKept is how long a published price stays on record after the next one of
// its model came into force. No rate lock lasts as long: a quote ends within a day.
const EpochsKept = 90 * 24 * time.Hour

// PriceStore is the part of a Store that spreads prices over all processes.
type PriceStore interface {
	// PublishEpoch appends a price epoch under the next id, durably, and tells
	// everybody who watches. Ids ascend over all models of the ledger.
	PublishEpoch(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error)
	// LeadPrices makes the caller the one leader of the ledger's prices, or fails
	// with ErrNotLeader.
	LeadPrices(ctx context.Context) (PriceLead, error)
	// SetOverride fixes a model's multiplier, durably, and tells everybody who
	// watches; 0 lifts it.
	SetOverride(ctx context.Context, model string, multiplier float64) error
	// ReportLoad replaces what a replica said about each of the models given.
	ReportLoad(ctx context.Context, replica string, loads []ModelLoad) error
}

// PriceReader is the part of a StoreReader about prices.
type PriceReader interface {
	// LatestEpochs returns the newest epoch of each model, by id.
	LatestEpochs(ctx context.Context) ([]pricing.Epoch, error)
	// Epochs returns the epochs that the query selects, by id.
	Epochs(ctx context.Context, q EpochQuery) ([]pricing.Epoch, error)
	// Epoch finds one epoch.
	Epoch(ctx context.Context, id int64) (e pricing.Epoch, found bool, err error)
	// Overrides returns the multipliers that are fixed, by model.
	Overrides(ctx context.Context) (map[string]float64, error)
	// Loads returns what replicas reported within maxAge.
	Loads(ctx context.Context, maxAge time.Duration) ([]ModelLoad, error)
	// WatchPrices calls changed once it listens, and after each epoch or override
	// that any process made known, until ctx ends or it hears nothing more.
	WatchPrices(ctx context.Context, changed func()) error
}

// PriceLead is the right to publish prices, held by at most one process at a
// time. Safe for concurrent use.
type PriceLead interface {
	// Publish appends a price as PublishEpoch does, and fails with ErrNotLeader,
	// writing nothing, when the lead was lost: the store decides, in the same
	// transaction. After any other error than ErrArgument the price may have been
	// published or not: release the lead, and look at LatestEpochs before publishing
	// anew.
	Publish(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error)
	// Check fails with ErrNotLeader when the lead is lost, which it stays.
	Check(ctx context.Context) error
	// Release gives the lead up, at once. Releasing what is lost is no error.
	Release() error
}

// ModelLoad is what one replica said about one model.
type ModelLoad struct {
	Replica string    `json:"replica"` // set by Loads
	Model   string    `json:"model"`
	Running float64   `json:"running"` // requests
	Waiting float64   `json:"waiting"`
	Work    float64   `json:"work"` // delivered since the replica started, in msat at base rates
	At      time.Time `json:"at"`   // of the report, by the store's clock; set by Loads
}

// EpochQuery selects epochs.
type EpochQuery struct {
	Model string    // "": all
	After int64     // only ids above
	Since time.Time // only those published since; zero: all
	Limit int       // 1..10,000; 0: 1000
}

// Bounds of one page of epochs.
const (
	defaultEpochs = 1000
	maxEpochs     = 10_000
)

// LatestEpochs returns the price in force of each model ever priced.
func (r *Reader) LatestEpochs(ctx context.Context) ([]pricing.Epoch, error) {
	e, err := r.store.LatestEpochs(ctx)
	return e, unavailable("read price epochs", err)
}

// Epochs returns published prices by ascending id. The next page is After the
// last id of this one.
func (r *Reader) Epochs(ctx context.Context, q EpochQuery) ([]pricing.Epoch, error) {
	if q.Limit <= 0 {
		q.Limit = defaultEpochs
	}
	q.Limit = min(q.Limit, maxEpochs)
	e, err := r.store.Epochs(ctx, q)
	return e, unavailable("read price epochs", err)
}

// Epoch finds one published price.
func (r *Reader) Epoch(ctx context.Context, id int64) (e pricing.Epoch, found bool, err error) {
	e, found, err = r.store.Epoch(ctx, id)
	return e, found, unavailable("read price epoch", err)
}

// Overrides returns the multipliers that an operator fixed, by model.
func (r *Reader) Overrides(ctx context.Context) (map[string]float64, error) {
	m, err := r.store.Overrides(ctx)
	return m, unavailable("read price overrides", err)
}

// Loads returns what each replica last reported of each model, as far as it is
// not older than maxAge.
func (r *Reader) Loads(ctx context.Context, maxAge time.Duration) ([]ModelLoad, error) {
	list, err := r.store.Loads(ctx, maxAge)
	return list, unavailable("read loads", err)
}

// WatchPrices calls changed when prices or overrides may have changed: once it
// listens, and after each that any process on this ledger publishes or sets. It
// returns when ctx ends, or with ErrUnavailable when the store can be heard no
// more; then watch again, and look now and then meanwhile. changed is called from
// this goroutine and should be brief; several changes may lead to one call. A
// SQLite file tells the process that serves it, no other.
func (r *Reader) WatchPrices(ctx context.Context, changed func()) error {
	err := r.store.WatchPrices(ctx, changed)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return unavailable("watch prices", err)
}

// PublishEpoch appends a price under the next id of this ledger, whoever leads.
// ErrArgument for a price that cannot be.
func (l *Ledger) PublishEpoch(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error) {
	if err := validEpoch(e); err != nil {
		return pricing.Epoch{}, err
	}
	e, err := l.store.PublishEpoch(ctx, e)
	return e, unavailable("publish price epoch", err)
}

func validEpoch(e pricing.Epoch) error {
	switch err := e.Rates.Validate(); {
	case err != nil:
		return fmt.Errorf("publish price epoch: %w: %w", ErrArgument, err)
	case !storable(e.Model, maxName) || !storable(e.BoundBy, maxName):
		return fmt.Errorf("publish price epoch: %w: model or bound is no text of at most %d bytes", ErrArgument, maxName)
	case !sane(e.Multiplier) || !sane(e.Signal):
		return fmt.Errorf("publish price epoch: %w: multiplier %v, signal %v", ErrArgument, e.Multiplier, e.Signal)
	}
	return nil
}

// sane: a finite number, not below 0.
func sane(v float64) bool { return v >= 0 && !math.IsInf(v, 0) }

// LeadPrices makes this process the one that publishes prices, or fails with
// ErrNotLeader while another does. Release the lead in the end. A process that
// dies or stands still loses it within seconds.
func (l *Ledger) LeadPrices(ctx context.Context) (PriceLead, error) {
	lead, err := l.store.LeadPrices(ctx)
	if err != nil {
		return nil, leading("lead prices", err)
	}
	return checkedLead{lead}, nil
}

// leading marks the failure of a leader.
func leading(what string, err error) error {
	if errors.Is(err, ErrNotLeader) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return unavailable(what, err)
}

// checkedLead keeps from the store what must not be published.
type checkedLead struct{ lead PriceLead }

func (c checkedLead) Publish(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error) {
	if err := validEpoch(e); err != nil {
		return pricing.Epoch{}, err
	}
	e, err := c.lead.Publish(ctx, e)
	return e, leading("publish price epoch", err)
}

func (c checkedLead) Check(ctx context.Context) error {
	return leading("check the lead of prices", c.lead.Check(ctx))
}

func (c checkedLead) Release() error { return c.lead.Release() }

// SetOverride fixes the multiplier of a model's price for all processes, until
// it is lifted with 0: the kill switch.
func (l *Ledger) SetOverride(ctx context.Context, model string, multiplier float64) error {
	if model == "" || !storable(model, maxName) || !sane(multiplier) {
		return fmt.Errorf("set price override: %w: a model and a multiplier of 0 or more are required", ErrArgument)
	}
	return unavailable("set price override", l.store.SetOverride(ctx, model, multiplier))
}

// ReportLoad tells the other processes what this one, named replica, has to do.
// What is reported is kept while the store runs, not for good.
func (l *Ledger) ReportLoad(ctx context.Context, replica string, loads []ModelLoad) error {
	if replica == "" || !storable(replica, maxName) {
		return fmt.Errorf("report load: %w: no name of a replica", ErrArgument)
	}
	seen := make(map[string]bool, len(loads))
	for _, m := range loads {
		if m.Model == "" || seen[m.Model] || !storable(m.Model, maxName) || !sane(m.Running) || !sane(m.Waiting) || !sane(m.Work) {
			return fmt.Errorf("report load: %w: of model %q: %v running, %v waiting, %v done", ErrArgument, m.Model, m.Running, m.Waiting, m.Work)
		}
		seen[m.Model] = true
	}
	if len(loads) == 0 {
		return nil
	}
	return unavailable("report load", l.store.ReportLoad(ctx, replica, loads))
}
