package sqlite

import (
	"context"

	"sluice.example/sluice/metering"
)

// AuditState returns how far audits have come.
func (d *DB) AuditState(ctx context.Context) (a metering.AuditState, err error) {
	err = d.read(ctx, func(r *reader) error {
		return r.query(`SELECT version, scanned_transfers, scanned_budgets, checked_transfers, checked_budgets, at, mismatched, suspects
			FROM audit_state`, nil, func(s *stmt) error {
			a = metering.AuditState{Version: s.colInt(0), Scanned: metering.Position{Transfers: s.colInt(1), Budgets: s.colInt(2)},
				Checked: metering.Position{Transfers: s.colInt(3), Budgets: s.colInt(4)}, At: s.colInt(5), Mismatched: s.colInt(6),
				Suspects: s.colBytes(7)}
			return nil
		})
	})
	return a, err
}

// Seals returns the seals of all closed periods in order.
func (d *DB) Seals(ctx context.Context) (list []metering.SealRow, err error) {
	err = d.read(ctx, func(r *reader) error {
		return r.query(`SELECT period, body, hash FROM seals ORDER BY period`, nil, func(s *stmt) error {
			row := metering.SealRow{Period: s.colInt(0), Body: s.colBytes(1)}
			s.colID(2, row.Hash[:])
			list = append(list, row)
			return nil
		})
	})
	return list, err
}

// SaveTallies writes sums.
func (d *DB) SaveTallies(ctx context.Context, period int64, list []metering.Tally) error {
	return d.write(ctx, false, func(w *writer) (bool, error) {
		s := w.saveTally
		if period > 0 {
			s = w.saveSealed
		}
		for i := range list {
			t := &list[i]
			key := t.Key()
			s.blob(key[:]).msat(t.Sums[0]).msat(t.Sums[1]).msat(t.Sums[2]).int(t.Upto)
			if period > 0 {
				s.int(period)
			}
			if err := s.run(); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// SaveAuditState replaces the state if the stored state has the version a.Version.
func (d *DB) SaveAuditState(ctx context.Context, a metering.AuditState) (saved bool, err error) {
	err = d.write(ctx, false, func(w *writer) (bool, error) {
		s := w.saveAuditState.int(a.Scanned.Transfers).int(a.Scanned.Budgets).int(a.Checked.Transfers).int(a.Checked.Budgets).
			int(a.At).int(a.Mismatched).blob(a.Suspects).int(a.Version)
		more, err := s.step()
		if saved = more; more {
			s.reset()
		}
		return saved, err
	})
	return saved, err
}

// AddSeal appends a closed period.
func (d *DB) AddSeal(ctx context.Context, s metering.SealRow) error {
	return d.write(ctx, true, func(w *writer) (bool, error) {
		return true, w.insertSeal.int(s.Period).blob(s.Body).blob(s.Hash[:]).run()
	})
}

// LeadAudit gives the lead to every caller, because only one process serves a SQLite file.
func (d *DB) LeadAudit(context.Context) (metering.AuditLead, error) {
	if d.lock == nil {
		return nil, errReadOnly
	}
	return onlyLead{}, nil
}

// onlyLead is the lead of the only process, which it cannot lose.
type onlyLead struct{}

func (onlyLead) Check(context.Context) error { return nil }
func (onlyLead) Release() error              { return nil }
