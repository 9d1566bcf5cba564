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

// Config configures a ledger. Zero durations and sizes take the defaults named.
type Config struct {
	Store Store // required; the caller closes it after the ledger

	Lease      time.Duration // 15 s: the holds of a ledger that shows no life for so long are swept
	RenewEvery time.Duration // a third of Lease: how often this ledger shows that it lives
	SweepEvery time.Duration // a fifth of Lease: how often it looks whether others do
	LateSettle time.Duration // 1 h: how long an owner may replace what a sweep charged

	MaxBatch   int           // 128 operations in one transaction
	QueueLimit int           // 8192 waiting operations; more reservations are refused with ErrBusy
	Patience   time.Duration // 3 s: how long reservations and presentations wait for a store that does not answer

	MaxBudgetsPerAccount int           // 10,000 live budgets delegated by one account itself
	MaxBudgetsPerBudget  int           // 1,000 live budgets delegated on from one budget
	ConfirmWithin        time.Duration // 10 min: a presented deposit not seen settled by then is alarmed
	AuditEvery           time.Duration // 10 min: how often what is new is audited, by one of all processes; below 0: never
	AuditPause           float64       // 4: rest of an audit after each look, as a multiple of what the look took
	AuditSubjects        int           // 200,000 accounts, budgets and payments that such an audit keeps in memory
	SealMonths           bool          // close each month once it is over, see Seal
	KnownDeposits        int           // 65,536 payment hashes remembered as credited

	// Now is the clock by which others' lives are judged; nil: time.Now. Its monotonic
	// reading counts, so that a step of the wall clock judges nobody.
	Now func() time.Time

	Log *slog.Logger // nil: none
}

// confirmWithin is when a payment that the Lightning node did not report becomes
// suspicious.
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
	c.KnownDeposits = orDefault(c.KnownDeposits, 65_536)
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
	known  *knownDeposits // presented
	paid   *knownDeposits // seen settled
	watch  *observer
	// generation is the store's, at which known and paid were learnt.
	generation atomic.Uint64
	stats      counters

	mu      sync.Mutex
	open    map[HoldID]*Hold // holds of this process that have not ended
	owner   OwnerID          // of new holds
	beaten  int64            // the owner's counter
	looked  [32]byte         // where the search for expired budgets goes on
	strayed time.Time        // when strays were looked for
	strays  map[HoldID]bool  // of this process in the store, and in no request: at the last look

	stop   context.CancelFunc // ends the background loops
	kill   context.CancelFunc // ends the writer
	loops  sync.WaitGroup
	writes chan struct{} // closed when the writer has ended
}

// Open reads the ledger's identity from the store and starts the writer, the
// renewer and the sweeper. ctx bounds the opening only. Any number of processes
// may work on one store that allows it.
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
	// No hold without an owner on record.
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

// Close refuses new operations, finishes those that are queued and stops. When
// ctx ends first it stops at once, as a crash would: what was queued is answered
// with ErrClosed, and open holds are left to their leases. Settle all holds
// before. The store stays open.
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

// rules is what decisions depend on now.
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

// BindKeys ties master keys to this ledger by their fingerprints. The first call
// ever records them; later ones must know at least one, else ErrForeignKeys, and
// record those that are new.
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

// Reserve holds r.Amount on the account and on every budget of the chain, or
// what r.Lock states instead as long as it covers that; the Hold tells which. It
// refuses with *InsufficientError, ErrFrozen, *RateLimitedError, *DuplicateError,
// ErrTooManyBudgets, ErrForeignDeposit, ErrBusy, ErrUnavailable. r.Deposit is
// credited first and stays credited whatever follows (except ErrBusy and
// ErrUnavailable). When ctx ends first, a hold that was made all the same is
// released by itself.
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

// reserve leaves a deposit out that this process knows as credited. Should the
// database have forgotten the payment, macaroon and preimage still prove it: the
// deposit is presented where the money is missing, or where the database failed over
// meanwhile.
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

// firstCharge completes a duplicate's error with the charge it repeats.
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

// maxName bounds the names stored with each charge, in bytes.
const maxName = 256

// storable reports whether every store can keep a text: PostgreSQL takes valid
// UTF-8 without NUL only.
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
	return terms{amount: amount, ctx: c, context: appendContext(nil, c)}
}

func contextOf(r *Reservation) *holdContext {
	return &holdContext{budgets: r.Budgets, chain: r.Chain, service: r.Service, model: r.Model,
		epoch: r.Epoch, rates: r.Rates, prompt: r.Prompt, idempotency: r.Idempotency}
}

// lockedContextOf is the context of a hold made under r.Lock.
func lockedContextOf(r *Reservation) *holdContext {
	c := contextOf(r)
	c.epoch, c.rates, c.lock = r.Lock.Epoch, r.Lock.Rates, r.Lock.Hash
	return c
}
