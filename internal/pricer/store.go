package pricer

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/pricing"
)

// ErrNotLeader reports that another process leads the prices, or that this process has lost the lead.
var ErrNotLeader = errors.New("another process leads the prices")

// EpochsKept is how long a published price remains stored after the next price of its model came into
// force. Every rate lock is shorter, because a quote ends within a day.
const EpochsKept = 90 * 24 * time.Hour

// Store keeps the prices of one ledger for all processes that work on the ledger. It writes what it is
// given, and decides only which process leads. It is safe for concurrent use.
//
// Reads take no locks and see what is committed. Every write except ReportLoad is durable: after a nil
// error it survives a power failure. After an error other than ErrNotLeader the write may or may not
// have taken place.
type Store interface {
	// LatestEpochs returns the newest epoch of each model, by ascending id.
	LatestEpochs(ctx context.Context) ([]pricing.Epoch, error)
	// Epochs returns the epochs that the query selects, by ascending id. It returns at most q.Limit
	// epochs, which is above 0.
	Epochs(ctx context.Context, q pricing.EpochQuery) ([]pricing.Epoch, error)
	// Epoch returns one epoch. For an unknown id found is false and err is nil.
	Epoch(ctx context.Context, id int64) (e pricing.Epoch, found bool, err error)
	// PublishEpoch appends an epoch under the next id, and returns the epoch with that id. It then
	// notifies all watchers. Ids ascend over all models of the ledger, in the order of the commits and
	// without gaps.
	PublishEpoch(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error)

	// LeadPrices makes the caller the only leader of the ledger's prices. It fails with ErrNotLeader
	// while another process leads. A leader that dies or hangs loses the lead within seconds.
	LeadPrices(ctx context.Context) (Lead, error)

	// Overrides returns the multipliers that an operator fixed, by model.
	Overrides(ctx context.Context) (map[string]float64, error)
	// SetOverride fixes a model's multiplier, or lifts the override if the multiplier is 0. It then
	// notifies all watchers.
	SetOverride(ctx context.Context, model string, multiplier float64) error

	// ReportLoad replaces what a replica reported about each of the given models. It is not durable: a
	// crash of the store may lose all reports.
	ReportLoad(ctx context.Context, replica string, reports []Report) error
	// Loads returns the reports that are not older than maxAge by the store's clock, in no particular
	// order.
	Loads(ctx context.Context, maxAge time.Duration) ([]Report, error)

	// WatchPrices calls changed once it listens, and after each epoch or override that any process
	// published. Several changes may lead to one call. It returns when ctx ends, or when it can hear
	// nothing more.
	WatchPrices(ctx context.Context, changed func()) error

	// CleanPrices deletes at most limit reports that no process asks for any more, and at most limit
	// epochs that ended EpochsKept ago. It never deletes the newest epoch of a model. The id of a
	// deleted epoch is not given again. It returns how many rows it deleted. If a crash undoes the
	// deletion, no harm is done.
	CleanPrices(ctx context.Context, limit int) (int, error)
}

// Lead is the right to publish prices. At most one process at a time holds it. It is safe for
// concurrent use.
type Lead interface {
	// Publish appends an epoch as Store.PublishEpoch does. If the lead was lost, it fails with
	// ErrNotLeader and writes nothing, because the store checks the lead in the transaction of the
	// write. After another error the epoch may have been published. The caller then releases the lead,
	// and reads LatestEpochs before it publishes again.
	Publish(ctx context.Context, e pricing.Epoch) (pricing.Epoch, error)
	// Check fails with ErrNotLeader if the lead is lost. A lost lead remains lost.
	Check(ctx context.Context) error
	// Release gives the lead up at once. To release a lost lead is not an error.
	Release() error
}

// Report is what one replica reported about the requests of one model that came through it. The other
// replicas add it to what they see themselves.
type Report struct {
	Replica string // set by Loads
	Model   string
	Running float64   // requests at the backends
	Waiting float64   // requests in the replica's own queue
	Work    float64   // delivered since the replica started, in msat at the base rates
	At      time.Time // time of the report by the store's clock; set by Loads
}
