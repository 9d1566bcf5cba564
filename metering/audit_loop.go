package metering

import (
	"context"
	"errors"
	"time"
)

// auditBeat is the longest time between two checks of a process whether an audit is due and what the last audit found.
const auditBeat = 15 * time.Second

// auditLoop audits what is new as soon as the last audit, by any process, is AuditEvery ago. The start of a process
// does not make an audit due. Of all processes on a store, one audits: the process that holds the AuditLead. A
// difference is a defect or damage: the process that audits logs it, and the Stats of all processes show it.
func (l *Ledger) auditLoop(ctx context.Context) {
	if l.cfg.AuditEvery < 0 {
		return
	}
	var lead AuditLead
	defer func() {
		if lead != nil {
			_ = lead.Release() // a process that lost the lead has released it already
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

// auditDue reports whether an audit is due, and copies the result of the last audit into the Stats. The first audit
// comes AuditEvery after the ledger's birth. An audit is also due when the last one lies in the future by more than
// auditBeat, because such a time says nothing.
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
	if state.At == 0 {
		last = l.born
	}
	age := time.Since(last)
	return age >= l.cfg.AuditEvery || age < -auditBeat, nil
}

// leadAudits keeps the lead if this process has it. Otherwise it takes the lead, or fails when another process has it.
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

// auditOnce runs one audit. If the audit found no difference and the last month has ended but is not closed, auditOnce
// closes that month.
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

// sealDue reports whether a month (UTC) has ended that is not closed, and when that month ended.
func (l *Ledger) sealDue(ctx context.Context, now time.Time) (ended time.Time, due bool, err error) {
	rows, err := l.store.Seals(ctx)
	if err != nil {
		return ended, false, err
	}
	seals, wrong := readSeals(rows)
	open := l.born // when the first month that is not closed began, or the ledger's birth
	if len(seals) > 0 {
		open = time.UnixMicro(seals[len(seals)-1].Ended)
	}
	now = now.UTC()
	ended = time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	return ended, wrong == "" && ended.After(open), nil
}
