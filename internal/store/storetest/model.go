package storetest

import (
	"context"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// testModel compares the ledger with a model of the ledger in plain integers. It runs random sequences of operations on
// two ledgers of one store: repetitions, steps of clocks, crashes between any two operations, and writes that are lost
// or kept without an answer. It runs at least modelOperations operations. rapid's flags -rapid.checks (sequences in a
// round, 100) and -rapid.steps (operations in a sequence, 30 on average) make a round longer.
func testModel(e *env) {
	operations := 0
	for operations < modelOperations && !e.Failed() {
		rapid.Check(e.T, func(t *rapid.T) { operations += modelSequence(e, t) })
	}
	e.Logf("%d operations", operations)
}

// modelSequence runs one sequence and returns its length.
func modelSequence(e *env, t *rapid.T) int {
	m := newModel(e, t)
	defer e.store.heal()
	t.Repeat(map[string]func(*rapid.T){
		"":           m.check,
		"deposit":    m.deposit,
		"settled":    m.settled,
		"replay":     m.replay,
		"reserve":    m.reserve,
		"reserve2":   m.reserve, // listed again to run more often
		"reserve3":   m.reserveLocked,
		"extend":     m.extend,
		"progress":   m.progress,
		"renew":      m.renew,
		"settle":     m.settle,
		"settle2":    m.settle,
		"release":    m.release,
		"adjust":     m.adjust,
		"advance":    m.advance,
		"sweep":      m.sweep,
		"strand":     m.strand,
		"crash":      m.crash,
		"crashAmid":  m.crashAmid,
		"auditNew":   m.auditNew,
		"seal":       m.seal,
		"everything": m.finish,
	})
	return m.operations
}

// model is what the ledger should have.
type model struct {
	e          *env
	ledgers    [2]*metering.Ledger
	accounts   []*modelAccount
	holds      []*modelHold
	deposits   []*modelDeposit
	now        time.Duration // how far the store's clock was moved
	operations int
}

type modelAccount struct {
	id                                            l402.TokenID
	available, held, deposited, charged, adjusted l402.Msat
	chains                                        [][]*modelBudget
}

type modelDeposit struct {
	metering.Deposit           // Amount is the credited amount
	owed             l402.Msat // part of Amount beyond what arrived
	settled          bool
	covered          l402.Msat // by its lock
	locks            bool      // its lock has covered something
}

type modelBudget struct {
	l402.Budget
	spent, held l402.Msat
}

type modelHold struct {
	*metering.Hold
	account *modelAccount
	chain   []*modelBudget
	lock    *modelDeposit // nil: the hold has its own rates
	rate    l402.Msat     // msat per call
	ledger  int
	amount  l402.Msat
	used    l402.Msat // calls, as last renewed
	next    l402.Msat // calls, as last reported
	sweptAt time.Duration
	charged l402.Msat
	state   holdState
}

type holdState int

const (
	open  holdState = iota
	swept           // charged by a sweep, and its owner may replace the charge
	ended
	dead // open in the store, but its owner has crashed
	gone // open for its owner, but the store has lost it
)

func newModel(e *env, t *rapid.T) *model {
	m := &model{e: e}
	for i := range m.ledgers {
		m.ledgers[i] = m.openLedger(t)
	}
	for range 3 {
		a := &modelAccount{id: l402.NewTokenID()}
		outer, inner, sibling := m.budget(500), m.budget(300), m.budget(400)
		a.chains = [][]*modelBudget{nil, {outer}, {outer, inner}, {outer, sibling}}
		m.accounts = append(m.accounts, a)
	}
	return m
}

func (m *model) openLedger(t *rapid.T) *metering.Ledger {
	l, err := metering.Open(context.Background(), metering.Config{Store: m.e.store, Now: m.e.clock.now, Lease: lease, LateSettle: 3 * lease,
		AuditPause: 1e-9, AuditSubjects: rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 50}).Draw(t, "subjects")})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l
}

func (m *model) budget(limit l402.Msat) *modelBudget { return &modelBudget{Budget: newBudget(limit)} }

// trouble injects random faults into the next writes.
func (m *model) trouble(t *rapid.T) {
	m.operations++
	m.e.store.inject(rapid.SliceOfN(rapid.SampledFrom([]fault{none, none, none, early, lost, kept, locked}), 0, 2).Draw(t, "faults")...)
}

func (m *model) background() context.Context { return context.Background() }

func (m *model) draw(t *rapid.T) (*modelAccount, *metering.Ledger, int) {
	l := rapid.IntRange(0, 1).Draw(t, "ledger")
	return rapid.SampledFrom(m.accounts).Draw(t, "account"), m.ledgers[l], l
}

func (a *modelAccount) room(chain []*modelBudget) l402.Msat {
	room := a.available
	for _, b := range chain {
		room = min(room, b.Limit-b.spent-b.held)
	}
	return room
}

func (h *modelHold) move(amount l402.Msat) {
	h.account.available -= amount
	h.account.held += amount
	for _, b := range h.chain {
		b.held += amount
	}
	h.cover(amount)
}

func (h *modelHold) cover(amount l402.Msat) {
	if h.lock != nil {
		h.lock.covered += amount
		h.lock.locks = true
	}
}

func (h *modelHold) charge(amount l402.Msat) {
	h.account.available -= amount
	h.account.charged += amount
	for _, b := range h.chain {
		b.spent += amount
	}
	h.cover(amount)
	h.charged += amount
}

func limits(chain []*modelBudget) (list []l402.Budget) {
	for _, b := range chain {
		list = append(list, b.Budget)
	}
	return list
}

// end models a settlement by the owner. It returns the charge.
func (h *modelHold) end(now time.Duration, calls l402.Msat) l402.Msat {
	cost := calls * h.rate
	switch {
	case h.state == gone:
		h.charge(min(cost, h.amount, h.account.room(h.chain)))
	case h.state == swept && now-h.sweptAt > 3*lease: // the charge is final
	case h.state == swept:
		h.charge(-h.charged)
		h.charge(min(cost, h.amount, h.account.room(h.chain)))
	default:
		h.move(-h.amount)
		h.charge(min(cost, h.amount))
	}
	h.state = ended
	return h.charged
}

// check compares every balance with the model.
func (m *model) check(t *rapid.T) {
	m.e.store.heal() // removes the faults of an operation that wrote nothing
	for _, a := range m.accounts {
		for _, chain := range a.chains[2:] { // these chains have all of the account's budgets
			b, err := m.e.ledger.Balance(context.Background(), a.id, limits(chain))
			if err != nil {
				t.Fatalf("balance: %v", err)
			}
			got := fmt.Sprint(b.Available, b.Held, b.Deposited, b.Charged)
			want := fmt.Sprint(max(0, a.room(chain)), a.held, a.deposited, a.charged)
			if got != want {
				t.Fatalf("balance: available, held, deposited, charged: %s; the model has %s", got, want)
			}
		}
	}
	m.checkLocks(t)
}

// checkLocks compares what every lock covers with the model.
func (m *model) checkLocks(t *rapid.T) {
	for _, d := range m.deposits {
		if !d.locks {
			continue
		}
		row, _, err := m.e.ledger.LookupDeposit(context.Background(), d.Hash)
		if err != nil || row.Covered != d.covered {
			t.Fatalf("deposit of %d: its lock covers %d, %v; the model has %d", d.Amount, row.Covered, err, d.covered)
		}
	}
}

func (m *model) audit(t *rapid.T) {
	whole, err := m.e.ledger.Audit(context.Background())
	if err != nil || !whole.OK() {
		t.Fatalf("audit: %q, %v", whole.Mismatches, err)
	}
	for _, o := range []metering.AuditOptions{{Open: true}, {Subjects: int(whole.Accounts)}} { // the second in parts
		r, err := m.e.ledger.AuditWith(context.Background(), o)
		if err != nil || !r.OK() {
			t.Fatalf("audit with %+v: %q, %v", o, r.Mismatches, err)
		}
	}
}

// auditNew audits what has changed since the last audit.
func (m *model) auditNew(t *rapid.T) {
	_, l, _ := m.draw(t)
	r, err := l.AuditNew(context.Background())
	if err != nil || !r.OK() {
		t.Fatalf("audit of what is new: %q, %v", r.Mismatches, err)
	}
}

// seal closes a period in which no hold began, so open holds do not prevent it. Later lines of its charges belong to
// the next period.
func (m *model) seal(t *rapid.T) {
	_, l, _ := m.draw(t)
	if rapid.IntRange(0, 7).Draw(t, "rarely") > 0 {
		return
	}
	if _, err := l.SealPeriod(context.Background(), time.Unix(1, 0)); err != nil {
		t.Fatalf("seal: %v", err)
	}
}
