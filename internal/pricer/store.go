package pricer

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/pricing"
)

// ErrNotLeader reports that another process leads the prices, or that this
// process does so no longer.
var ErrNotLeader = errors.New("another process leads the prices")

// EpochsKept is how long a published price stays on record after the next price
// of its model came into force. Every rate lock is shorter, because a quote ends
// within a day.
const EpochsKept = 90 * 24 * time.Hour

// Store keeps the prices of one ledger for all processes that work on it. It
// writes what it is given and decides nothing but who leads. Safe for concurrent
// use.
//
// Reads take no locks and see what is committed. Every write but ReportLoad is
// durable: after a nil error it survives a power failure. After any other error
// than ErrNotLeader it is open whether a write took place.
type Store interface {
	// LatestEpochs returns the newest epoch of each model, by ascending id.
	LatestEpochs(ctx context.Context) ([]pricing.Epoch, error)
	// Epochs returns the epochs that the query selects, by ascending id, at most
	// q.Limit of them, which is above 0.
	Epochs(ctx context.Context, q pricing.EpochQuery) ([]pricing.Epoch, error)
	// Epoch finds one epoch. An unknown id is not found, without an error.
	Epoch(ctx context.Context, id int64) (e pricing.Epoch, found bool, err error)
	// PublishEpoch appends an epoch under the next id, and returns it with that id.
	// Then it tells all watchers. Ids ascend over all models of the ledger, in the
	// order of the commits and without gaps.
	PublishEpoch(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error)

	// LeadPrices makes the caller the only leader of the ledger's prices, or fails
	// with ErrNotLeader while another process leads. A leader that dies or stands
	// still loses the lead within seconds.
	LeadPrices(ctx context.Context) (Lead, error)

	// Overrides returns the multipliers that an operator fixed, by model.
	Overrides(ctx context.Context) (map[string]float64, error)
	// SetOverride fixes a model's multiplier, or lifts it with 0. Then it tells all
	// watchers.
	SetOverride(ctx context.Context, model string, multiplier float64) error

	// ReportLoad replaces what a replica said about each of the models given. It is
	// not durable: a crash of the store may lose all reports.
	ReportLoad(ctx context.Context, replica string, reports []Report) error
	// Loads returns the reports that are not older than maxAge by the store's
	// clock, in no particular order.
	Loads(ctx context.Context, maxAge time.Duration) ([]Report, error)

	// WatchPrices calls changed once it listens, and after each epoch or override
	// that any process made known; several changes may lead to one call. It returns
	// when ctx ends, or when it can hear nothing more.
	WatchPrices(ctx context.Context, changed func()) error

	// CleanPrices deletes at most limit each of the reports that nobody asks for any
	// more and of the epochs that ended EpochsKept ago. The newest epoch of a model
	// stays for good, and the id of a deleted one is not given again. It returns how
	// many rows went; losing the deletion in a crash does no harm.
	CleanPrices(ctx context.Context, limit int) (int, error)
}

// Lead is the right to publish prices, held by at most one process at a time.
// Safe for concurrent use.
type Lead interface {
	// Publish appends an epoch as Store.PublishEpoch does. When the lead was lost it
	// fails with ErrNotLeader and writes nothing: the store looks at the lead in the
	// transaction of the write. After another error the epoch may have been
	// published: release the lead, and look at LatestEpochs before publishing anew.
	Publish(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error)
	// Check fails with ErrNotLeader when the lead is lost, which it stays.
	Check(ctx context.Context) error
	// Release gives the lead up at once. Releasing a lost lead is no error.
	Release() error
}

// Report is what one replica said about the requests of one model that came
// through it. The other replicas add it to what they see themselves.
type Report struct {
	Replica string // set by Loads
	Model   string
	Running float64   // requests at the backends
	Waiting float64   // requests in the replica's own queue
	Work    float64   // delivered since the replica started, in msat at base rates
	At      time.Time // of the report, by the store's clock; set by Loads
}
