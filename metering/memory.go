package metering

import (
	"sync"

	"sluice.example/sluice/l402"
)

const (
	// maxRemembered bounds a Memory, in rows. That many rows take some 80 MiB, if that many accounts pay. With 100,000
	// accounts that take turns, a bound of 65,536 rows cost a fifth of the rate, because the needed rows were no longer
	// remembered.
	maxRemembered = 1 << 18
	// distrustFor is for how many batches an account is loaded after another process has changed it. Without this,
	// gateways that serve the same account would spend most of their batches on rows that another gateway has replaced.
	distrustFor = 8
)

// Memory is the rows that one process wrote last, with the versions of their accounts. A Store that compares versions
// when it writes may decide a batch on these rows instead of loading them. If another process has changed the account
// since, the write leaves the account out, as it does after a load. No version is compared for a decision that writes
// nothing, so such a decision counts only on loaded rows: see Stands.
//
// A caller that got no answer from the server, or lost its connection, must call Forget. Safe for concurrent use. The
// zero value is ready.
type Memory struct {
	mu       sync.Mutex
	accounts map[l402.TokenID]*knownAccount
	budgets  map[[32]byte]known[BudgetRow]
	holds    map[HoldID]known[HoldRow]
}

type knownAccount struct {
	row      AccountRow
	distrust int // for how many more batches the account is loaded
}

// known is a row that is valid as long as of is what the Memory knows of the row's account.
type known[R any] struct {
	row R
	of  *knownAccount
}

// Forget drops all rows.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget()
}

func (m *Memory) forget() {
	m.accounts = make(map[l402.TokenID]*knownAccount)
	m.budgets = make(map[[32]byte]known[BudgetRow])
	m.holds = make(map[HoldID]known[HoldRow])
}

// Len returns how many rows the Memory has.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.accounts) + len(m.budgets) + len(m.holds)
}

// Fill gives a batch the rows that the Memory has, so that the store need not load them. It gives no rows to a batch of
// which an earlier attempt may have been committed.
func (m *Memory) Fill(b *Batch) {
	if b.repeated {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range b.Accounts.cells[:b.Accounts.n] {
		if a := m.accounts[e.key]; a != nil && a.distrust == 0 {
			e.recall(a.row)
		}
	}
	for _, e := range b.Budgets.cells[:b.Budgets.n] {
		if k, ok := m.budgets[e.key]; ok && m.stands(b, k.row.Account, k.of) {
			e.recall(k.row)
		}
	}
	for _, e := range b.Holds.cells[:b.Holds.n] {
		if k, ok := m.holds[e.key]; ok && !e.latest && m.stands(b, k.row.Account, k.of) {
			e.recall(k.row)
		}
	}
	for _, e := range b.Charges.cells[:b.Charges.n] { // a hold is either open or charged, so an open hold has no charge
		e.known = b.Holds.recalled(e.key)
	}
}

// stands reports whether a remembered row is valid, and the batch has the row's account from memory as well.
func (m *Memory) stands(b *Batch, id l402.TokenID, of *knownAccount) bool {
	return m.accounts[id] == of && b.Accounts.recalled(id)
}

// Stands reports, after decide, whether the write will compare the version of each account that came from memory. If
// not, the store calls Rewind, loads all rows and decides anew.
func (m *Memory) Stands(b *Batch) bool {
	for _, e := range b.Accounts.cells[:b.Accounts.n] {
		if e.known && !e.changed {
			return false
		}
	}
	return true
}

// Wrote remembers what a batch has written, under the version that its accounts have now. The store calls Miss before,
// for the accounts that it left out.
func (m *Memory) Wrote(b *Batch, version int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.accounts == nil || len(m.accounts)+len(m.budgets)+len(m.holds) > maxRemembered {
		m.forget()
	}
	for _, e := range b.Accounts.cells[:b.Accounts.n] {
		if !e.changed || !e.present {
			continue
		}
		if _, missed := b.missed[e.key]; missed {
			m.accounts[e.key] = &knownAccount{distrust: distrustFor}
			continue
		}
		m.wroteAccount(&e.row, version)
	}
	for _, e := range b.Budgets.cells[:b.Budgets.n] {
		a := b.written(e.row.Account)
		switch {
		case !a:
		case e.present:
			m.budgets[e.key] = known[BudgetRow]{e.row, m.accounts[e.row.Account]}
		default:
			delete(m.budgets, e.key)
		}
	}
	for _, e := range b.Holds.cells[:b.Holds.n] {
		switch {
		case !e.changed || !b.written(e.row.Account):
		case e.present:
			m.holds[e.key] = known[HoldRow]{e.row, m.accounts[e.row.Account]}
		default:
			delete(m.holds, e.key)
		}
	}
}

// wroteAccount remembers an account row. It keeps the account's other rows only if no other process has written the
// account since they were remembered.
func (m *Memory) wroteAccount(row *AccountRow, version int64) {
	a, alone := m.accounts[row.ID], false
	if a != nil {
		alone = a.row.Version == row.Version
	}
	switch {
	case a == nil:
		a = &knownAccount{}
	case !alone && a.distrust > 0:
		a = &knownAccount{distrust: distrustFor}
	case !alone:
		a = &knownAccount{}
	case a.distrust > 0:
		a.distrust--
	}
	a.row = *row
	a.row.Version = version
	m.accounts[row.ID] = a
}

// written reports whether the batch has changed an account that the store did not leave out.
func (b *Batch) written(id l402.TokenID) bool {
	i, ok := b.Accounts.index[id]
	if !ok || !b.Accounts.cells[i].changed {
		return false
	}
	_, missed := b.missed[id]
	return !missed
}

// Rewind takes back all decisions and all loaded rows, so that the next load reads every row.
func (b *Batch) Rewind() {
	b.Durable = false
	b.Transfers, b.BudgetLines = b.Transfers[:0], b.BudgetLines[:0]
	b.Accounts.rewind()
	b.Budgets.rewind()
	b.Holds.rewind()
	b.Charges.rewind()
	b.Deposits.rewind()
	b.Windows.rewind()
	b.Keys.rewind()
	b.Adjustments.rewind()
	b.Cursors.rewind()
}
