package storetest

import (
	"crypto/rand"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
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
	for _, keys := range [][][32]byte{{first}, {second, first}, {second}, {second, second}} { // a rotation of keys
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
		e.reserveOn(e.ledger, r) // long ago by the test's clock
	}
	total := 0
	for _, want := range []int{20, 20, 20, 0} {
		n, err := e.store.Store.Clean(ctx(e.T), 10)
		if err != nil || n != want {
			e.Errorf("cleaned %d, %v; want %d", n, err, want)
		}
		total += n
	}
	// Clean keeps rows that are still in force.
	e.store.advance(-past)
	r := reservation(id, 1)
	r.Idempotency = &metering.Idempotency{Key: [32]byte{200}}
	r.RateLimits = []l402.RateLimit{{ID: newHash(), PerMinute: 9}}
	e.reserveOn(e.ledger, r)
	if n, err := e.store.Store.Clean(ctx(e.T), 10); err != nil || n != 0 || total != 60 {
		e.Errorf("cleaned %d, %v; %d before", n, err, total)
	}
}

// testAuditFindsDamage shows an audit books that are wrong in one respect at a time, and checks that it finds the
// damage.
func testAuditFindsDamage(e *env) {
	id, part := e.account(1000), newBudget(500)
	e.settle(e.reserve(id, 100, part), 60)
	e.reserve(id, 50, part)
	if err := e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), e.account(0), 7, "test"); err != nil {
		e.Fatal(err)
	}
	r := e.audit()
	if r.Accounts != 2 || r.Deposited != 1000 || r.Charged != 60 || r.Held != 50 || r.Available != 897 || r.Adjusted != 7 ||
		r.OpenHolds != 1 || r.Budgets != 1 {
		e.Errorf("report: %+v", r)
	}
	damaged := &rogue{StoreReader: e.store.Store}
	reader, err := metering.NewReader(ctx(e.T), damaged)
	if err != nil {
		e.Fatal(err)
	}
	account := func(change func(*metering.AccountRow)) rogueRows { return rogueRows{account: change} }
	for name, rows := range map[string]rogueRows{
		"available":   account(func(a *metering.AccountRow) { a.Available++ }),
		"held":        account(func(a *metering.AccountRow) { a.Held-- }),
		"moved":       account(func(a *metering.AccountRow) { a.Held--; a.Available++ }),
		"deposited":   account(func(a *metering.AccountRow) { a.Deposited++; a.Available++ }),
		"charged":     account(func(a *metering.AccountRow) { a.Charged--; a.Available++ }),
		"negative":    account(func(a *metering.AccountRow) { a.Available, a.Held = -1, a.Held+a.Available+1 }),
		"budgets":     account(func(a *metering.AccountRow) { a.Budgets++ }),
		"charge rows": {charge: func(c *metering.ChargeRow) { c.Charged++ }},
		"charge time": {charge: func(c *metering.ChargeRow) { c.At++ }},
		"lines":       {transfer: func(t *metering.TransferRow) { t.Amount++ }},
		"deposit":     {deposit: func(d *metering.DepositRow) { d.Credited++ }},
		"adjustment":  {adjustment: func(j *metering.AdjustmentRow) { j.Delta++ }},
		"spent":       {budget: func(b *metering.BudgetRow) { b.Spent++ }},
		"budget held": {budget: func(b *metering.BudgetRow) { b.Held++ }},
		"budget line": {budgetLine: func(l *metering.BudgetLine) { l.Amount++ }},
		"hold":        {hold: func(h *metering.HoldRow) { h.Amount++ }},
		"hold's text": {hold: func(h *metering.HoldRow) { h.Context = h.Context[1:] }},
	} {
		damaged.set(rows)
		if r, err := reader.Audit(ctx(e.T)); err != nil || r.OK() {
			e.Errorf("%s: not found: %+v, %v", name, r, err)
		}
	}
	damaged.set(rogueRows{})
	if r, err := reader.Audit(ctx(e.T)); err != nil || !r.OK() {
		e.Errorf("undamaged: %+v, %v", r, err)
	}
}

// testAuditByItself checks that the running ledger audits by itself and shows what an audit finds.
func testAuditByItself(e *env) {
	id := e.account(1000)
	store := &rogueStore{Store: e.store, rogue: rogue{StoreReader: e.store.Store}}
	l, err := metering.Open(ctx(e.T), metering.Config{Store: store, Lease: lease, AuditEvery: time.Millisecond})
	if err != nil {
		e.Fatal(err)
	}
	defer l.Close(ctx(e.T))
	e.eventually("two audits agree", func() bool { s := l.Stats(); return s.Audits >= 2 && s.Mismatched == 0 })
	// The deposit touches the account again, because an audit of what is new looks only at touched accounts.
	store.rogue.set(rogueRows{account: func(a *metering.AccountRow) { a.Available++ }})
	e.deposit(id, 5)
	e.eventually("an audit finds the damage", func() bool { return l.Stats().Mismatched > 0 })
	before := l.Stats().Audits
	e.eventually("further audits go on finding it", func() bool { s := l.Stats(); return s.Audits > before+2 && s.Mismatched > 0 })
	store.rogue.set(rogueRows{})
	e.eventually("an audit agrees again", func() bool { return l.Stats().Mismatched == 0 })
	if s := l.Stats(); s.AuditErrors != 0 || time.Since(s.AuditedAt) > time.Minute {
		e.Errorf("stats: %+v", s)
	}
}
