package storetest

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// damage is one change of one msat, or of one row, that the ledger does not know of. name begins with the changed
// table.
type damage struct {
	name string
	sql  string // $row is replaced by an expression that names one row
	rows string // table, with an order, of which one of the first rows is changed
	key  string
	only string // set when an audit of what is new cannot find the damage: why
}

var damages = []damage{
	{name: "accounts: more", sql: "UPDATE accounts SET available = available + 1, deposited = deposited + 1 WHERE id = $row"},
	{name: "accounts: less charged", sql: "UPDATE accounts SET available = available + 1, charged = charged - 1 WHERE id = $row"},
	{name: "accounts: adjusted", sql: "UPDATE accounts SET available = available - 1, adjusted = adjusted - 1 WHERE id = $row"},
	{name: "accounts: held", sql: "UPDATE accounts SET available = available - 1, held = held + 1 WHERE id = $row"},
	{name: "accounts: a budget", sql: "UPDATE accounts SET budgets = budgets + 1 WHERE id = $row"},
	{name: "accounts: gone", sql: "DELETE FROM accounts WHERE id = $row"},
	{name: "transfers: more", sql: "UPDATE transfers SET amount = amount + 1 WHERE seq = $row", rows: "transfers ORDER BY seq DESC", key: "seq"},
	{name: "transfers: another kind", sql: "UPDATE transfers SET kind = kind % 4 + 1 WHERE seq = $row", rows: "transfers ORDER BY seq DESC", key: "seq"},
	{name: "transfers: gone", sql: "DELETE FROM transfers WHERE seq = $row", rows: "transfers ORDER BY seq DESC", key: "seq"},
	{name: "transfers: twice", sql: `INSERT INTO transfers (kind, debit, credit, amount, ref, at)
		SELECT kind, debit, credit, amount, ref, at FROM transfers WHERE seq = $row`, rows: "transfers ORDER BY seq DESC", key: "seq"},
	{name: "charges: less", sql: "UPDATE charges SET charged = charged - 1 WHERE hold = $row", rows: "charges WHERE charged > 0 ORDER BY hold DESC", key: "hold"},
	{name: "charges: not billed", sql: "UPDATE charges SET unbilled = unbilled + 1 WHERE hold = $row", rows: "charges WHERE charged > 0 ORDER BY hold DESC", key: "hold"},
	{name: "charges: billed less", sql: "UPDATE charges SET charged = charged - 1, unbilled = unbilled + 1 WHERE hold = $row",
		rows: "charges WHERE charged > 0 ORDER BY hold DESC", key: "hold"},
	{name: "charges: held", sql: "UPDATE charges SET amount = amount + 1 WHERE hold = $row", rows: "charges WHERE charged > 0 ORDER BY hold DESC", key: "hold"},
	{name: "charges: gone", sql: "DELETE FROM charges WHERE hold = $row", rows: "charges WHERE charged > 0 ORDER BY hold DESC", key: "hold"},
	{name: "charges: another's", sql: "UPDATE charges SET account = (SELECT hash FROM deposits ORDER BY hash LIMIT 1) WHERE hold = $row",
		rows: "charges WHERE charged > 0 ORDER BY hold DESC", key: "hold"},
	{name: "charges: of nothing", sql: "UPDATE charges SET charged = charged + 1 WHERE hold = $row", rows: "charges WHERE charged = 0 AND amount > 0 ORDER BY hold DESC",
		key: "hold", only: "no line names it"},
	{name: "charges: made up", sql: `INSERT INTO charges (hold, account, at, service, model, source, outcome, backend, usage, clamped, delivered,
		amount, charged, unbilled, epoch, rates, provisional) SELECT (SELECT id FROM adjustments ORDER BY id LIMIT 1), account, at, service, model, source, outcome,
		backend, usage, clamped, delivered, amount, charged, unbilled, epoch, rates, provisional FROM charges WHERE hold = $row`,
		rows: "charges WHERE charged > 0 ORDER BY hold DESC", key: "hold", only: "no line names it"},
	{name: "deposits: more", sql: "UPDATE deposits SET credited = credited + 1 WHERE hash = $row", rows: "deposits ORDER BY presented DESC", key: "hash"},
	{name: "deposits: covered", sql: "UPDATE deposits SET covered = covered + 1 WHERE hash = $row", rows: "deposits WHERE covered > 0 ORDER BY presented DESC", key: "hash"},
	{name: "deposits: owed", sql: "UPDATE deposits SET owed = owed + 1 WHERE hash = $row",
		rows: "deposits WHERE settled IS NULL ORDER BY presented DESC", key: "hash"},
	{name: "deposits: gone", sql: "DELETE FROM deposits WHERE hash = $row", rows: "deposits ORDER BY presented DESC", key: "hash"},
	{name: "deposits: made up", sql: `INSERT INTO deposits (hash, account, credited, presented)
		SELECT account, account, 1, presented FROM deposits WHERE hash = $row`, rows: "deposits ORDER BY presented DESC", key: "hash", only: "no line names it"},
	{name: "budgets: spent", sql: "UPDATE budgets SET spent = spent + 1 WHERE id = $row", rows: "budgets ORDER BY id", key: "id"},
	{name: "budgets: held", sql: "UPDATE budgets SET held = held + 1 WHERE id = $row", rows: "budgets ORDER BY id", key: "id"},
	{name: "budgets: limit", sql: "UPDATE budgets SET max_spend = max_spend + 1 WHERE id = $row", rows: "budgets ORDER BY id", key: "id"},
	{name: "budgets: gone", sql: "DELETE FROM budgets WHERE id = $row", rows: "budgets ORDER BY id", key: "id"},
	{name: "budget lines: more", sql: "UPDATE budget_lines SET amount = amount + 1 WHERE seq = $row", rows: "budget_lines ORDER BY seq DESC", key: "seq"},
	{name: "budget lines: gone", sql: "DELETE FROM budget_lines WHERE seq = $row", rows: "budget_lines ORDER BY seq DESC", key: "seq"},
	{name: "adjustments: more", sql: "UPDATE adjustments SET delta = delta + 1 WHERE id = $row", rows: "adjustments ORDER BY at DESC", key: "id"},
	{name: "adjustments: gone", sql: "DELETE FROM adjustments WHERE id = $row", rows: "adjustments ORDER BY at DESC", key: "id"},
	{name: "adjustments: made up", sql: `INSERT INTO adjustments (id, account, delta, reason, at)
		SELECT (SELECT hold FROM charges ORDER BY hold LIMIT 1), account, 5, reason, at FROM adjustments WHERE id = $row`, rows: "adjustments ORDER BY at DESC", key: "id", only: "no line names it"},
	{name: "holds: more", sql: "UPDATE holds SET amount = amount + 1 WHERE id = $row", rows: "holds ORDER BY id", key: "id"},
	{name: "holds: gone", sql: "DELETE FROM holds WHERE id = $row", rows: "holds ORDER BY id", key: "id"},
}

// Damage shows audits a ledger of which one row was changed by hand, and checks that they find the change. exec runs a
// statement without the store's guards, which an intruder would remove first.
func Damage(t *testing.T, open func(t *testing.T) (s metering.Store, exec func(sql string) int64)) {
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			store, exec := open(t)
			e := newEnv(t, store)
			e.skipFinalAudit = true
			history(e, 12)
			e.auditNew()
			if rand.IntN(2) == 0 {
				if _, err := e.ledger.SealPeriod(ctx(t), time.Unix(1, 0)); err != nil {
					t.Fatal(err)
				}
			}
			history(e, 12)
			e.audit()
			if n := exec(d.on(rand.IntN(2))); n != 1 {
				t.Fatalf("%d rows were changed", n)
			}
			r, err := e.ledger.Audit(ctx(t))
			if err != nil || r.OK() {
				t.Errorf("the audit does not find it: %+v, %v", r, err)
			}
			if d.only != "" {
				return
			}
			for range 2 { // each further audit finds it as well
				if r, err := e.ledger.AuditNew(ctx(t)); err != nil || r.OK() {
					t.Errorf("the audit of what is new does not find it: %+v, %v", r, err)
				}
			}
			if r, err := e.ledger.AuditWith(ctx(t), metering.AuditOptions{Open: true}); err != nil || r.OK() {
				t.Errorf("the audit of the open period does not find it: %+v, %v", r, err)
			}
		})
	}
}

// Old changes rows that the last audit has seen and that nothing has touched since, and checks that a full audit finds
// each change.
func Old(t *testing.T, open func(t *testing.T) (s metering.Store, exec func(sql string) int64)) {
	for _, d := range damages {
		if d.rows == "holds ORDER BY id" {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			store, exec := open(t)
			e := newEnv(t, store)
			e.skipFinalAudit = true
			history(e, 6)
			history(e, 6)
			e.auditNew()
			if rand.IntN(2) == 0 {
				if _, err := e.ledger.SealPeriod(ctx(t), time.Unix(1, 0)); err != nil {
					t.Fatal(err)
				}
			}
			n := exec(d.on(rand.IntN(2)))
			history(e, 12)
			if r, err := e.ledger.Audit(ctx(t)); n != 1 || err != nil || r.OK() {
				t.Errorf("%d rows changed, the audit does not find it: %+v, %v", n, r, err)
			}
		})
	}
}

// on returns the statement for one of the newest rows. An account is the account of the newest charge.
func (d *damage) on(which int) string {
	row := "(SELECT account FROM charges ORDER BY hold DESC LIMIT 1)"
	if d.rows != "" {
		row = "(SELECT " + d.key + " FROM " + d.rows + " LIMIT 1 OFFSET " + string('0'+rune(which)) + ")"
	}
	return strings.ReplaceAll(d.sql, "$row", row)
}

// history moves money in every possible way, on two new accounts.
func history(e *env, n int) {
	e.Helper()
	outer, inner := newBudget(50_000), newBudget(40_000)
	id, payment := e.paid(100_000)
	poor := e.account(50)
	other := e.open(metering.Config{})
	for i := range n {
		e.settle(e.reserve(id, 500, outer, inner), l402.Msat(20+i))
		e.settle(e.reserveOn(e.ledger, quoted(id, payment, 1e6, 300)), 100)
		swept := e.reserveOn(other, reservation(id, 300, outer))
		used(swept, 40)
		if err := other.Renew(ctx(e.T)); err != nil {
			e.Fatal(err)
		}
		e.stall(other)
		e.sweep(e.ledger, 1)
		if err := other.Renew(ctx(e.T)); err != nil { // other continues under a new name
			e.Fatal(err)
		}
		e.living = append(e.living, other)
		if i%2 == 0 {
			if _, err := swept.Settle(ctx(e.T), calls(60)); err != nil {
				e.Fatal(err)
			}
		}
		if err := e.ledger.Adjust(ctx(e.T), metering.NewHoldID(), id, 11, "test"); err != nil {
			e.Fatal(err)
		}
		e.deposit(id, 70)
	}
	e.lose(poor)
	for range 2 {
		e.reserve(id, 70, outer, inner)
		e.reserveOn(e.ledger, quoted(id, payment, 1e6, 30))
	}
	e.settle(e.reserve(id, 500, outer, inner), 33)
}

// lose leaves charges of 0 msat with an unbilled amount, made by holds of 0 msat whose requests cost something. It also
// leaves charges of 0 msat that a sweep made.
func (e *env) lose(id l402.TokenID) {
	e.Helper()
	for range 2 {
		h := e.reserve(id, 0)
		if err := h.Extend(ctx(e.T), 0); err != nil {
			e.Fatal(err)
		}
		e.settle(h, 9)
	}
	for range 2 { // swept before any usage was reported
		other := e.open(metering.Config{})
		e.reserveOn(other, reservation(id, 5))
		e.kill(other)
		e.sweep(e.ledger, 1)
	}
}
