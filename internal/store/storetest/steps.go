package storetest

import (
	"context"
	"errors"
	"time"

	"pgregory.net/rapid"

	"sluice/l402"
	"sluice/metering"
)

// The random operations of testModel, each beside what the model makes of it.

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
