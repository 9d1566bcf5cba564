package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"sluice/l402"
	"sluice/metering"
)

// testModel compares the ledger with a model of it in plain integers, over
// random sequences of operations on two ledgers of one store: replays, clocks
// that jump, crashes between any two operations, and writes that fail lost or
// kept. How many operations: rapid's flags -rapid.checks (sequences, 100) and
// -rapid.steps (operations in each, 30 on average).
func testModel(e *env) {
	operations := 0
	rapid.Check(e.T, func(t *rapid.T) {
		m := newModel(e, t)
		defer func() { operations += m.operations; e.store.heal() }()
		t.Repeat(map[string]func(*rapid.T){
			"":           m.check,
			"deposit":    m.deposit,
			"settled":    m.settled,
			"replay":     m.replay,
			"reserve":    m.reserve,
			"reserve2":   m.reserve, // twice as often
			"extend":     m.extend,
			"progress":   m.progress,
			"renew":      m.renew,
			"settle":     m.settle,
			"settle2":    m.settle,
			"release":    m.release,
			"adjust":     m.adjust,
			"advance":    m.advance,
			"sweep":      m.sweep,
			"crash":      m.crash,
			"crashAmid":  m.crashAmid,
			"everything": m.finish,
		})
	})
	e.Logf("%d operations", operations)
}

// model is what the ledger should be.
type model struct {
	e          *env
	ledgers    [2]*metering.Ledger
	accounts   []*modelAccount
	holds      []*modelHold
	deposits   []metering.Deposit
	now        time.Duration // of the store's clock, without the time that the test takes
	operations int
}

type modelAccount struct {
	id                                            l402.TokenID
	available, held, deposited, charged, adjusted l402.Msat
	chains                                        [][]*modelBudget
}

type modelBudget struct {
	l402.Budget
	spent, held l402.Msat
}

type modelHold struct {
	*metering.Hold
	account *modelAccount
	chain   []*modelBudget
	ledger  int
	amount  l402.Msat
	used    l402.Msat // as last renewed
	next    l402.Msat // as last reported
	expires time.Duration
	sweptAt time.Duration
	charged l402.Msat
	state   holdState
}

type holdState int

const (
	open  holdState = iota
	swept           // charged, and its owner may replace that
	ended
	dead // open in the store, its owner crashed
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
	l, err := metering.Open(context.Background(), metering.Config{Store: m.e.store, Lease: lease, LateSettle: 3 * lease})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l
}

func (m *model) budget(limit l402.Msat) *modelBudget { return &modelBudget{Budget: newBudget(limit)} }

// trouble makes the next writes fail, or not.
func (m *model) trouble(t *rapid.T) {
	m.operations++
	m.e.store.inject(rapid.SliceOfN(rapid.SampledFrom([]fault{none, none, none, early, lost, kept, locked}), 0, 2).Draw(t, "faults")...)
}

func (m *model) background() context.Context { return context.Background() }

func (m *model) draw(t *rapid.T) (*modelAccount, *metering.Ledger, int) {
	l := rapid.IntRange(0, 1).Draw(t, "ledger")
	return rapid.SampledFrom(m.accounts).Draw(t, "account"), m.ledgers[l], l
}

func amounts(t *rapid.T, name string) l402.Msat {
	return l402.Msat(rapid.SampledFrom([]int{0, 1, 7, 40, 100, 150, 333, 1000}).Draw(t, name))
}

func (m *model) deposit(t *rapid.T) {
	a, l, _ := m.draw(t)
	d := metering.Deposit{Hash: newHash(), Account: a.id, Amount: amounts(t, "amount")}
	m.trouble(t)
	got, err := l.Deposit(m.background(), d)
	if err != nil || got != d.Amount {
		t.Fatalf("deposit %d: %d, %v", d.Amount, got, err)
	}
	a.available += d.Amount
	a.deposited += d.Amount
	m.deposits = append(m.deposits, d)
}

func (m *model) account(id l402.TokenID) *modelAccount {
	for _, a := range m.accounts {
		if a.id == id {
			return a
		}
	}
	return nil
}

// settled has the settle stream report a payment, old or new, perhaps of more.
func (m *model) settled(t *rapid.T) {
	a, l, _ := m.draw(t)
	i := len(m.deposits)
	if i > 0 {
		i = rapid.IntRange(0, i).Draw(t, "which")
	}
	if i == len(m.deposits) {
		m.deposits = append(m.deposits, metering.Deposit{Hash: newHash(), Account: a.id})
	}
	d := &m.deposits[i]
	arrived := *d
	arrived.Amount = amounts(t, "arrived")
	m.trouble(t)
	got, err := l.CreditSettled(m.background(), metering.Settled{Deposit: arrived, Node: "02aa", Index: uint64(m.operations)})
	want := max(0, arrived.Amount-d.Amount)
	if err != nil || got != want {
		t.Fatalf("credit %d on %d: %d, %v", arrived.Amount, d.Amount, got, err)
	}
	d.Amount += want
	a = m.account(d.Account)
	a.available += want
	a.deposited += want
}

// replay presents an old payment again, also for another account.
func (m *model) replay(t *rapid.T) {
	if len(m.deposits) == 0 {
		t.Skip()
	}
	a, l, _ := m.draw(t)
	d := rapid.SampledFrom(m.deposits).Draw(t, "deposit")
	foreign := d.Account != a.id
	d.Account = a.id
	m.trouble(t)
	got, err := l.Deposit(m.background(), d)
	if foreign != errors.Is(err, metering.ErrForeignDeposit) || (!foreign && err != nil) || got != 0 {
		t.Fatalf("replay, foreign %v: %d, %v", foreign, got, err)
	}
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
}

func (h *modelHold) charge(amount l402.Msat) {
	h.account.available -= amount
	h.account.charged += amount
	for _, b := range h.chain {
		b.spent += amount
	}
	h.charged += amount
}

func limits(chain []*modelBudget) (list []l402.Budget) {
	for _, b := range chain {
		list = append(list, b.Budget)
	}
	return list
}

func (m *model) reserve(t *rapid.T) {
	a, l, index := m.draw(t)
	chain := rapid.SampledFrom(a.chains).Draw(t, "chain")
	r := reservation(a.id, amounts(t, "hold"), limits(chain)...)
	if rapid.Bool().Draw(t, "deposit") {
		r.Deposit = &metering.Deposit{Hash: newHash(), Account: a.id, Amount: amounts(t, "credit")}
		a.available += r.Deposit.Amount
		a.deposited += r.Deposit.Amount
		m.deposits = append(m.deposits, *r.Deposit)
	}
	m.trouble(t)
	got, err := l.Reserve(m.background(), r)
	var short *metering.InsufficientError
	switch room := a.room(chain); {
	case room < r.Amount || (a.deposited == 0 && r.Deposit == nil && a.adjusted == 0 && r.Amount > 0):
		if !errors.As(err, &short) || short.Available != room {
			t.Fatalf("reserve %d of %d: %v", r.Amount, room, err)
		}
		return
	case errors.As(err, &short) && r.Amount == 0 && short.Available == 0: // an account that does not exist yet
		return
	case err != nil:
		t.Fatalf("reserve %d of %d: %v", r.Amount, room, err)
	}
	h := &modelHold{Hold: got, account: a, chain: chain, ledger: index, amount: r.Amount, expires: m.now + lease}
	h.move(r.Amount)
	m.holds = append(m.holds, h)
}

// pick draws one of the holds in a state.
func (m *model) pick(t *rapid.T, states ...holdState) *modelHold {
	var list []*modelHold
	for _, h := range m.holds {
		for _, s := range states {
			if h.state == s {
				list = append(list, h)
			}
		}
	}
	if len(list) == 0 {
		t.Skip()
	}
	return rapid.SampledFrom(list).Draw(t, "hold")
}

func (m *model) extend(t *rapid.T) {
	h := m.pick(t, open, swept)
	total := h.amount + amounts(t, "more") - 40
	if total < 0 {
		t.Skip()
	}
	m.trouble(t)
	err := h.Extend(m.background(), total)
	lacks := max(0, total-h.amount)
	var short *metering.InsufficientError
	switch {
	case h.state == swept:
		if !errors.Is(err, metering.ErrSwept) {
			t.Fatalf("extend a swept hold: %v", err)
		}
	case lacks > h.account.room(h.chain):
		if !errors.As(err, &short) || short.Required != lacks {
			t.Fatalf("extend by %d: %v", lacks, err)
		}
	case err != nil:
		t.Fatalf("extend by %d: %v", lacks, err)
	default:
		h.move(lacks)
		h.amount += lacks
	}
}

func (m *model) progress(t *rapid.T) {
	h := m.pick(t, open)
	h.next = amounts(t, "used")
	used(h.Hold, int64(h.next))
}

func (m *model) renew(t *rapid.T) {
	_, l, index := m.draw(t)
	m.trouble(t)
	if err := l.Renew(m.background()); err != nil {
		t.Fatalf("renew: %v", err)
	}
	for _, h := range m.holds {
		if h.ledger == index && h.state == open {
			h.expires, h.used = m.now+lease, h.next
		}
	}
}

func (m *model) settle(t *rapid.T) {
	h := m.pick(t, open, swept)
	cost := amounts(t, "cost")
	m.trouble(t)
	entry, err := h.Settle(m.background(), calls(cost))
	if err != nil {
		t.Fatalf("settle: %v", err)
	}
	want := h.end(m.now, cost)
	if entry.Charged != want {
		t.Fatalf("settle %d of a hold of %d: charged %d, want %d", cost, h.amount, entry.Charged, want)
	}
}

// end is the model of a settlement by the owner; it returns the charge.
func (h *modelHold) end(now time.Duration, cost l402.Msat) l402.Msat {
	switch {
	case h.state == swept && now-h.sweptAt > 3*lease: // final
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

func (m *model) release(t *rapid.T) {
	h := m.pick(t, open, swept)
	m.trouble(t)
	if err := h.Release(m.background(), metering.OutcomeNotTaken); err != nil {
		t.Fatalf("release: %v", err)
	}
	h.end(m.now, 0)
}

func (m *model) adjust(t *rapid.T) {
	a, l, _ := m.draw(t)
	delta := l402.Msat(rapid.SampledFrom([]int{-200, -30, 50, 300}).Draw(t, "delta"))
	m.trouble(t)
	err := l.Adjust(m.background(), metering.NewHoldID(), a.id, delta, "model")
	var short *metering.InsufficientError
	if a.available+delta < 0 {
		if !errors.As(err, &short) {
			t.Fatalf("adjust by %d of %d: %v", delta, a.available, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("adjust: %v", err)
	}
	a.available += delta
	a.adjusted += delta
}

// advance moves the clock, never close to where a lease runs out.
func (m *model) advance(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{10 * time.Minute, 35 * time.Minute, 70 * time.Minute, 200 * time.Minute}).Draw(t, "by")
	d += 1500 * time.Millisecond * time.Duration(rapid.IntRange(1, 20).Draw(t, "and"))
	m.now += d
	m.e.store.advance(d)
}

func (m *model) sweep(t *rapid.T) {
	_, l, index := m.draw(t)
	m.trouble(t)
	if _, err := l.Sweep(m.background()); err != nil {
		t.Fatalf("sweep: %v", err)
	}
	for _, h := range m.holds {
		alive := h.state == open && h.ledger == index
		if (h.state == open || h.state == dead) && !alive && h.expires < m.now {
			h.move(-h.amount)
			h.charge(min(h.used, h.amount))
			h.sweptAt = m.now
			if h.state = swept; h.ledger < 0 {
				h.state = ended // nobody is left to replace it
			}
		}
	}
}

// crash replaces a ledger; its holds are nobody's.
func (m *model) crash(t *rapid.T) {
	_, l, index := m.draw(t)
	m.operations++
	kill(l)
	m.crashed(t, index)
}

// crashed opens a ledger in place of one that died.
func (m *model) crashed(t *rapid.T, index int) {
	m.ledgers[index] = m.openLedger(t)
	for _, h := range m.holds {
		if h.ledger == index {
			h.ledger = -1
			switch h.state {
			case open:
				h.state = dead
			case swept:
				h.state = ended
			}
		}
	}
}

// crashAmid crashes a ledger while it settles, with the store away: the
// settlement was kept or lost, and the books agree either way.
func (m *model) crashAmid(t *rapid.T) {
	h := m.pick(t, open)
	how := rapid.SampledFrom([]fault{early, lost, kept}).Draw(t, "how")
	cost := amounts(t, "cost")
	m.e.store.breakdown(how)
	brief, cancel := context.WithTimeout(context.Background(), 8*time.Millisecond)
	defer cancel()
	if _, err := h.Settle(brief, calls(cost)); err == nil {
		t.Fatalf("settled without an answer of the store")
	}
	index := h.ledger
	kill(m.ledgers[index])
	m.e.store.heal()
	if how == kept && m.committed(h) {
		h.end(m.now, cost)
	}
	m.crashed(t, index)
}

// committed asks the store whether a hold has ended.
func (m *model) committed(h *modelHold) bool {
	b, err := m.e.ledger.Balance(context.Background(), h.account.id, nil)
	return err == nil && b.Held == h.account.held-h.amount && h.amount > 0
}

func (m *model) finish(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "rarely") == 0 {
		m.audit(t)
	}
}

// check compares every balance.
func (m *model) check(t *rapid.T) {
	m.e.store.heal() // of what was armed for an operation that wrote nothing
	for _, a := range m.accounts {
		for _, chain := range a.chains {
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
}

func (m *model) audit(t *rapid.T) {
	r, err := m.e.ledger.Audit(context.Background())
	if err != nil || !r.OK() {
		t.Fatalf("audit: %q, %v", r.Mismatches, err)
	}
}
