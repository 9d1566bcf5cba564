package metering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"sluice.example/sluice/l402"
)

// Config configures a ledger. A duration or size of 0 takes the default that its comment begins with.
type Config struct {
	Store Store // required; the caller closes the store after the ledger

	Lease      time.Duration // 15 s: others sweep the holds of a ledger that shows no life for so long
	RenewEvery time.Duration // a third of Lease: how often this ledger sends a heartbeat
	SweepEvery time.Duration // a fifth of Lease: how often this ledger looks whether other owners are alive
	LateSettle time.Duration // 1 h: how long an owner may replace what a sweep charged

	MaxBatch   int           // 128: most operations in one transaction
	QueueLimit int           // 8192: most waiting operations; further reservations are refused with ErrBusy
	Patience   time.Duration // 3 s: how long reservations and presentations wait for a store that does not answer

	MaxBudgetsPerAccount int           // 10,000: most live budgets that one account itself delegates
	MaxBudgetsPerBudget  int           // 1,000: most live budgets that are delegated from one budget
	ConfirmWithin        time.Duration // 10 min: a presented deposit not reported settled by then raises an alarm
	AuditEvery           time.Duration // 10 min: how often one of all processes audits what is new; <0: never
	AuditPause           float64       // 4: rest of an audit after each snapshot, as a multiple of the snapshot's time
	AuditSubjects        int           // 200,000: accounts, budgets and payments that such an audit keeps in memory
	SealMonths           bool          // close each month once it is over, see Seal
	KnownDeposits        int           // 262,144: payments remembered as presented, and as many as settled

	// Now is the clock that judges whether other owners are alive; nil: time.Now. Only its monotonic reading counts, so
	// that a step of the wall clock ends no owner.
	Now func() time.Time

	Log *slog.Logger // nil: the ledger logs nothing
}

// confirmWithin is the default of Config.ConfirmWithin. AuditWith always uses confirmWithin, and not the Config.
const confirmWithin = 10 * time.Minute

func (c Config) withDefaults() Config {
	c.Lease = orDefault(c.Lease, 15*time.Second)
	c.RenewEvery = orDefault(c.RenewEvery, c.Lease/3)
	c.SweepEvery = orDefault(c.SweepEvery, c.Lease/5)
	c.LateSettle = orDefault(c.LateSettle, time.Hour)
	c.MaxBatch = orDefault(c.MaxBatch, 128)
	c.QueueLimit = orDefault(c.QueueLimit, 8192)
	c.Patience = orDefault(c.Patience, 3*time.Second)
	c.MaxBudgetsPerAccount = orDefault(c.MaxBudgetsPerAccount, 10_000)
	c.MaxBudgetsPerBudget = orDefault(c.MaxBudgetsPerBudget, 1_000)
	c.ConfirmWithin = orDefault(c.ConfirmWithin, confirmWithin)
	if c.AuditEvery == 0 {
		c.AuditEvery = 10 * time.Minute
	}
	c.AuditSubjects = orDefault(c.AuditSubjects, 200_000)
	if c.AuditPause <= 0 {
		c.AuditPause = 4
	}
	c.KnownDeposits = orDefault(c.KnownDeposits, 262_144)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T int | time.Duration](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

// Ledger keeps accounts on a Store. Safe for concurrent use.
type Ledger struct {
	*Reader
	cfg    Config
	store  Store
	log    *slog.Logger
	queue  *queue
	writer *writer
	known  *knownDeposits // payments that clients presented
	paid   *knownDeposits // payments that the Lightning node reported as settled
	watch  *observer
	// generation is the store's generation at which this process learnt known and paid.
	generation atomic.Uint64
	stats      counters

	mu      sync.Mutex
	open    map[HoldID]*Hold // holds of this process that have not ended
	owner   OwnerID          // the owner of new holds
	beaten  int64            // the owner's heartbeat counter, as last stored
	looked  [32]byte         // the budget from which the search for expired budgets continues
	strayed time.Time        // when sweepStrays last looked for strays
	strays  map[HoldID]bool  // holds under this owner that belonged to no request at that look

	stop   context.CancelFunc // ends the background loops
	kill   context.CancelFunc // ends the writer
	loops  sync.WaitGroup
	writes chan struct{} // closed when the writer has ended
}

// Open reads the ledger's identity from the store, and starts the writer and the loops for heartbeats, sweeps, removals
// and audits. ctx bounds only the opening. Any number of processes may work on one store, if the store allows several
// processes.
func Open(ctx context.Context, cfg Config) (*Ledger, error) {
	cfg = cfg.withDefaults()
	if cfg.Store == nil {
		return nil, fmt.Errorf("open ledger: %w: no store", ErrArgument)
	}
	if cfg.RenewEvery >= cfg.Lease {
		return nil, fmt.Errorf("open ledger: %w: holds renewed every %s would outlive a lease of %s",
			ErrArgument, cfg.RenewEvery, cfg.Lease)
	}
	reader, err := NewReader(ctx, cfg.Store)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{Reader: reader, cfg: cfg, store: cfg.Store, log: cfg.Log, queue: newQueue(cfg.QueueLimit),
		known: newKnownDeposits(cfg.KnownDeposits), paid: newKnownDeposits(cfg.KnownDeposits),
		watch: newObserver(cfg.Lease), open: make(map[HoldID]*Hold), owner: newOwnerID(), writes: make(chan struct{})}
	l.writer = &writer{ledger: l, parked: make(map[l402.TokenID]*parking)}
	l.generation.Store(cfg.Store.Generation())
	// The owner must be in the store before it makes a hold.
	if err := l.Renew(ctx); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}

	var writing, looping context.Context
	writing, l.kill = context.WithCancel(context.WithoutCancel(ctx))
	looping, l.stop = context.WithCancel(writing)
	go func() {
		defer close(l.writes)
		l.writer.run(writing)
	}()
	l.loops.Go(func() { l.writer.watchLoop(looping) })
	l.loops.Go(func() { l.beatLoop(looping) })
	l.loops.Go(func() { l.sweepLoop(looping) })
	l.loops.Go(func() { l.tidyLoop(looping) })
	l.loops.Go(func() { l.auditLoop(looping) })
	return l, nil
}

// Close refuses new operations, finishes the queued operations and stops. When ctx ends first, Close stops at once, as
// a crash would: queued operations fail with ErrClosed, and a sweep ends the open holds after their lease. The caller
// should settle all holds before. Close does not close the store.
func (l *Ledger) Close(ctx context.Context) error {
	l.stop()
	l.queue.close()
	var err error
	select {
	case <-l.writes:
	case <-ctx.Done():
		err = fmt.Errorf("close ledger: %w", ctx.Err())
	}
	l.kill()
	<-l.writes
	l.loops.Wait()
	if err == nil {
		err = l.retire(ctx)
	}
	return err
}

// rules returns what decisions depend on besides the rows, as of now.
func (l *Ledger) rules() rules {
	l.mu.Lock()
	defer l.mu.Unlock()
	return rules{owner: l.owner, lateSettle: l.cfg.LateSettle,
		maxBudgets: int64(l.cfg.MaxBudgetsPerAccount), maxChildren: int64(l.cfg.MaxBudgetsPerBudget)}
}

// Ready fails when the store does not answer.
func (l *Ledger) Ready(ctx context.Context) error {
	if l.writer.failing() {
		return fmt.Errorf("ledger: %w", ErrUnavailable)
	}
	if err := l.store.Ping(ctx); err != nil {
		return fmt.Errorf("ledger: %w: %w", ErrUnavailable, err)
	}
	return nil
}

// BindKeys records the fingerprints of master keys in the store. The first call for a database records all of them.
// Later calls return ErrForeignKeys unless the database knows at least one of the fingerprints, and record the new
// ones.
func (l *Ledger) BindKeys(ctx context.Context, fingerprints [][32]byte) error {
	err := l.store.Fingerprints(ctx, func(known [][32]byte) (add [][32]byte, err error) {
		for _, f := range fingerprints {
			if !slices.Contains(known, f) && !slices.Contains(add, f) {
				add = append(add, f)
			}
		}
		if len(known) > 0 && len(add) == len(fingerprints) {
			return nil, ErrForeignKeys
		}
		return add, nil
	})
	if errors.Is(err, ErrForeignKeys) {
		return fmt.Errorf("bind keys: %w", err)
	}
	return unavailable("bind keys", err)
}

// Reserve makes a hold of r.Amount on the account and on every budget of the chain. If r.Lock covers the amount that
// the lock states, Reserve makes the hold with the lock's amount and rates instead. Hold.Locked returns which. Reserve
// refuses with *InsufficientError, ErrFrozen, *RateLimitedError, *DuplicateError, ErrTooManyBudgets, ErrForeignDeposit,
// ErrBusy or ErrUnavailable. Reserve credits r.Deposit first, and the deposit remains credited even if the hold is
// refused (except with ErrBusy and ErrUnavailable). When ctx ends first, the ledger releases by itself a hold that was
// made all the same.
func (l *Ledger) Reserve(ctx context.Context, r Reservation) (*Hold, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	fresh := r.ID == HoldID{}
	if fresh {
		r.ID = NewHoldID()
	}
	op, err := l.reserve(ctx, r, fresh)
	if err != nil {
		var dup *DuplicateError
		if errors.As(err, &dup) && dup.State == DuplicateCharged {
			return nil, l.firstCharge(ctx, dup, op.first)
		}
		return nil, err
	}
	h := &Hold{ledger: l, id: r.ID, who: r.Account, made: op.made, amount: op.made.amount, available: op.available, source: SourceNone}
	l.mu.Lock()
	l.open[r.ID] = h
	l.mu.Unlock()
	return h, nil
}

// reserve leaves out a deposit that this process remembers as presented. The database may have forgotten the payment,
// but macaroon and preimage still prove it. So reserve presents the deposit after all when the account lacks money, or
// when the database failed over meanwhile.
func (l *Ledger) reserve(ctx context.Context, r Reservation, fresh bool) (*reserveOp, error) {
	known, generation := r.Deposit != nil && l.knows(*r.Deposit), l.store.Generation()
	op := newReserveOp(r, fresh, !known)
	err := l.do(ctx, "reserve", op, false)
	var short *InsufficientError
	switch {
	case known && errors.As(err, &short):
		op = newReserveOp(r, fresh, true)
		err = l.do(ctx, "reserve", op, false)
	case known && l.store.Generation() != generation:
		if lost := l.do(ctx, "deposit", &depositOp{d: *r.Deposit}, false); lost != nil && err == nil {
			l.releaseUnowned(op)
			err = lost
		}
	}
	return op, err
}

func newReserveOp(r Reservation, fresh, present bool) *reserveOp {
	if !present {
		r.Deposit = nil
	}
	op := &reserveOp{r: &r, fresh: fresh, own: termsOf(contextOf(&r), r.Amount)}
	if r.Lock != nil {
		op.locked = termsOf(lockedContextOf(&r), r.Lock.Amount)
	}
	return op
}

// firstCharge adds the charge of the first request to a duplicate's error.
func (l *Ledger) firstCharge(ctx context.Context, dup *DuplicateError, hold HoldID) error {
	c, found, err := l.store.Charge(ctx, hold)
	if err != nil {
		return fmt.Errorf("reserve: read the first charge: %w: %w", ErrUnavailable, err)
	}
	if found {
		e := c.Entry()
		dup.Entry = &e
	}
	return dup
}

// maxName is the most bytes of a name that is stored with each charge.
const maxName = 256

// storable reports whether a text has at most most bytes and every store can keep it. PostgreSQL keeps only valid UTF-8
// without NUL.
func storable(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

func (r *Reservation) validate() error {
	switch {
	case r.Account == (l402.TokenID{}):
		return fmt.Errorf("%w: no account", ErrArgument)
	case !r.Amount.Valid():
		return fmt.Errorf("hold of %s: %w", r.Amount, ErrAmount)
	case !storable(r.Service, maxName) || !storable(r.Model, maxName):
		return fmt.Errorf("%w: service or model name is no text of at most %d bytes", ErrArgument, maxName)
	case r.Epoch < 0 || r.Prompt < 0:
		return fmt.Errorf("%w: negative epoch or prompt", ErrArgument)
	case r.Deposit != nil && r.Deposit.Account != r.Account:
		return fmt.Errorf("%w: deposit for another account", ErrArgument)
	}
	for i := range r.Budgets {
		if !r.Budgets[i].Limit.Valid() {
			return fmt.Errorf("delegated budget of %s: %w", r.Budgets[i].Limit, ErrAmount)
		}
	}
	if err := r.Rates.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrArgument, err)
	}
	if r.Lock != nil {
		return r.Lock.validate()
	}
	return nil
}

func (l *RateLock) validate() error {
	switch err := l.Rates.Validate(); {
	case err != nil:
		return fmt.Errorf("locked rates: %w: %w", ErrArgument, err)
	case l.Hash == (l402.PaymentHash{}) || l.Epoch < 0:
		return fmt.Errorf("locked rates: %w: no payment, or a negative epoch", ErrArgument)
	case !l.Amount.Valid() || !l.Limit.Valid():
		return fmt.Errorf("locked rates for %s of %s: %w", l.Amount, l.Limit, ErrAmount)
	}
	return nil
}

func termsOf(c *holdContext, amount l402.Msat) terms {
	return terms{amount: amount, ctx: c, context: appendContext(make([]byte, 0, 96), c)}
}

func contextOf(r *Reservation) *holdContext {
	return &holdContext{budgets: r.Budgets, chain: r.Chain, service: r.Service, model: r.Model,
		epoch: r.Epoch, rates: r.Rates, prompt: r.Prompt, idempotency: r.Idempotency}
}

// lockedContextOf returns the context of a hold made under r.Lock.
func lockedContextOf(r *Reservation) *holdContext {
	c := contextOf(r)
	c.epoch, c.rates, c.lock = r.Lock.Epoch, r.Lock.Rates, r.Lock.Hash
	return c
}
