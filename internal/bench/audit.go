package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/metering"
)

// These constants are for the audit part. An audit runs while a load runs, on a ledger with charges
// on record.
const (
	auditGoal    = 0.8
	auditGoalWAL = 128 << 20 // bytes, on SQLite
	walSample    = 20 * time.Millisecond
)

// audit runs the audit that a running gateway runs by itself.
func audit(ctx context.Context, l *metering.Ledger) error {
	report, err := l.AuditNew(ctx)
	if err == nil && !report.OK() {
		err = fmt.Errorf("the ledger is not in balance: %q", report.Mismatches)
	}
	return err
}

// auditPlan describes the measurement of one ledger with charges on record.
type auditPlan struct {
	Store  string
	Rounds int           // rounds without an audit: so many before the audit and so many after it
	Limit  time.Duration // an audit that takes longer is ended
	ledgerLoad
}

// auditResult holds the results of the load and of the audit.
type auditResult struct {
	Alone    []ledgerResult
	Beside   []ledgerResult
	Took     time.Duration
	Finished bool
	WAL      int64 // largest size of SQLite's log during the audit, in bytes
}

// auditRow is the result for one kind of store.
type auditRow struct {
	Store    string        `json:"store"`
	Charges  int           `json:"charges"`
	Alone    float64       `json:"pairs_per_second_alone"`
	Beside   float64       `json:"pairs_per_second_beside_audit"`
	Ratio    float64       `json:"ratio"` // Beside ÷ Alone, of the medians
	Lowest   float64       `json:"ratio_lowest"`
	Took     time.Duration `json:"audit_ns"`
	Finished bool          `json:"audit_finished"`
	WAL      int64         `json:"largest_wal_bytes"` // SQLite only
}

// measureAudit audits the ledgers with charges on record while a load runs.
func measureAudit(ctx context.Context, s *site, o options, r *report) error {
	for _, kind := range storeKinds {
		where, err := s.history(ctx, kind, o.charges)
		if err != nil {
			return err
		}
		plan := auditPlan{Store: where, Rounds: o.rounds, Limit: o.audit,
			ledgerLoad: ledgerLoad{Callers: ledgerCallers, For: o.round, Processes: s.databaseProcesses(kind)}}
		var result auditResult
		if err := s.work(ctx, "audit", plan, o.audit+5*time.Minute, &result); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		row := sumAudit(result)
		row.Store, row.Charges = kind, o.charges
		r.Audit = append(r.Audit, row)
	}
	return nil
}

func sumAudit(a auditResult) auditRow {
	alone, beside := paidRow{rounds: plain(a.Alone)}, paidRow{rounds: plain(a.Beside)}
	alone.sum(alone.rounds)
	beside.sum(beside.rounds)
	lowest := alone.PerSecond
	for _, r := range a.Beside {
		lowest = min(lowest, r.perSecond())
	}
	base := max(alone.PerSecond, 1)
	return auditRow{Alone: alone.PerSecond, Beside: beside.PerSecond, Ratio: beside.PerSecond / base,
		Lowest: lowest / base, Took: a.Took, Finished: a.Finished, WAL: a.WAL}
}

// runAudit is the process that opens the ledger, sends the load to it and audits it. It opens the
// ledger again for each phase, because a ledger begins to audit itself one minute after it was
// opened.
func runAudit(ctx context.Context, plan []byte, tell func(any) error) (err error) {
	var p auditPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	var result auditResult
	alone := func(l *openLedger) error {
		for range p.Rounds {
			r, err := l.round(ctx, p.ledgerLoad)
			if err != nil {
				return err
			}
			result.Alone = append(result.Alone, r)
		}
		return nil
	}
	beside := func(l *openLedger) error { return p.beside(ctx, l, &result) }
	for _, phase := range []func(*openLedger) error{alone, beside, alone} {
		l, err := openPrefilled(ctx, p.Store)
		if err != nil {
			return err
		}
		if err := errors.Join(phase(l), l.close(ctx)); err != nil {
			return err
		}
	}
	return tell(result)
}

// beside audits while rounds of load run. A round that ends after the audit does not count, unless
// it is the only round.
func (p auditPlan) beside(ctx context.Context, l *openLedger, result *auditResult) error {
	auditing, cancel := context.WithTimeout(ctx, p.Limit)
	defer cancel()
	ended := make(chan struct{})
	var failed error
	begin := time.Now()
	go func() {
		defer close(ended)
		failed = audit(auditing, l.Ledger)
		result.Took = time.Since(begin)
	}()
	var watch sync.WaitGroup
	var largest atomic.Int64
	watch.Go(func() { largest.Store(largestWAL(p.Store, ended)) })
	for running := true; running; {
		r, err := l.round(ctx, p.ledgerLoad)
		if err != nil {
			cancel()
			<-ended
			return err
		}
		select {
		case <-ended:
			running = false
		default:
		}
		if running || len(result.Beside) == 0 {
			result.Beside = append(result.Beside, r)
		}
	}
	watch.Wait()
	result.WAL, result.Finished = largest.Load(), failed == nil
	if auditing.Err() != nil && ctx.Err() == nil {
		return nil // the audit was ended at its limit
	}
	return failed
}

// largestWAL watches the size of SQLite's log until ended is closed, and returns the largest size
// in bytes. It returns 0 on PostgreSQL.
func largestWAL(store string, ended <-chan struct{}) (largest int64) {
	for running := true; running; {
		select {
		case <-ended:
			running = false // read the size once more
		case <-time.After(walSample):
		}
		if info, err := os.Stat(store + "-wal"); err == nil {
			largest = max(largest, info.Size())
		}
	}
	return largest
}

func (r *report) auditTable(w io.Writer) {
	beginTable(w, fmt.Sprintf("An audit of %s charges beside load, %d accounts, %d callers",
		count(float64(r.Audit[0].Charges)), historyAccounts, ledgerCallers), "store", "pairs/s alone", "beside the audit", "ratio (lowest round)",
		"the audit takes", "largest log of SQLite")
	for _, row := range r.Audit {
		took, wal := short(row.Took), ""
		if !row.Finished {
			took = "more than " + took
		}
		if row.WAL > 0 {
			wal = size(row.WAL)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %.2f (%.2f) | %s | %s |\n", row.Store, count(row.Alone), count(row.Beside),
			row.Ratio, row.Lowest, took, wal)
	}
}

func (r *report) auditGoals() (goals []goal) {
	for _, row := range r.Audit {
		over := count(float64(row.Charges)) + " charges"
		rate := fmt.Sprintf("%s: beside an audit of %s at least %.1f of the rate", row.Store, over, auditGoal)
		log := fmt.Sprintf("%s: its log stays below %s beside an audit of %s", row.Store, size(auditGoalWAL), over)
		meant := meantFor(row.Charges)
		goals = append(goals, goal{rate + meant, fmt.Sprintf("%.3f", row.Ratio), row.Ratio >= auditGoal})
		if row.WAL > 0 {
			goals = append(goals, goal{log + meant, size(row.WAL), row.WAL < auditGoalWAL})
		}
	}
	return goals
}
