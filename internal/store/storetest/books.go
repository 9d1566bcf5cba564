package storetest

import (
	"context"
	"crypto/rand"
	"sync/atomic"
	"time"

	"sluice/l402"
	"sluice/metering"
)

func testKeys(e *env) {
	key := func() (f [32]byte) { rand.Read(f[:]); return f }
	first, second, foreign := key(), key(), key()
	bind := func(keys ...[32]byte) error { return e.ledger.BindKeys(ctx(e.T), keys) }
	if err := bind(first); err != nil {
		e.Fatal(err)
	}
	e.refused(bind(foreign), metering.ErrForeignKeys)
	e.refused(bind(), metering.ErrForeignKeys)
	for _, keys := range [][][32]byte{{first}, {second, first}, {second}, {second, second}} { // a rotation
		if err := bind(keys...); err != nil {
			e.Error(err)
		}
	}
	e.refused(bind(foreign), metering.ErrForeignKeys)

	other := e.open(metering.Config{})
	if other.ID() != e.ledger.ID() || e.ledger.ID() == (l402.LedgerID{}) {
		e.Errorf("ids %v, %v", other.ID(), e.ledger.ID())
	}
}

func testClean(e *env) {
	id := e.account(1000)
	for i := range 30 {
		r := reservation(id, 1)
		r.Idempotency = &metering.Idempotency{Key: [32]byte{byte(i)}}
		r.RateLimits = []l402.RateLimit{{ID: newHash(), PerMinute: 9}}
		e.reserveOn(e.ledger, r) // long ago, by the test's clock
	}
	total := 0
	for _, want := range []int{20, 20, 20, 0} {
		n, err := e.store.Store.Clean(ctx(e.T), 10)
		if err != nil || n != want {
			e.Errorf("cleaned %d, %v; want %d", n, err, want)
		}
		total += n
	}
	// What is in force stays.
	e.store.advance(-past)
	r := reservation(id, 1)
	r.Idempotency = &metering.Idempotency{Key: [32]byte{200}}
	r.RateLimits = []l402.RateLimit{{ID: newHash(), PerMinute: 9}}
	e.reserveOn(e.ledger, r)
	if n, err := e.store.Store.Clean(ctx(e.T), 10); err != nil || n != 0 || total != 60 {
		e.Errorf("cleaned %d, %v; %d before", n, err, total)
	}
}

// testAuditFindsDamage shows the audit an account that is wrong in one respect
// at a time.
func testAuditFindsDamage(e *env) {
	id, part := e.account(1000), newBudget(500)
	e.settle(e.reserve(id, 100, part), 60)
	e.reserve(id, 50, part)
	r := e.audit()
	if r.Accounts != 1 || r.Deposited != 1000 || r.Charged != 60 || r.Held != 50 || r.Available != 890 ||
		r.OpenHolds != 1 || r.Budgets != 1 {
		e.Errorf("report: %+v", r)
	}
	damaged := &rogue{StoreReader: e.store.Store, corrupt: func(*metering.AuditAccount) {}}
	reader, err := metering.NewReader(ctx(e.T), damaged)
	if err != nil {
		e.Fatal(err)
	}
	for name, corrupt := range map[string]func(*metering.AuditAccount){
		"available":   func(a *metering.AuditAccount) { a.Available++ },
		"held":        func(a *metering.AuditAccount) { a.Held-- },
		"moved":       func(a *metering.AuditAccount) { a.Held--; a.Available++ },
		"deposited":   func(a *metering.AuditAccount) { a.Deposited++; a.Available++ },
		"charged":     func(a *metering.AuditAccount) { a.Charged--; a.Available++ },
		"negative":    func(a *metering.AuditAccount) { a.Available, a.Held = -1, a.Held+a.Available+1 },
		"charge rows": func(a *metering.AuditAccount) { a.ChargeRows++ },
		"lines":       func(a *metering.AuditAccount) { a.LineCharges++ },
		"budgets":     func(a *metering.AuditAccount) { a.Budgets++ },
	} {
		damaged.corrupt = corrupt
		if r, err := reader.Audit(ctx(e.T)); err != nil || r.OK() {
			e.Errorf("%s: not found: %+v, %v", name, r, err)
		}
	}
}

// rogue shows an audit other accounts than the store has.
type rogue struct {
	metering.StoreReader
	corrupt func(*metering.AuditAccount)
}

func (r *rogue) Audit(ctx context.Context, sink metering.AuditSink) error {
	account := sink.Account
	sink.Account = func(a metering.AuditAccount) error {
		r.corrupt(&a)
		return account(a)
	}
	return r.StoreReader.Audit(ctx, sink)
}

// testAuditByItself: the running ledger checks its invariants, and shows what it
// finds.
func testAuditByItself(e *env) {
	e.account(1000)
	var damage atomic.Int64
	store := &rogueStore{Store: e.store, rogue: rogue{StoreReader: e.store.Store,
		corrupt: func(a *metering.AuditAccount) { a.Available += l402.Msat(damage.Load()) }}}
	l, err := metering.Open(ctx(e.T), metering.Config{Store: store, Lease: lease, AuditEvery: time.Millisecond})
	if err != nil {
		e.Fatal(err)
	}
	defer l.Close(ctx(e.T))
	e.eventually("two audits agree", func() bool { s := l.Stats(); return s.Audits >= 2 && s.Mismatched == 0 })
	damage.Store(1)
	e.eventually("an audit finds the damage", func() bool { return l.Stats().Mismatched > 0 })
	damage.Store(0)
	e.eventually("an audit agrees again", func() bool { return l.Stats().Mismatched == 0 })
}

// rogueStore is a store whose audits are a rogue's.
type rogueStore struct {
	metering.Store
	rogue rogue
}

func (r *rogueStore) Audit(ctx context.Context, sink metering.AuditSink) error {
	return r.rogue.Audit(ctx, sink)
}
