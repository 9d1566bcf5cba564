package pricer

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"sluice.example/sluice/pricing"
)

// Bounds of a Record.
const (
	defaultEpochs = 1000   // in one page of Epochs, if the query sets no limit
	maxEpochs     = 10_000 // in one page of Epochs, at most
	maxName       = 256    // of models, replicas and bounds, in bytes
)

// Record is the stored prices. It wraps a Store and refuses what must not be written. The methods have
// the Store's guarantees. Their errors name the operation, and are pricing.ErrArgument if the value was
// refused. A Record is safe for concurrent use.
type Record struct{ store Store }

// NewRecord returns a Record that checks what is written to s. The caller closes s.
func NewRecord(s Store) *Record { return &Record{s} }

// LatestEpochs returns the price in force of each model that was ever priced.
func (r *Record) LatestEpochs(ctx context.Context) ([]pricing.Epoch, error) {
	e, err := r.store.LatestEpochs(ctx)
	return e, named("read price epochs", err)
}

// Epochs returns published prices by ascending id. To read the next page, the caller sets After to the
// last id of this page. A limit of 0 means 1,000. The limit is at most 10,000.
func (r *Record) Epochs(ctx context.Context, q pricing.EpochQuery) ([]pricing.Epoch, error) {
	if q.Limit <= 0 {
		q.Limit = defaultEpochs
	}
	q.Limit = min(q.Limit, maxEpochs)
	e, err := r.store.Epochs(ctx, q)
	return e, named("read price epochs", err)
}

// Epoch returns one published price. found is false if there is no price with this id.
func (r *Record) Epoch(ctx context.Context, id int64) (e pricing.Epoch, found bool, err error) {
	e, found, err = r.store.Epoch(ctx, id)
	return e, found, named("read price epoch", err)
}

// PublishEpoch appends a price under the next id of this ledger, whichever process leads.
func (r *Record) PublishEpoch(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error) {
	if err := validEpoch(e); err != nil {
		return pricing.Epoch{}, err
	}
	e, err := r.store.PublishEpoch(ctx, e)
	return e, named("publish price epoch", err)
}

// LeadPrices makes this process the only process that publishes prices. It fails with ErrNotLeader
// while another process leads. The caller must release the lead in the end.
func (r *Record) LeadPrices(ctx context.Context) (Lead, error) {
	lead, err := r.store.LeadPrices(ctx)
	if err != nil {
		return nil, named("lead prices", err)
	}
	return checkedLead{lead}, nil
}

// Overrides returns the multipliers that an operator fixed, by model.
func (r *Record) Overrides(ctx context.Context) (map[string]float64, error) {
	m, err := r.store.Overrides(ctx)
	return m, named("read price overrides", err)
}

// SetOverride fixes the multiplier of a model's price for all processes, until 0 lifts it. This is the
// kill switch.
func (r *Record) SetOverride(ctx context.Context, model string, multiplier float64) error {
	if model == "" || !storable(model) || !sane(multiplier) {
		return fmt.Errorf("set price override: %w: a model and a multiplier of 0 or more are required", pricing.ErrArgument)
	}
	return named("set price override", r.store.SetOverride(ctx, model, multiplier))
}

// ReportLoad tells the other processes the load of this process, whose name is replica. Each model must
// be reported at most once.
func (r *Record) ReportLoad(ctx context.Context, replica string, reports []Report) error {
	if replica == "" || !storable(replica) {
		return fmt.Errorf("report load: %w: the replica has no name", pricing.ErrArgument)
	}
	seen := make(map[string]bool, len(reports))
	for _, m := range reports {
		if m.Model == "" || seen[m.Model] || !storable(m.Model) || !sane(m.Running) || !sane(m.Waiting) || !sane(m.Work) {
			return fmt.Errorf("report load: %w: model %q has %v running, %v waiting, %v done", pricing.ErrArgument, m.Model, m.Running, m.Waiting, m.Work)
		}
		seen[m.Model] = true
	}
	if len(reports) == 0 {
		return nil
	}
	return named("report load", r.store.ReportLoad(ctx, replica, reports))
}

// Loads returns what each replica last reported of each model, without reports older than maxAge.
func (r *Record) Loads(ctx context.Context, maxAge time.Duration) ([]Report, error) {
	list, err := r.store.Loads(ctx, maxAge)
	return list, named("read loads", err)
}

// WatchPrices calls changed when prices or overrides may have changed. It calls changed on this
// goroutine, so changed should be brief. WatchPrices returns ctx's error when ctx ends, and another
// error when the connection to the store is lost. In the latter case the caller calls WatchPrices
// again, and polls the prices meanwhile. A SQLite file notifies only the process that serves it.
func (r *Record) WatchPrices(ctx context.Context, changed func()) error {
	err := r.store.WatchPrices(ctx, changed)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return named("watch prices", err)
}

// CleanPrices deletes at most limit old reports and at most limit old epochs. It returns how many rows
// it deleted.
func (r *Record) CleanPrices(ctx context.Context, limit int) (int, error) {
	n, err := r.store.CleanPrices(ctx, limit)
	return n, named("remove old prices", err)
}

// checkedLead refuses epochs that must not be published.
type checkedLead struct{ lead Lead }

func (c checkedLead) Publish(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error) {
	if err := validEpoch(e); err != nil {
		return pricing.Epoch{}, err
	}
	e, err := c.lead.Publish(ctx, e)
	return e, named("publish price epoch", err)
}

func (c checkedLead) Check(ctx context.Context) error {
	return named("check the lead of prices", c.lead.Check(ctx))
}

func (c checkedLead) Release() error { return c.lead.Release() }

func validEpoch(e pricing.Epoch) error {
	var why error
	switch err := e.Rates.Validate(); {
	case err != nil:
		why = err
	case !storable(e.Model) || !storable(e.BoundBy):
		why = fmt.Errorf("model or bound is no text of at most %d bytes", maxName)
	case !sane(e.Multiplier) || !sane(e.Signal):
		why = fmt.Errorf("multiplier %v, signal %v", e.Multiplier, e.Signal)
	default:
		return nil
	}
	return fmt.Errorf("publish price epoch: %w: %w", pricing.ErrArgument, why)
}

// storable says whether every store can keep a name. PostgreSQL takes only valid UTF-8 without NUL.
func storable(s string) bool {
	return len(s) <= maxName && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// sane says whether v is finite and not below 0.
func sane(v float64) bool { return v >= 0 && !math.IsInf(v, 0) }

// named returns err with the name of the operation that failed, or nil if err is nil.
func named(operation string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", operation, err)
}
