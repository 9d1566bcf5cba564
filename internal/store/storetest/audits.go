package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

func (e *env) auditNew() metering.Report {
	e.Helper()
	r, err := e.ledger.AuditNew(ctx(e.T))
	if err != nil {
		e.Fatalf("audit of what is new: %v", err)
	}
	if !r.OK() {
		e.Errorf("audit of what is new: %d mismatches: %q", r.Mismatched, r.Mismatches)
	}
	return r
}

// testAuditOfSums checks that an audit reports forged deposits of all existing bitcoin in several accounts, and still
// ends.
func testAuditOfSums(e *env) {
	for range 5 {
		e.deposit(l402.NewTokenID(), l402.MaxMsat)
	}
	for _, audit := range []func(context.Context) (metering.Report, error){e.ledger.Audit, e.ledger.AuditNew} {
		r, err := audit(ctx(e.T))
		if err != nil || r.OK() || !strings.Contains(strings.Join(r.Mismatches, "\n"), "10500000000000000000 msat is more than there is") {
			e.Errorf("audit: %+v, %v", r, err)
		}
	}
	_, err := e.ledger.Totals(ctx(e.T))
	e.refused(err, metering.ErrAmount)
	e.skipFinalAudit = true
}

// testAuditBesideLoad checks that audits of both kinds, one after another while money moves, find nothing wrong.
func testAuditBesideLoad(e *env) {
	const (
		accounts = 40
		// pairs is the number of reservations and settlements of each worker, so that an audit can catch up on a slow
		// machine.
		pairs = 300
	)
	ids := make([]l402.TokenID, accounts)
	for i := range ids {
		ids[i] = e.account(1e9)
	}
	part := newBudget(1e8)
	working, stop := context.WithCancel(context.Background())
	var load sync.WaitGroup
	for i := range 16 {
		load.Go(func() {
			for n := i; working.Err() == nil && n < i+pairs; n++ {
				id := ids[n%accounts]
				budgets := []l402.Budget(nil)
				if n%accounts == 0 {
					budgets = append(budgets, part)
				}
				h, err := e.ledger.Reserve(context.Background(), reservation(id, 400, budgets...))
				if err != nil {
					e.Error(err)
					return
				}
				if _, err := h.Settle(context.Background(), calls(l402.Msat(n%500))); err != nil {
					e.Error(err)
					return
				}
				if n%7 == 0 { // also makes new accounts
					d := metering.Deposit{Hash: newHash(), Account: l402.NewTokenID(), Amount: 5}
					if _, err := e.ledger.Deposit(context.Background(), d); err != nil {
						e.Error(err)
						return
					}
				}
			}
		})
	}
	defer load.Wait()
	defer stop()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && !e.Failed(); {
		e.auditNew()
		subjects := int(e.audit().Accounts) // there are as many payments as accounts
		patient, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		r, err := e.ledger.AuditWith(patient, metering.AuditOptions{Subjects: subjects})
		cancel()
		if err != nil || !r.OK() {
			e.Errorf("audit in parts: %q, %v", r.Mismatches, err)
		}
	}
}

// testAuditCutOff checks that an audit which is interrupted at any point loses nothing, and that the next audit finds
// what the interrupted audit would have found.
func testAuditCutOff(e *env) {
	id := e.account(1e6)
	for round := range 12 {
		for range 3 {
			e.settle(e.reserve(id, 100, newBudget(100)), 7)
		}
		writes := 0
		cut := &cutStore{Store: e.store, left: func() bool { writes++; return writes <= round%4 }}
		l, err := metering.Open(ctx(e.T), metering.Config{Store: cut, Lease: lease, AuditSubjects: 1 + round/4})
		if err != nil {
			e.Fatal(err)
		}
		if _, err := l.AuditNew(ctx(e.T)); err == nil && round%4 == 0 {
			e.Errorf("round %d: an audit without writes came to an end", round)
		}
		if err := l.Close(ctx(e.T)); err != nil {
			e.Error(err)
		}
		if round%3 == 2 {
			e.auditNew()
		}
	}
	e.auditNew()
	if r := e.auditNew(); r.Lines != 0 {
		e.Errorf("%d lines were read again", r.Lines)
	}
}

// cutStore is a store whose writes of audits fail once left returns false.
type cutStore struct {
	metering.Store
	left func() bool
}

func (c *cutStore) SaveTallies(ctx context.Context, period int64, list []metering.Tally) error {
	if !c.left() {
		return errCut
	}
	return c.Store.SaveTallies(ctx, period, list)
}

func (c *cutStore) SaveAuditState(ctx context.Context, s metering.AuditState) (bool, error) {
	if !c.left() {
		return false, errCut
	}
	return c.Store.SaveAuditState(ctx, s)
}

// testAuditInTurn checks that of several audits at once at least one ends, and that the sums remain right.
func testAuditInTurn(e *env) {
	id := e.account(1e6)
	for range 5 {
		for range 20 {
			e.settle(e.reserve(id, 100), 7)
		}
		errs := make([]error, 4)
		parallel(len(errs), func(i int) {
			var r metering.Report
			if r, errs[i] = e.ledger.AuditNew(ctx(e.T)); !r.OK() {
				e.Errorf("audit: %q", r.Mismatches)
			}
		})
		done := 0
		for _, err := range errs {
			if err == nil {
				done++
			}
		}
		if done == 0 {
			e.Errorf("no audit came to its end: %v", errs)
		}
	}
	e.auditNew()
	// No audit is due, because an audit has just ended.
	l := e.open(metering.Config{AuditEvery: time.Hour})
	if s := l.Stats(); s.Audits != 0 {
		e.Errorf("stats: %+v", s)
	}
}

// testSeal closes two periods and checks the sums in each seal.
func testSeal(e *env) {
	id, part := e.account(10_000), newBudget(5000)
	h := e.reserve(id, 100, part) // settled late: its line is in the second period
	e.settle(e.reserve(id, 100, part), 60)
	first, err := e.ledger.SealPeriod(ctx(e.T), time.Unix(1, 0))
	if err != nil {
		e.Fatal(err)
	}
	if first.Period != 1 || first.Deposited != "10000" || first.Charged != "60" || first.Adjusted != "0" || first.Balance != "9940" ||
		first.Transfers != 2 || first.BudgetLines != 1 || first.Nodes[""] != "10000" {
		e.Errorf("first seal: %+v", first)
	}
	paid := metering.Settled{Deposit: metering.Deposit{Hash: newHash(), Account: id, Amount: 500}, Node: "02aa", Index: 1}
	if _, err := e.ledger.CreditSettled(ctx(e.T), paid); err != nil {
		e.Fatal(err)
	}
	if err := e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), id, -40, "test"); err != nil {
		e.Fatal(err)
	}
	e.settle(h, 90)
	second, err := e.ledger.SealPeriod(ctx(e.T), time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC).Add(-20*365*24*time.Hour))
	if err != nil {
		e.Fatal(err)
	}
	if second.Period != 2 || second.From != first.To || second.Deposited != "500" || second.Charged != "90" || second.Adjusted != "-40" ||
		second.Balance != "10310" || second.Nodes["02aa"] != "500" || second.Transfers != 3 {
		e.Errorf("second seal: %+v", second)
	}
	empty, err := e.ledger.SealPeriod(ctx(e.T), time.Unix(1, 0))
	if err != nil || empty.Transfers != 0 || empty.Balance != "10310" {
		e.Errorf("a period without lines: %+v, %v", empty, err)
	}
	e.settle(e.reserve(id, 100, part), 60)
	r, err := e.ledger.AuditWith(ctx(e.T), metering.AuditOptions{Open: true})
	if err != nil || !r.OK() || r.Lines != 2 || r.Since != empty.Name || r.Periods != 3 {
		e.Errorf("audit of the open period: %+v, %v", r, err)
	}
	e.sealedRows(id)
}

// sealedRows checks that a full audit finds a change within a closed period.
func (e *env) sealedRows(id l402.TokenID) {
	damaged := &rogue{StoreReader: e.store.Store}
	reader, err := metering.NewReader(ctx(e.T), damaged)
	if err != nil {
		e.Fatal(err)
	}
	for name, rows := range map[string]rogueRows{
		"a name":   {charge: func(c *metering.ChargeRow) { c.Model += "x" }},
		"a reason": {adjustment: func(j *metering.AdjustmentRow) { j.Reason = "" }},
		"a time":   {transfer: func(t *metering.TransferRow) { t.At += int64(t.Kind) / 4 }},
		"a bound":  {charge: func(c *metering.ChargeRow) { c.Amount++ }},
		"a line":   {budgetLine: func(l *metering.BudgetLine) { l.At-- }},
	} {
		damaged.set(rows)
		r, err := reader.Audit(ctx(e.T))
		if err != nil || !strings.Contains(strings.Join(r.Mismatches, "\n"), "changed after it was sealed") {
			e.Errorf("%s: not found: %+v, %v", name, r, err)
		}
	}
}

// testSealOfNothing checks that a first period without lines can be closed, and that an audit then reads all later
// lines.
func testSealOfNothing(e *env) {
	if s, err := e.ledger.SealPeriod(ctx(e.T), time.Unix(1, 0)); err != nil || s.Transfers != 0 || s.Balance != "0" {
		e.Fatalf("seal %+v, %v", s, err)
	}
	e.settle(e.reserve(e.account(1000), 100), 60)
	for _, open := range []bool{true, false} {
		if r, err := e.ledger.AuditWith(ctx(e.T), metering.AuditOptions{Open: open}); err != nil || !r.OK() || r.Lines != 2 || r.Charged != 60 {
			e.Errorf("report of an audit (since the seal: %v): %+v, %v", open, r, err)
		}
	}
}

// testSealWaits checks that no period is closed while a request that began in the period may still change it, or while
// the books are wrong.
func testSealWaits(e *env) {
	id := e.account(10_000)
	h := e.reserve(id, 100)
	_, err := e.ledger.SealPeriod(ctx(e.T), time.Now().Add(time.Minute))
	e.refused(err, metering.ErrNotSealable)
	if _, err := e.ledger.SealPeriod(ctx(e.T), h.ID().Time()); err != nil {
		e.Errorf("a hold that began afterwards: %v", err)
	}
	used(h, 50)
	if err := e.ledger.Renew(ctx(e.T)); err != nil {
		e.Fatal(err)
	}
	other := e.open(metering.Config{})
	e.store.advance(-past) // moves the store's clock to now, so that the owner may still replace what is swept
	e.stall(e.ledger)
	e.sweep(other, 1)
	_, err = e.ledger.SealPeriod(ctx(e.T), time.Now().Add(time.Minute))
	e.refused(err, metering.ErrNotSealable)
	e.settle(h, 70)
	if _, err := e.ledger.SealPeriod(ctx(e.T), time.Now().Add(time.Minute)); err != nil {
		e.Error(err)
	}
	damaged := &rogueStore{Store: e.store, rogue: rogue{StoreReader: e.store.Store}}
	damaged.rogue.set(rogueRows{account: func(a *metering.AccountRow) { a.Available++ }})
	l, err := metering.Open(ctx(e.T), metering.Config{Store: damaged, Lease: lease})
	if err != nil {
		e.Fatal(err)
	}
	defer l.Close(ctx(e.T))
	e.deposit(id, 5)
	if _, err = l.SealPeriod(ctx(e.T), time.Now().Add(time.Minute)); !errors.Is(err, metering.ErrNotSealable) {
		e.Errorf("sealed wrong books: %v", err)
	}
}

// growing makes an account with a payment before each snapshot of an audit.
type growing struct {
	metering.StoreReader
	grow func()
}

func (g *growing) Look(ctx context.Context, fn func(metering.Snapshot) error) error {
	g.grow()
	return g.StoreReader.Look(ctx, fn)
}

// testAuditOfAGrowingLedger checks that an audit whose memory is full when it begins to compare finds nothing wrong
// with subjects that are added while it compares.
func testAuditOfAGrowingLedger(e *env) {
	const accounts = 20
	for range accounts {
		e.account(5)
	}
	grown := l402.Msat(5 * accounts)
	store := &growing{e.store.Store, func() { grown += 5; e.account(5) }}
	r, err := metering.NewReader(ctx(e.T), store)
	if err != nil {
		e.Fatal(err)
	}
	report, err := r.AuditWith(ctx(e.T), metering.AuditOptions{Subjects: 2 * (accounts + 2)}) // accounts and payments
	if err != nil || !report.OK() {
		e.Errorf("audit: %q, %v", report.Mismatches, err)
	}
	if report.Deposited > grown || report.Deposited < 5*accounts {
		e.Errorf("%d msat deposited, of at most %d", report.Deposited, grown)
	}
}
