package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// reader is one connection that only reads. It keeps its prepared statements.
type reader struct {
	*conn
	cached map[string]*stmt
}

// read calls fn with a reader. All that fn reads there is of one snapshot. When ctx ends, the running statement fails.
func (d *DB) read(ctx context.Context, fn func(*reader) error) error {
	var r *reader
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.closed:
		return errors.New("sqlite: closed")
	case r = <-d.pool:
	}
	defer func() { d.pool <- r }()
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		r.interrupt()
		close(interrupted)
	})
	err := r.script("BEGIN")
	if err == nil {
		err = errors.Join(fn(r), r.script("ROLLBACK"))
	}
	if !stop() {
		<-interrupted // wait, so that the interrupt does not hit the reader's next user
		return errors.Join(ctx.Err(), err)
	}
	return err
}

// query runs one statement and calls row for each of its rows.
func (r *reader) query(sql string, bind func(*stmt), row func(*stmt) error) error {
	s := r.cached[sql]
	if s == nil {
		var err error
		if s, err = r.prepare(sql); err != nil {
			return err
		}
		r.cached[sql] = s
	}
	if bind != nil {
		bind(s)
	}
	for {
		more, err := s.step()
		if !more || err != nil {
			return err
		}
		if err := row(s); err != nil {
			s.reset()
			return err
		}
	}
}

// Meta returns the ledger's id and when its database was made.
func (d *DB) Meta(ctx context.Context) (id l402.LedgerID, born time.Time, err error) {
	err = d.read(ctx, func(r *reader) error {
		return r.query("SELECT ledger_id, born FROM meta", nil, func(s *stmt) error {
			s.colID(0, id[:])
			born = time.UnixMicro(s.colInt(1)).UTC()
			return nil
		})
	})
	return id, born, err
}

// Ping reads one page.
func (d *DB) Ping(ctx context.Context) error {
	return d.read(ctx, func(r *reader) error {
		return r.query("SELECT 1 FROM meta", nil, func(*stmt) error { return nil })
	})
}

// Balance reads an account and its budgets in one snapshot.
func (d *DB) Balance(ctx context.Context, id l402.TokenID, budgets []l402.Budget) (a metering.AccountRow, rows []metering.BudgetRow, found bool, err error) {
	a.ID = id
	err = d.read(ctx, func(r *reader) error {
		err := r.query(`SELECT status, available, held, deposited, charged, adjusted, budgets, last_charge FROM accounts WHERE id = ?`,
			func(s *stmt) { s.blob(id[:]) }, func(s *stmt) error {
				a, found = readAccount(s, 0, id), true
				return nil
			})
		for i := 0; i < len(budgets) && err == nil; i++ {
			err = r.query(`SELECT `+budgetColumns+` FROM budgets WHERE id = ?`,
				func(s *stmt) { s.blob(budgets[i].ID[:]) }, func(s *stmt) error {
					rows = append(rows, readBudget(s, budgets[i].ID))
					return nil
				})
		}
		return err
	})
	return a, rows, found, err
}

// Charge finds the charge of a hold.
func (d *DB) Charge(ctx context.Context, hold metering.HoldID) (c metering.ChargeRow, found bool, err error) {
	err = d.read(ctx, func(r *reader) error {
		c, found, err = r.charge(hold)
		return err
	})
	return c, found, err
}

func (r *reader) charge(hold metering.HoldID) (c metering.ChargeRow, found bool, err error) {
	err = r.query(`SELECT `+chargeColumns+` FROM charges WHERE hold = ?`, func(s *stmt) { s.blob(hold[:]) },
		func(s *stmt) error {
			c, found = readCharge(s), true
			return nil
		})
	return c, found, err
}

// Charges follows the account's list, or with a chain the list of one innermost budget.
func (d *DB) Charges(ctx context.Context, account l402.TokenID, chain l402.ChainID, from metering.HoldID, limit int) (list []metering.ChargeRow, err error) {
	err = d.read(ctx, func(r *reader) error {
		for at := from; at != (metering.HoldID{}) && len(list) < limit; {
			c, found, err := r.charge(at)
			if err != nil {
				return err
			}
			if !found || c.Account != account || chain != (l402.ChainID{}) && c.Chain != chain {
				return nil
			}
			list = append(list, c)
			if at = c.Prev; chain != (l402.ChainID{}) {
				at = c.ChainPrev
			}
		}
		return nil
	})
	return list, err
}

// ExpiredBudgets looks for budgets that hold nothing and whose tokens have all expired before a moment.
func (d *DB) ExpiredBudgets(ctx context.Context, before int64, after [32]byte, limit int) (list []metering.BudgetRow, next [32]byte, err error) {
	looked := 0
	err = d.read(ctx, func(r *reader) error {
		return r.query(`SELECT `+budgetColumns+`, id FROM budgets WHERE id > ? ORDER BY id LIMIT ?`,
			func(s *stmt) { s.blob(after[:]).int(int64(limit)) }, func(s *stmt) error {
				looked++
				s.colID(9, next[:])
				if row := readBudget(s, next); row.ValidUntil > 0 && row.ValidUntil < before && row.Held == 0 {
					list = append(list, row)
				}
				return nil
			})
	})
	if looked < limit {
		next = [32]byte{}
	}
	return list, next, err
}

// readHoldRow reads the columns from id to source.
func readHoldRow(s *stmt) metering.HoldRow {
	var id metering.HoldID
	s.colID(0, id[:])
	return readHold(s, 1, id)
}

// Cursor reads a node's cursor.
func (d *DB) Cursor(ctx context.Context, node string) (c metering.CursorRow, known bool, err error) {
	err = d.read(ctx, func(r *reader) error {
		return r.query(`SELECT settle_index, hash, since FROM settle_cursors WHERE node = ?`, func(s *stmt) { s.text(node) }, func(s *stmt) error {
			c, known = readCursor(s, node), true
			return nil
		})
	})
	return c, known, err
}

// Deposit finds one payment.
func (d *DB) Deposit(ctx context.Context, h l402.PaymentHash) (row metering.DepositRow, found bool, err error) {
	err = d.read(ctx, func(r *reader) error {
		return r.query(`SELECT `+depositColumns+` FROM deposits WHERE hash = ?`, func(s *stmt) { s.blob(h[:]) }, func(s *stmt) error {
			row, found = readDeposit(s), true
			return nil
		})
	})
	return row, found, err
}

// Deposits calls fn with the payments that the filter selects.
func (d *DB) Deposits(ctx context.Context, f metering.DepositFilter, fn func(metering.DepositRow) error) error {
	limit := int64(f.Limit)
	if limit <= 0 {
		limit = -1 // no limit in SQLite
	}
	sql, before := `SELECT `+depositColumns+` FROM deposits`, int64(0)
	switch {
	case f.Unclaimed:
		sql += ` WHERE presented IS NULL AND settled IS NOT NULL ORDER BY settled`
	case !f.Unconfirmed.IsZero():
		sql, before = sql+` WHERE settled IS NULL AND presented < ?2`, f.Unconfirmed.UnixMicro()
		if f.Undoubted {
			sql += ` AND doubted IS NULL`
		}
		if !f.Since.IsZero() {
			sql += ` AND presented >= ?3`
		}
		sql += ` ORDER BY presented`
	}
	return d.read(ctx, func(r *reader) error {
		return r.query(sql+` LIMIT ?1`, func(s *stmt) {
			s.int(limit)
			if before != 0 {
				s.int(before)
			}
			if !f.Since.IsZero() {
				s.int(f.Since.UnixMicro())
			}
		}, func(s *stmt) error { return fn(readDeposit(s)) })
	})
}

// Totals sums over all accounts. It sums up the upper and the lower 32 bits of each column separately, because SQLite's
// sum fails when it overflows.
func (d *DB) Totals(ctx context.Context) (t metering.Totals, err error) {
	columns := []string{"available", "held", "deposited", "charged", "adjusted"}
	sql := "SELECT count(*)"
	for _, c := range columns {
		sql += ", sum(" + c + " >> 32), sum(" + c + " & 0xffffffff)"
	}
	err = d.read(ctx, func(r *reader) error {
		return r.query(sql+" FROM accounts", nil, func(s *stmt) (err error) {
			t.Accounts = s.colInt(0)
			for i, into := range []*l402.Msat{&t.Available, &t.Held, &t.Deposited, &t.Charged, &t.Adjusted} {
				if *into, err = metering.Total(s.colInt(int32(2*i+1)), s.colInt(int32(2*i+2))); err != nil {
					return fmt.Errorf("all accounts: %s: %w", columns[i], err)
				}
			}
			return nil
		})
	})
	return t, err
}
