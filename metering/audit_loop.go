package metering

import (
	"context"
	"errors"
	"time"
)

// auditBeat is how often a process looks, at most, whether an audit is due and what
// the last one said.
const auditBeat = 15 * time.Second

// auditLoop audits the changes whenever the last audit, by any process, is long
// enough ago; a start alone is no reason for one. Of all processes on a store one
// audits. A difference is a defect or damage: it is logged, and the Stats of all
// processes show it.
func (l *Ledger) auditLoop(ctx context.Context) {
	if l.cfg.AuditEvery < 0 {
		return
	}
	var lead AuditLead
	defer func() {
		if lead != nil {
			_ = lead.Release() // a lost lead is released already
		}
	}()
	every(ctx, min(auditBeat, l.cfg.AuditEvery), func() {
		due, err := l.auditDue(ctx)
		if err == nil && due {
			if lead, err = l.leadAudits(ctx, lead); err == nil {
				err = l.auditOnce(ctx)
			}
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrNotLeader) {
			l.stats.auditErrors.Add(1)
			l.log.Warn("audit", "error", err)
		}
	})
}

// auditDue reads how far audits have come. The first audit comes one interval after the
// ledger's birth. A time in the future says nothing.
func (l *Ledger) auditDue(ctx context.Context) (bool, error) {
	reading, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	state, err := l.store.AuditState(reading)
	if err != nil {
		return false, err
	}
	l.stats.mismatched.Store(state.Mismatched)
	l.stats.auditedAt.Store(state.At)
	last := time.UnixMicro(state.At)
	if l.born.After(last) {
		last = l.born
	}
	age := time.Since(last)
	return age >= l.cfg.AuditEvery || age < -auditBeat, nil
}

// leadAudits keeps the lead, or takes it if nobody has it.
func (l *Ledger) leadAudits(ctx context.Context, lead AuditLead) (AuditLead, error) {
	asking, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	if lead != nil {
		err := lead.Check(asking)
		if err == nil || !errors.Is(err, ErrNotLeader) {
			return lead, err
		}
	}
	return l.store.LeadAudit(asking)
}

// auditOnce runs one audit, and closes the last month when it is over.
func (l *Ledger) auditOnce(ctx context.Context) error {
	report, err := l.AuditNew(ctx)
	if err != nil {
		return err
	}
	for _, m := range report.Mismatches {
		l.log.Error("the ledger is not in balance", "mismatch", m)
	}
	l.stats.mismatched.Store(report.Mismatched)
	l.stats.auditedAt.Store(time.Now().UnixMicro())
	l.stats.audits.Add(1)
	if !l.cfg.SealMonths || !report.OK() {
		return nil
	}
	ended, due, err := l.sealDue(ctx, time.Now())
	if err != nil || !due {
		return err
	}
	seal, err := l.SealPeriod(ctx, ended)
	if errors.Is(err, ErrNotSealable) {
		l.log.Info("the month is not closed yet", "reason", err)
		return nil
	}
	if err == nil {
		l.stats.sealed.Add(1)
		l.log.Info("closed a month", "name", seal.Name, "transfers", seal.Transfers, "balance_msat", seal.Balance)
	}
	return err
}

// sealDue reports whether a month (UTC) has ended that is not closed, and when.
func (l *Ledger) sealDue(ctx context.Context, now time.Time) (ended time.Time, due bool, err error) {
	rows, err := l.store.Seals(ctx)
	if err != nil {
		return ended, false, err
	}
	seals, wrong := readSeals(rows)
	open := l.born // since then
	if len(seals) > 0 {
		open = time.UnixMicro(seals[len(seals)-1].Ended)
	}
	now = now.UTC()
	ended = time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	return ended, wrong == "" && ended.After(open), nil
}
