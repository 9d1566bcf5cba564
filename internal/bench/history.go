package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// These constants are for the history part. A ledger keeps every charge. The part measures the cost
// of a request when millions of charges are on record, and the space that each charge takes.
const (
	historyAccounts = 1000
	historyGoal     = 0.9
	historyCharges  = 10_000_000 // the number of charges for which the goal is meant
)

// historyRow is the result for one kind of store. Its values are medians over rounds that alternate
// between the two ledgers.
type historyRow struct {
	Store     string  `json:"store"`
	Charges   int     `json:"charges"`
	None      float64 `json:"pairs_per_second_without_history"`
	With      float64 `json:"pairs_per_second_with_history"`
	Ratio     float64 `json:"ratio"` // median of the ratios within each round
	RatioLow  float64 `json:"ratio_lowest"`
	RatioHigh float64 `json:"ratio_highest"`
	Kept      float64 `json:"database_bytes_per_pair"` // growth of the database, without the table of holds
	Written   float64 `json:"written_bytes_per_pair"`  // PostgreSQL: log; SQLite: log and checkpoints
}

// stored is how much a database has stored so far, in bytes.
type stored struct {
	kept    int64 // size without the table of holds, whose size says nothing about a request
	written int64 // PostgreSQL: size of its log
}

func (s stored) less(before stored) stored {
	return stored{kept: s.kept - before.kept, written: s.written - before.written}
}

// measureHistory compares a ledger with charges on record with a new ledger.
func measureHistory(ctx context.Context, s *site, o options, r *report) error {
	for _, kind := range storeKinds {
		with, err := s.history(ctx, kind, o.charges)
		if err != nil {
			return err
		}
		none, err := s.freshLedger(ctx, kind, "no_history", historyAccounts, 0)
		if err != nil {
			return err
		}
		// The ratio is expected to be near 1, so more rounds are needed than in other parts.
		plan := ledgerPlan{Stores: []string{none, with}, Rounds: 3 * o.rounds,
			ledgerLoad: ledgerLoad{Callers: ledgerCallers, For: o.round / 2, Processes: s.databaseProcesses(kind)}}
		before, err := measureStored(ctx, none)
		if err != nil {
			return err
		}
		var rounds [][]ledgerResult
		if err := s.work(ctx, "ledger", plan, 5*time.Minute, &rounds); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		after, err := measureStored(ctx, none)
		if err != nil {
			return err
		}
		row := sumHistory(kind, rounds[0], rounds[1], after.less(before))
		row.Charges = o.charges
		r.History = append(r.History, row)
		if err := s.dropLedger(ctx, none); err != nil {
			return err
		}
	}
	return nil
}

// history returns the path or URL of a ledger with charges on record. The first call makes the
// ledger.
func (s *site) history(ctx context.Context, kind string, charges int) (where string, err error) {
	if where = s.histories[kind]; where == "" {
		if where, err = s.freshLedger(ctx, kind, "history", historyAccounts, charges); err == nil {
			s.histories[kind] = where
		}
	}
	return where, err
}

// measureStored reads the sizes of a ledger that no process has open.
func measureStored(ctx context.Context, where string) (now stored, err error) {
	if !isPostgres(where) {
		info, err := os.Stat(where)
		if err != nil {
			return now, err
		}
		return stored{kept: info.Size()}, nil
	}
	c, err := pgx.Connect(ctx, where)
	if err != nil {
		return now, err
	}
	defer c.Close(ctx) // an error does not affect the result
	err = c.QueryRow(ctx, `SELECT pg_database_size(current_database()) - pg_total_relation_size('holds'),
		(pg_current_wal_insert_lsn() - '0/0')::bigint`).Scan(&now.kept, &now.written)
	return now, err
}

// sumHistory computes the cost of a pair. grown.kept is the growth of the ledger without history.
// grown.written is the growth of the server's log, which has the pairs of both ledgers.
func sumHistory(kind string, none, with []ledgerResult, grown stored) historyRow {
	alone, full := paidRow{rounds: plain(none)}, paidRow{rounds: plain(with)}
	alone.sum(plain(none))
	full.sum(plain(none))
	pairs := func(rounds []ledgerResult) (n float64) {
		for _, r := range rounds {
			n += float64(r.Requests)
		}
		return max(n, 1)
	}
	row := historyRow{Store: kind, None: alone.PerSecond, With: full.PerSecond,
		Ratio: full.Ratio, RatioLow: full.RatioLow, RatioHigh: full.RatioHigh,
		Kept: float64(grown.kept) / pairs(none), Written: float64(grown.written) / (pairs(none) + pairs(with))}
	if kind == "SQLite" { // SQLite writes within the process that was measured
		for _, r := range none {
			row.Written += float64(r.Written) / pairs(none)
		}
	}
	return row
}

func (r *report) historyTable(w io.Writer) {
	beginTable(w, fmt.Sprintf("%s charges on record, %d accounts, %d callers", count(float64(r.History[0].Charges)),
		historyAccounts, ledgerCallers), "store", "pairs/s, none on record", "with all", "ratio (range)",
		"database grows by", "written (PostgreSQL: log; SQLite: log and checkpoints)")
	for _, row := range r.History {
		fmt.Fprintf(w, "| %s | %s | %s | %.2f (%.2f–%.2f) | %.0f B per pair | %.0f B per pair |\n", row.Store,
			count(row.None), count(row.With), row.Ratio, row.RatioLow, row.RatioHigh, row.Kept, row.Written)
	}
}

func (r *report) historyGoals() (goals []goal) {
	for _, row := range r.History {
		what := fmt.Sprintf("%s: %s charges on record leave at least %.1f of the rate%s", row.Store,
			count(float64(row.Charges)), historyGoal, meantFor(row.Charges))
		goals = append(goals, goal{what, fmt.Sprintf("%.3f", row.Ratio), row.Ratio >= historyGoal})
	}
	return goals
}

// meantFor returns a remark for a goal that was measured with fewer charges than the goal is meant
// for, and "" otherwise.
func meantFor(charges int) string {
	if charges >= historyCharges {
		return ""
	}
	return fmt.Sprintf(" (meant for %s: `-charges %d`)", count(historyCharges), historyCharges)
}
