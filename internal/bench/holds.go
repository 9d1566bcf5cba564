package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// These constants are for the holds part. The table of open reservations gets a row with each
// request and loses the row with the answer, so the table is nearly empty at any time. How much
// disk space the table takes depends on the database's vacuum.
const (
	holdsGoal   = 32 << 20 // bytes, the largest allowed size after holdsPairs
	holdsPairs  = 5_000_000
	holdsSample = 250 * time.Millisecond
)

// holdsRow is the size of the table of holds with its indexes.
type holdsRow struct {
	Pairs   int     `json:"pairs"`
	Rate    float64 `json:"pairs_per_second"`
	Largest int64   `json:"largest_bytes"`
	Last    int64   `json:"last_bytes"` // after the last pair
}

// pairsPlan is a number of pairs of reservation and settlement on one ledger.
type pairsPlan struct {
	Store string
	Pairs int
}

// runPairs is the process that makes the pairs.
func runPairs(ctx context.Context, plan []byte, tell func(any) error) (err error) {
	var p pairsPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	l, err := openPrefilled(ctx, p.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close(ctx)) }()
	var begun atomic.Int64
	errs := make([]error, ledgerCallers)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for errs[i] == nil && begun.Add(1) <= int64(p.Pairs) {
				errs[i] = pair(ctx, l.Ledger, l.account(false), false)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return tell(loadResult{Requests: p.Pairs, Elapsed: time.Since(begin)})
}

// measureHolds reads the size of the table while the pairs are made.
func measureHolds(ctx context.Context, s *site, o options, r *report) error {
	where, err := s.freshLedger(ctx, "PostgreSQL", "holds", sharedAccounts, 0)
	if err != nil {
		return err
	}
	c, err := pgx.Connect(ctx, where)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) // an error does not affect the result
	row := &holdsRow{Pairs: o.pairs}
	var done loadResult
	worked := make(chan error, 1)
	go func() { worked <- s.work(ctx, "pairs", pairsPlan{Store: where, Pairs: o.pairs}, time.Hour, &done) }()
	for ended := false; !ended; {
		select {
		case err := <-worked:
			if err != nil {
				return err
			}
			ended = true // read the size once more
		case <-time.After(holdsSample):
		}
		if err := c.QueryRow(ctx, "SELECT pg_total_relation_size('holds')").Scan(&row.Last); err != nil {
			return err
		}
		row.Largest = max(row.Largest, row.Last)
	}
	row.Rate, r.Holds = done.perSecond(), row
	return errors.Join(c.Close(ctx), s.dropLedger(ctx, where))
}

func (r *report) holdsTable(w io.Writer) {
	row := r.Holds
	beginTable(w, fmt.Sprintf("The table of holds on PostgreSQL, with indexes, %d accounts, %d callers", sharedAccounts,
		ledgerCallers), "pairs", "pairs/s", "largest", "at the end")
	fmt.Fprintf(w, "| %s | %s | %s | %s |\n", count(float64(row.Pairs)), count(row.Rate), size(row.Largest),
		size(row.Last))
}

func (r *report) holdsGoals() []goal {
	row := r.Holds
	if row == nil {
		return nil
	}
	what := fmt.Sprintf("holds never above %s over %s pairs", size(holdsGoal), count(float64(row.Pairs)))
	if row.Pairs < holdsPairs {
		what += fmt.Sprintf(" (meant for %s: `-pairs %d`)", count(holdsPairs), holdsPairs)
	}
	return []goal{{what, size(row.Largest), row.Largest < holdsGoal}}
}

// size returns a number of bytes as text for people.
func size(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
