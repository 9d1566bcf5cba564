package postgres

import (
	"context"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// The fates of an account of a batch, as sluice_apply_5 returns them. Any other number means that the account was
// changed since it was loaded.
const (
	taken  = 1
	locked = 2
)

// written is the server's answer to a batch that it wrote.
type written struct {
	version int64 // the version that the batch's accounts have now
	now     int64 // the server's clock, µs since 1970
}

// save writes the changes of the batch with one statement. The server has the whole batch before it takes the first
// lock, so a gateway that stands still delays no other gateway.
func save(ctx context.Context, c *pgx.Conn, b *metering.Batch) (w written, err error) {
	accounts := collect(b.Accounts.Upserted)
	call := applyCall{at: make(map[l402.TokenID]int32, len(accounts))}
	for i, a := range accounts {
		call.at[a.ID] = int32(i + 1)
	}
	call.accounts(b, accounts)
	call.budgets(b)
	call.holds(b)
	call.charges(b)
	call.lines(b)
	call.deposits(b)
	call.limits(b)
	call.rest(b)
	var state []int16
	var version pgtype.Uint32
	if err := c.QueryRow(ctx, applySQL, append([]any{b.Durable}, call.args...)...).Scan(&state, &version, &w.now); err != nil {
		return w, err
	}
	w.version = int64(version.Uint32)
	for i, a := range accounts {
		if state[i] != taken {
			b.Miss(a.ID, state[i] == locked)
		}
	}
	return w, nil
}

// applySQL calls sluice_apply_5, and asks for the version of the rows that it writes. The parameters are those that
// applyCall adds, in the order of the calls in save.
var applySQL = "SELECT sluice_apply_5(" + placeholders(applyParameters) + "), pg_current_xact_id()::xid, " + clock

const applyParameters = 100 // the most parameters of a function that PostgreSQL allows

func placeholders(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "$" + strconv.Itoa(i+1)
	}
	return strings.Join(list, ", ")
}

// applyCall collects the columns of one batch.
type applyCall struct {
	at   map[l402.TokenID]int32 // place of an account in the batch, from 1
	args []any
}

func (c *applyCall) add(columns ...any) { c.args = append(c.args, columns...) }

// column collects one field of rows. It returns nil (NULL) without rows, because NULL costs the server less than an
// empty array, and most batches change only a few tables.
func column[R, V any](rows []*R, field func(*R) V) []V {
	if len(rows) == 0 {
		return nil
	}
	list := make([]V, len(rows))
	for i, r := range rows {
		list[i] = field(r)
	}
	return list
}

func collect[R any](rows func(func(*R) bool)) (list []*R) {
	rows(func(r *R) bool { list = append(list, r); return true })
	return list
}

// amounts collects a field of msat amounts.
func amounts[R any](rows []*R, field func(*R) l402.Msat) []int64 {
	return column(rows, func(r *R) int64 { return int64(field(r)) })
}

// optional returns nil (NULL) for an identifier of zeros.
func optional(id []byte) []byte {
	for _, b := range id {
		if b != 0 {
			return id
		}
	}
	return nil
}

// checksum returns NULL for a checksum of 0.
func checksum(v int32) pgtype.Int4 { return pgtype.Int4{Int32: v, Valid: v != 0} }

// moment returns NULL for a time of 0, which means never.
func moment(v int64) pgtype.Int8 { return pgtype.Int8{Int64: v, Valid: v != 0} }

func (c *applyCall) accounts(b *metering.Batch, rows []*metering.AccountRow) {
	type row = metering.AccountRow
	stored := make(map[l402.TokenID]bool, len(rows))
	b.Accounts.Updated(func(r *row) bool { stored[r.ID] = true; return true })
	version := func(r *row) pgtype.Uint32 { return pgtype.Uint32{Uint32: uint32(r.Version), Valid: stored[r.ID]} }
	c.add(column(rows, func(r *row) []byte { return r.ID[:] }), column(rows, version),
		column(rows, func(r *row) int16 { return int16(r.Status) }),
		amounts(rows, func(r *row) l402.Msat { return r.Available }), amounts(rows, func(r *row) l402.Msat { return r.Held }),
		amounts(rows, func(r *row) l402.Msat { return r.Deposited }), amounts(rows, func(r *row) l402.Msat { return r.Charged }),
		amounts(rows, func(r *row) l402.Msat { return r.Adjusted }), column(rows, func(r *row) int64 { return r.Budgets }),
		column(rows, func(r *row) pgtype.UUID { return optionalUUID(r.Last) }))
}

func (c *applyCall) budgets(b *metering.Batch) {
	type row = metering.BudgetRow
	rows := collect(b.Budgets.Upserted)
	kept := len(rows)
	b.Budgets.Deleted(func(r *row) bool { rows = append(rows, r); return true })
	limits := column(rows, func(r *row) pgtype.Int8 { return pgtype.Int8{Int64: int64(r.Limit), Valid: true} })
	for i := kept; i < len(rows); i++ {
		limits[i] = pgtype.Int8{}
	}
	c.add(column(rows, func(r *row) int32 { return c.at[r.Account] }), column(rows, func(r *row) []byte { return r.ID[:] }),
		column(rows, func(r *row) []byte { return optional(r.Parent[:]) }), limits,
		amounts(rows, func(r *row) l402.Msat { return r.Spent }), amounts(rows, func(r *row) l402.Msat { return r.Held }),
		column(rows, func(r *row) int64 { return r.Children }), column(rows, func(r *row) int64 { return r.ValidUntil }),
		column(rows, func(r *row) pgtype.UUID { return optionalUUID(r.Last) }), column(rows, func(r *row) pgtype.Int4 { return checksum(r.Checksum) }))
}

// holds does not write the running usage of holds that are stored already. Heartbeats write it, and their usage may be
// newer than the usage that the batch has read.
func (c *applyCall) holds(b *metering.Batch) {
	type row = metering.HoldRow
	at := func(r *row) int32 { return c.at[r.Account] }
	id := func(r *row) pgtype.UUID { return uuid(r.ID) }
	amount := func(r *row) l402.Msat { return r.Amount }
	owner := func(r *row) pgtype.UUID { return pgtype.UUID{Bytes: r.Owner, Valid: true} }
	rows := collect(b.Holds.Inserted)
	c.add(column(rows, at), column(rows, id), amounts(rows, amount), column(rows, owner),
		column(rows, func(r *row) []byte { return r.Context }), column(rows, func(r *row) []byte { return r.Usage }),
		column(rows, func(r *row) string { return string(r.Source) }))
	rows = collect(b.Holds.Updated)
	c.add(column(rows, at), column(rows, id), amounts(rows, amount), column(rows, owner))
	rows = collect(b.Holds.Deleted)
	c.add(column(rows, at), column(rows, id))
}

func (c *applyCall) charges(b *metering.Batch) {
	type row = metering.ChargeRow
	rows := collect(b.Charges.Inserted)
	inserted := len(rows)
	b.Charges.Updated(func(r *row) bool { rows = append(rows, r); return true })
	at := column(rows, func(r *row) int32 { return c.at[r.Account] })
	for i := inserted; i < len(at); i++ {
		at[i] = -at[i]
	}
	c.add(at, column(rows, func(r *row) pgtype.UUID { return uuid(r.Hold) }),
		column(rows, func(r *row) pgtype.UUID { return optionalUUID(r.Prev) }),
		column(rows, func(r *row) pgtype.UUID { return optionalUUID(r.ChainPrev) }), column(rows, func(r *row) int64 { return r.At }),
		column(rows, func(r *row) string { return r.Service }), column(rows, func(r *row) string { return r.Model }),
		column(rows, func(r *row) []byte { return optional(r.Chain[:]) }), column(rows, func(r *row) string { return string(r.Source) }),
		column(rows, func(r *row) string { return string(r.Outcome) }), column(rows, func(r *row) string { return r.Backend }),
		column(rows, func(r *row) []byte { return r.Usage }), column(rows, flags),
		column(rows, func(r *row) int64 { return r.Delivered }), amounts(rows, func(r *row) l402.Msat { return r.Amount }),
		amounts(rows, func(r *row) l402.Msat { return r.Charged }), amounts(rows, func(r *row) l402.Msat { return r.Unbilled }),
		column(rows, func(r *row) int64 { return r.Epoch }), column(rows, func(r *row) []byte { return r.Rates }),
		column(rows, func(r *row) []byte { return optional(r.Lock[:]) }), column(rows, func(r *row) pgtype.Int4 { return checksum(r.Checksum) }))
}

// flags returns the flags of a charge: 1 for Clamped, 2 for Provisional.
func flags(r *metering.ChargeRow) (f int16) {
	if r.Clamped {
		f |= 1
	}
	if r.Provisional {
		f |= 2
	}
	return f
}

// pointers returns pointers to the rows.
func pointers[R any](rows []R) []*R {
	list := make([]*R, len(rows))
	for i := range rows {
		list[i] = &rows[i]
	}
	return list
}

// lines appends transfers and budget lines.
func (c *applyCall) lines(b *metering.Batch) {
	transfers := pointers(b.Transfers)
	type transfer = metering.TransferRow
	c.add(column(transfers, func(r *transfer) int32 { return c.at[r.Account] }), column(transfers, func(r *transfer) int16 { return int16(r.Kind) }),
		column(transfers, func(r *transfer) []byte { return r.Debit }), column(transfers, func(r *transfer) []byte { return r.Credit }),
		amounts(transfers, func(r *transfer) l402.Msat { return r.Amount }), column(transfers, func(r *transfer) []byte { return r.Ref }),
		column(transfers, func(r *transfer) int64 { return r.At }))
	lines := pointers(b.BudgetLines)
	type line = metering.BudgetLine
	c.add(column(lines, func(r *line) int32 { return c.at[r.Account] }), column(lines, func(r *line) []byte { return r.Budget[:] }),
		column(lines, func(r *line) pgtype.UUID { return uuid(r.Hold) }), amounts(lines, func(r *line) l402.Msat { return r.Amount }),
		column(lines, func(r *line) int64 { return r.At }))
}

func (c *applyCall) deposits(b *metering.Batch) {
	type row = metering.DepositRow
	rows := collect(b.Deposits.Inserted)
	stored := column(rows, func(*row) bool { return false })
	for _, r := range collect(b.Deposits.Updated) {
		rows, stored = append(rows, r), append(stored, true)
	}
	c.add(column(rows, func(r *row) int32 { return c.at[r.Account] }), stored, column(rows, func(r *row) []byte { return r.Hash[:] }),
		amounts(rows, func(r *row) l402.Msat { return r.Credited }), column(rows, func(r *row) pgtype.Int8 { return moment(r.Presented) }),
		column(rows, func(r *row) pgtype.Int8 { return moment(r.Settled) }), column(rows, func(r *row) string { return r.Node }),
		column(rows, func(r *row) int64 { return int64(r.Index) }), amounts(rows, func(r *row) l402.Msat { return r.Covered }),
		column(rows, func(r *row) pgtype.Int8 { return moment(r.Doubted) }), amounts(rows, func(r *row) l402.Msat { return r.Owed }))
}

// limits writes rate windows and idempotency keys.
func (c *applyCall) limits(b *metering.Batch) {
	type rate = metering.WindowRow
	rates := collect(b.Windows.Upserted)
	c.add(column(rates, func(r *rate) int32 { return c.at[r.Account] }), column(rates, func(r *rate) []byte { return r.ID[:] }),
		column(rates, func(r *rate) int64 { return r.Window }), column(rates, func(r *rate) int64 { return r.Count }),
		column(rates, func(r *rate) int64 { return r.Previous }))
	type key = metering.KeyRow
	keys := collect(b.Keys.Upserted)
	kept := len(keys)
	b.Keys.Deleted(func(r *key) bool { keys = append(keys, r); return true })
	expires := column(keys, func(r *key) pgtype.Int8 { return pgtype.Int8{Int64: r.Expires, Valid: true} })
	for i := kept; i < len(keys); i++ {
		expires[i] = pgtype.Int8{}
	}
	c.add(column(keys, func(r *key) int32 { return c.at[r.Account] }), column(keys, func(r *key) []byte { return r.Key[:] }),
		column(keys, func(r *key) []byte { return r.Body[:] }), column(keys, func(r *key) pgtype.UUID { return uuid(r.Hold) }),
		column(keys, func(r *key) bool { return r.Charged }), expires)
}

// rest writes adjustments and cursors.
func (c *applyCall) rest(b *metering.Batch) {
	type adjustment = metering.AdjustmentRow
	list := collect(b.Adjustments.Inserted)
	c.add(column(list, func(r *adjustment) int32 { return c.at[r.Account] }), column(list, func(r *adjustment) pgtype.UUID { return uuid(r.ID) }),
		amounts(list, func(r *adjustment) l402.Msat { return r.Delta }), column(list, func(r *adjustment) string { return r.Reason }),
		column(list, func(r *adjustment) int64 { return r.At }))
	type cursor = metering.CursorRow
	cursors := collect(b.Cursors.Upserted)
	c.add(column(cursors, func(r *cursor) int32 { return c.at[r.Account] }), column(cursors, func(r *cursor) string { return r.Node }),
		column(cursors, func(r *cursor) int64 { return int64(r.Index) }), column(cursors, func(r *cursor) []byte { return optional(r.Hash[:]) }),
		column(cursors, func(r *cursor) int64 { return r.Since }), column(cursors, func(r *cursor) bool { return r.Anew }))
}
