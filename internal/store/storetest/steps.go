package storetest

import (
	"context"
	"errors"
	"time"

	"pgregory.net/rapid"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// The random operations of testModel. Each one also changes the model as the ledger should change.

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
	m.deposits = append(m.deposits, &modelDeposit{Deposit: d})
}

func (m *model) account(id l402.TokenID) *modelAccount {
	for _, a := range m.accounts {
		if a.id == id {
			return a
		}
	}
	return nil
}

// settled makes the settle stream report a payment, old or new, perhaps with more than before.
func (m *model) settled(t *rapid.T) {
	a, l, _ := m.draw(t)
	i := len(m.deposits)
	if i > 0 {
		i = rapid.IntRange(0, i).Draw(t, "which")
	}
	if i == len(m.deposits) {
		m.deposits = append(m.deposits, &modelDeposit{Deposit: metering.Deposit{Hash: newHash(), Account: a.id}})
	}
	d := m.deposits[i]
	arrived := d.Deposit
	arrived.Amount = amounts(t, "arrived")
	m.trouble(t)
	got, err := l.CreditSettled(m.background(), metering.Settled{Deposit: arrived, Node: "02aa", Index: uint64(m.operations)})
	a = m.account(d.Account)
	want := d.arrive(arrived.Amount, a.available)
	if err != nil || got != want {
		t.Fatalf("credit %d on %d: %d, %v; want %d", arrived.Amount, d.Amount-want, got, err, want)
	}
	a.available += want
	a.deposited += want
}

// arrive models a report of the Lightning node. It returns the change of the balance.
func (d *modelDeposit) arrive(arrived, available l402.Msat) l402.Msat {
	if d.settled { // the first reported amount counts, and may only grow
		arrived = max(arrived, d.Amount-d.owed)
	}
	change := max(arrived-d.Amount, -available)
	d.settled = true
	d.Amount += change
	d.owed = d.Amount - arrived
	return change
}

// replay presents an old payment again, sometimes for another account.
func (m *model) replay(t *rapid.T) {
	if len(m.deposits) == 0 {
		t.Skip()
	}
	a, l, _ := m.draw(t)
	d := rapid.SampledFrom(m.deposits).Draw(t, "deposit").Deposit
	foreign := d.Account != a.id
	d.Account = a.id
	m.trouble(t)
	got, err := l.Deposit(m.background(), d)
	if foreign != errors.Is(err, metering.ErrForeignDeposit) || (!foreign && err != nil) || got != 0 {
		t.Fatalf("replay, foreign %v: %d, %v", foreign, got, err)
	}
}

func (m *model) reserve(t *rapid.T) {
	a, _, _ := m.draw(t)
	chain := rapid.SampledFrom(a.chains).Draw(t, "chain")
	r := reservation(a.id, amounts(t, "hold"), limits(chain)...)
	m.hold(t, a, chain, &r, nil)
}

// reserveLocked reserves with a lock of an old or new payment, of the same or another account.
func (m *model) reserveLocked(t *rapid.T) {
	a, _, _ := m.draw(t)
	chain := rapid.SampledFrom(a.chains).Draw(t, "chain")
	d := &modelDeposit{Deposit: metering.Deposit{Hash: newHash(), Account: a.id}} // of 0 msat, unless it comes with r
	if len(m.deposits) > 0 && rapid.IntRange(0, 7).Draw(t, "old") > 0 {
		d = rapid.SampledFrom(m.deposits).Draw(t, "payment")
		if rapid.IntRange(0, 7).Draw(t, "own") > 0 {
			a = m.account(d.Account)
			chain = a.chains[0]
		}
	}
	m.hold(t, a, chain, new(quoted(a.id, d.Hash, amounts(t, "limit"), amounts(t, "calls"), limits(chain)...)), d)
}

// hold makes a reservation. If r has a lock, payment is the payment of the lock.
func (m *model) hold(t *rapid.T, a *modelAccount, chain []*modelBudget, r *metering.Reservation, payment *modelDeposit) {
	_, l, index := m.draw(t)
	h := &modelHold{account: a, chain: chain, ledger: index, amount: r.Amount, rate: l402.Msat(r.Rates[pricing.Calls])}
	m.credit(t, a, r, payment)
	if r.Lock != nil && payment.Account == a.id && payment.covered+max(1, r.Lock.Amount) <= min(payment.Amount, r.Lock.Limit) {
		h.lock, h.amount, h.rate = payment, r.Lock.Amount, 1
	}
	if r.Deposit == nil && rapid.IntRange(0, 5).Draw(t, "forget") == 0 {
		h.state = gone
		m.operations++
		m.e.store.forget(r.ID)
	} else {
		m.trouble(t)
	}
	var err error
	h.Hold, err = l.Reserve(m.background(), *r)
	var short *metering.InsufficientError
	switch room := a.room(chain); {
	case room < h.amount || (a.deposited == 0 && r.Deposit == nil && a.adjusted == 0 && h.amount > 0):
		if !errors.As(err, &short) || short.Available != room {
			t.Fatalf("reserve %d of %d: %v", h.amount, room, err)
		}
		return
	case errors.As(err, &short) && h.amount == 0 && short.Available == 0: // an account that does not exist yet
		return
	case err != nil:
		t.Fatalf("reserve %d of %d: %v", h.amount, room, err)
	case h.Amount() != h.amount || h.Rates()[pricing.Calls] != int64(h.rate) || h.Locked() != (h.lock != nil):
		t.Fatalf("hold of %d at %d, locked %v; want %d at %d", h.Amount(), h.Rates()[pricing.Calls], h.Locked(), h.amount, h.rate)
	}
	if h.state != gone {
		h.move(h.amount)
	}
	m.holds = append(m.holds, h)
}

// credit may add a deposit to a reservation: a new payment, or the payment of its lock.
func (m *model) credit(t *rapid.T, a *modelAccount, r *metering.Reservation, payment *modelDeposit) {
	if !rapid.Bool().Draw(t, "deposit") {
		return
	}
	d := payment
	if d == nil || d.Account != a.id || d.Amount > 0 || d.settled {
		d = &modelDeposit{Deposit: metering.Deposit{Hash: newHash(), Account: a.id}}
	}
	more := amounts(t, "credit")
	d.Amount += more
	r.Deposit = new(d.Deposit)
	a.available += more
	a.deposited += more
	m.deposits = append(m.deposits, d)
}

// pick draws one of the holds that are in one of the states.
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
	h := m.pick(t, open, swept, gone)
	total := h.amount + amounts(t, "more") - 40
	if total < 0 || h.state == gone && total < h.amount {
		t.Skip()
	}
	m.trouble(t)
	m.extendTo(t, h, total)
}

func (m *model) extendTo(t *rapid.T, h *modelHold, total l402.Msat) {
	err := h.Extend(m.background(), total)
	lacks := max(0, total-h.amount)
	if h.state == gone {
		lacks = total
	}
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
		h.amount = max(h.amount, total)
		if h.state == gone {
			h.state, h.used = open, h.next
		}
	}
}

func (m *model) progress(t *rapid.T) {
	h := m.pick(t, open, gone)
	h.next = amounts(t, "used")
	used(h.Hold, int64(h.next))
}

func (m *model) renew(t *rapid.T) {
	_, _, index := m.draw(t)
	m.renewOn(t, index)
}

func (m *model) renewOn(t *rapid.T, index int) {
	for _, h := range m.holds { // extended here in a known order, because Renew does not wait for the lost holds
		if h.ledger == index && h.state == gone {
			m.extendTo(t, h, h.amount)
		}
	}
	m.trouble(t)
	if err := m.ledgers[index].Renew(m.background()); err != nil {
		t.Fatalf("renew: %v", err)
	}
	for _, h := range m.holds {
		if h.ledger == index && h.state == open {
			h.used = h.next
		}
	}
}

func (m *model) settle(t *rapid.T) {
	h := m.pick(t, open, swept, gone)
	cost := amounts(t, "calls")
	m.trouble(t)
	entry, err := h.Settle(m.background(), calls(cost))
	if err != nil {
		t.Fatalf("settle: %v", err)
	}
	want := h.end(m.now, cost)
	if entry.Charged != want {
		t.Fatalf("settle %d calls of a hold of %d: charged %d, want %d", cost, h.amount, entry.Charged, want)
	}
}

func (m *model) release(t *rapid.T) {
	h := m.pick(t, open, swept, gone)
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

// strand makes one ledger stand still after it has renewed an open hold, and makes the other ledger sweep the hold.
func (m *model) strand(t *rapid.T) {
	h := m.pick(t, open)
	h.next = amounts(t, "used")
	used(h.Hold, int64(h.next))
	m.renewOn(t, h.ledger)
	m.sweepOn(t, 1-h.ledger)
}

// advance moves the store's clock by steps that never come close to the end of the time for late settlements.
func (m *model) advance(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{10 * time.Minute, 35 * time.Minute, 70 * time.Minute, 200 * time.Minute}).Draw(t, "by")
	d += 1500 * time.Millisecond * time.Duration(rapid.IntRange(1, 20).Draw(t, "and"))
	m.now += d
	m.e.store.advance(d)
}

func (m *model) sweep(t *rapid.T) {
	_, _, index := m.draw(t)
	m.sweepOn(t, index)
}

// sweepOn makes one ledger look for a lease in which no other ledger sends a heartbeat. The other ledger learns with
// its next heartbeat that it was taken for dead.
func (m *model) sweepOn(t *rapid.T, index int) {
	m.trouble(t)
	for range looks {
		m.e.clock.advance(lease / (looks - 2))
		if _, err := m.ledgers[index].Sweep(m.background()); err != nil {
			t.Fatalf("sweep: %v", err)
		}
	}
	if err := m.ledgers[1-index].Renew(m.background()); err != nil {
		t.Fatalf("renew: %v", err)
	}
	for _, h := range m.holds {
		alive := h.state == open && h.ledger == index
		if (h.state == open || h.state == dead) && !alive {
			h.move(-h.amount)
			h.charge(min(h.used*h.rate, h.amount))
			h.sweptAt = m.now
			if h.state = swept; h.ledger < 0 {
				h.state = ended // no owner is left that could replace the charge
			}
		}
	}
}

// crash replaces a ledger, and leaves its holds without a living owner.
func (m *model) crash(t *rapid.T) {
	_, l, index := m.draw(t)
	m.operations++
	kill(l)
	m.crashed(t, index)
}

// crashed opens a ledger in place of a ledger that died.
func (m *model) crashed(t *rapid.T, index int) {
	m.ledgers[index] = m.openLedger(t)
	for _, h := range m.holds {
		if h.ledger == index {
			h.ledger = -1
			switch h.state {
			case open:
				h.state = dead
			case swept, gone:
				h.state = ended
			}
		}
	}
}

// crashAmid crashes a ledger while it settles and the store is away. The settlement was kept or lost, and the books are
// right in both cases.
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

// committed reports whether the store has ended a hold.
func (m *model) committed(h *modelHold) bool {
	b, err := m.e.ledger.Balance(context.Background(), h.account.id, nil)
	return err == nil && b.Held == h.account.held-h.amount && h.amount > 0
}

func (m *model) finish(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "rarely") == 0 {
		m.audit(t)
	}
}
