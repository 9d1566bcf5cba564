package postgres

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// Column lists, in the order in which the functions below read them.
const (
	accountColumns = `id, status, available, held, deposited, charged, adjusted, budgets, last_charge, xmin`
	budgetColumns  = `id, account, max_spend, spent, held, parent, children, valid_until, last_charge, checksum`
	holdColumns    = `id, account, amount, owner, context, usage, source`
	chargeColumns  = `hold, account, prev, at, service, model, chain, source, outcome, backend, usage,
clamped, delivered, amount, charged, unbilled, epoch, rates, provisional, rate_lock, chain_prev, checksum`
	depositColumns = `hash, account, credited, presented, settled, node, settle_index, covered, doubted, owed`
)

// clock is the server's time in µs since 1970, which all gateways use. No lease depends on this time, because the
// clocks of servers step.
const clock = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

// raw is one row in the server's binary format. It is valid until the next row is read.
type raw [][]byte

// int reads an integer of any width. NULL is 0.
func (r raw) int(i int) int64 {
	switch b := r[i]; len(b) {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(b)))
	case 4:
		return int64(int32(binary.BigEndian.Uint32(b)))
	case 8:
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r raw) msat(i int) l402.Msat { return l402.Msat(r.int(i)) }

func (r raw) bool(i int) bool { return len(r[i]) == 1 && r[i][0] != 0 }

// id copies bytes or a UUID. NULL leaves into unchanged.
func (r raw) id(i int, into []byte) { copy(into, r[i]) }

func (r raw) bytes(i int) []byte { return append([]byte{}, r[i]...) }

func (r raw) text(i int) string { return string(r[i]) }

// load reads the rows that the batch lacks, and the clock, in one round trip and one snapshot, without a lock. A batch
// that writes does not need one snapshot, because the account's version shows a change. But a refusal writes nothing.
// Without one snapshot, a gateway could miss an account that another gateway makes at that moment, see the payment that
// belongs to the account, and refuse a client who has paid.
func (d *DB) load(ctx context.Context, c *pgx.Conn, b *metering.Batch) error {
	var p pipeline
	p.add(nil, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
	loadRows(&p, b)
	if b.Now = d.recent.now(); b.Now != 0 && p.Len() == 1 {
		return nil // the batch lacks no rows, and the clock is known
	}
	p.add(func(r raw) { b.Now = r.int(0) }, "SELECT "+clock)
	p.add(nil, "COMMIT")
	return p.run(ctx, c)
}

// loadRows adds the queries for the rows that the batch lacks.
func loadRows(p *pipeline, b *metering.Batch) {
	if list := keys(&b.Accounts, token); len(list) > 0 {
		p.add(func(r raw) { a := readAccount(r); b.Accounts.Loaded(a.ID, a) },
			`SELECT `+accountColumns+` FROM accounts WHERE id = ANY($1)`, list)
	}
	if list := keys(&b.Budgets, hash); len(list) > 0 {
		p.add(func(r raw) { x := readBudget(r); b.Budgets.Loaded(x.ID, x) },
			`SELECT `+budgetColumns+` FROM budgets WHERE id = ANY($1)`, list)
	}
	if list := uuids(&b.Holds); len(list) > 0 {
		p.add(func(r raw) { h := readHold(r); b.Holds.Loaded(h.ID, h) },
			`SELECT `+holdColumns+` FROM holds WHERE id = ANY($1)`, list)
	}
	if list := uuids(&b.Charges); len(list) > 0 {
		p.add(func(r raw) { x := readCharge(r); b.Charges.Loaded(x.Hold, x) },
			`SELECT `+chargeColumns+` FROM charges WHERE hold = ANY($1)`, list)
	}
	loadRest(p, b)
}

// loadRest adds the queries for the tables that few batches touch.
func loadRest(p *pipeline, b *metering.Batch) {
	if list := keys(&b.Deposits, payment); len(list) > 0 {
		p.add(func(r raw) { x := readDeposit(r); b.Deposits.Loaded(x.Hash, x) },
			`SELECT `+depositColumns+` FROM deposits WHERE hash = ANY($1)`, list)
	}
	if list := keys(&b.Windows, hash); len(list) > 0 {
		p.add(func(r raw) {
			x := metering.WindowRow{Window: r.int(1), Count: r.int(2), Previous: r.int(3)}
			r.id(0, x.ID[:])
			b.Windows.Loaded(x.ID, x)
		}, `SELECT id, minute, count, previous FROM rate_windows WHERE id = ANY($1)`, list)
	}
	if list := keys(&b.Keys, func(k metering.KeyID) []byte { return k.Account[:] }); len(list) > 0 {
		p.add(func(r raw) {
			x := metering.KeyRow{Charged: r.bool(4), Expires: r.int(5)}
			r.id(0, x.Account[:])
			r.id(1, x.Key[:])
			r.id(2, x.Body[:])
			r.id(3, x.Hold[:])
			b.Keys.Loaded(x.KeyID, x)
		}, `SELECT account, key, body, hold, charged, expires FROM idempotency_keys
			WHERE (account, key) IN (SELECT * FROM unnest($1::bytea[], $2::bytea[]))`,
			list, keys(&b.Keys, func(k metering.KeyID) []byte { return k.Key[:] }))
	}
	if list := uuids(&b.Adjustments); len(list) > 0 {
		p.add(func(r raw) {
			x := metering.AdjustmentRow{Delta: r.msat(2), Reason: r.text(3), At: r.int(4)}
			r.id(0, x.ID[:])
			r.id(1, x.Account[:])
			b.Adjustments.Loaded(x.ID, x)
		}, `SELECT id, account, delta, reason, at FROM adjustments WHERE id = ANY($1)`, list)
	}
	if list := slices.Collect(b.Cursors.Missing); len(list) > 0 {
		p.add(func(r raw) { x := readCursor(r); b.Cursors.Loaded(x.Node, x) },
			`SELECT node, settle_index, hash, since FROM settle_cursors WHERE node = ANY($1)`, list)
	}
}

// keys returns the keys of the rows that a table lacks, as bytes.
func keys[K comparable, R any](t *metering.Table[K, R], bytes func(K) []byte) (list [][]byte) {
	t.Missing(func(k K) bool { list = append(list, bytes(k)); return true })
	return list
}

func token(k l402.TokenID) []byte         { return k[:] }
func hash(k [32]byte) []byte              { return k[:] }
func payment(k l402.PaymentHash) []byte   { return k[:] }
func uuid(id metering.HoldID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }

// optionalUUID returns NULL for an id of zeros.
func optionalUUID(id metering.HoldID) pgtype.UUID {
	return pgtype.UUID{Bytes: id, Valid: id != metering.HoldID{}}
}

func uuids[R any](t *metering.Table[metering.HoldID, R]) (list []pgtype.UUID) {
	t.Missing(func(k metering.HoldID) bool { list = append(list, uuid(k)); return true })
	return list
}

func readAccount(r raw) metering.AccountRow {
	a := metering.AccountRow{Status: metering.Status(r.int(1)), Available: r.msat(2), Held: r.msat(3),
		Deposited: r.msat(4), Charged: r.msat(5), Adjusted: r.msat(6), Budgets: r.int(7)}
	r.id(0, a.ID[:])
	r.id(8, a.Last[:])
	a.Version = int64(uint32(r.int(9)))
	return a
}

func readBudget(r raw) metering.BudgetRow {
	x := metering.BudgetRow{Limit: r.msat(2), Spent: r.msat(3), Held: r.msat(4), Children: r.int(6), ValidUntil: r.int(7),
		Checksum: int32(r.int(9))}
	r.id(0, x.ID[:])
	r.id(1, x.Account[:])
	r.id(5, x.Parent[:])
	r.id(8, x.Last[:])
	return x
}

func readHold(r raw) metering.HoldRow {
	h := metering.HoldRow{Amount: r.msat(2), Context: r.bytes(4), Usage: r.bytes(5),
		Source: metering.Source(r.text(6))}
	r.id(0, h.ID[:])
	r.id(1, h.Account[:])
	r.id(3, h.Owner[:])
	return h
}

func readCharge(r raw) metering.ChargeRow {
	x := metering.ChargeRow{At: r.int(3), Service: r.text(4), Model: r.text(5), Source: metering.Source(r.text(7)),
		Outcome: metering.Outcome(r.text(8)), Backend: r.text(9), Usage: r.bytes(10), Clamped: r.bool(11),
		Delivered: r.int(12), Amount: r.msat(13), Charged: r.msat(14), Unbilled: r.msat(15), Epoch: r.int(16),
		Rates: r.bytes(17), Provisional: r.bool(18), Checksum: int32(r.int(21))}
	r.id(0, x.Hold[:])
	r.id(1, x.Account[:])
	r.id(2, x.Prev[:])
	r.id(6, x.Chain[:])
	r.id(19, x.Lock[:])
	r.id(20, x.ChainPrev[:])
	return x
}

func readDeposit(r raw) metering.DepositRow {
	x := metering.DepositRow{Credited: r.msat(2), Presented: r.int(3), Settled: r.int(4), Node: r.text(5), Index: uint64(r.int(6)), Covered: r.msat(7),
		Doubted: r.int(8), Owed: r.msat(9)}
	r.id(0, x.Hash[:])
	r.id(1, x.Account[:])
	return x
}

func readCursor(r raw) metering.CursorRow {
	x := metering.CursorRow{Node: r.text(0), Index: uint64(r.int(1)), Since: r.int(3)}
	r.id(2, x.Hash[:])
	return x
}
