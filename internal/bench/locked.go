package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/l402"
)

// These constants are for the locked part. Another session locks the rows of some accounts while
// clients of all accounts continue.
const (
	mostLocked   = 64
	lockedSettle = time.Second // pause after a change, before the rate is measured
	lockedGoal   = 0.5
)

var lockedCounts = []int{8, mostLocked}

// lockedRow is the result for one number of locked accounts. The rates are those of the accounts
// that are not locked in any row of the report.
type lockedRow struct {
	Locked    int     `json:"locked"`
	Without   float64 `json:"pairs_per_second_without"`
	With      float64 `json:"pairs_per_second_with"`
	Ratio     float64 `json:"ratio"` // median of the ratios within each round
	RatioLow  float64 `json:"ratio_lowest"`
	RatioHigh float64 `json:"ratio_highest"`
}

// lockedPhase is a span without locks and a span with locks right after it.
type lockedPhase struct {
	locked        int
	free, blocked time.Time // beginning of the measured time of each span
}

// measureLocked compares the rate of the free accounts while others are locked with their rate
// while no account is locked.
func measureLocked(ctx context.Context, s *site, o options, r *report) error {
	where, err := s.freshLedger(ctx, "PostgreSQL", "locked", sharedAccounts, 0)
	if err != nil {
		return err
	}
	accounts, err := accountsOf(ctx, where)
	if err != nil {
		return err
	}
	clients, err := s.startClients(ctx, where, mostLocked)
	if err != nil {
		return err
	}
	var phases []lockedPhase
	span := max(o.round, stopBucket)
	for range o.rounds {
		for _, n := range lockedCounts {
			p := lockedPhase{locked: n}
			if p.free, err = takeTime(ctx, span); err != nil {
				return err
			}
			err = whileLocked(ctx, where, accounts[:n], func() (err error) {
				p.blocked, err = takeTime(ctx, span)
				return err
			})
			if err != nil {
				return err
			}
			phases = append(phases, p)
		}
	}
	line, err := s.endClients(clients)
	if err != nil {
		return err
	}
	for _, n := range lockedCounts {
		r.Locked = append(r.Locked, sumLocked(n, phases, span, &line))
	}
	return s.dropLedger(ctx, where)
}

// takeTime waits until a change has taken effect, then waits for span. It returns the time at which
// span began.
func takeTime(ctx context.Context, span time.Duration) (begin time.Time, err error) {
	if err := pause(ctx, lockedSettle); err != nil {
		return begin, err
	}
	begin = time.Now()
	return begin, pause(ctx, span)
}

// whileLocked locks the rows of accounts in a session of its own, calls then, and unlocks the rows.
func whileLocked(ctx context.Context, where string, accounts []l402.TokenID, then func() error) error {
	ids := make([][]byte, len(accounts))
	for i := range accounts {
		ids[i] = accounts[i][:]
	}
	c, err := pgx.Connect(ctx, where)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx)) // an error does not affect the result
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	// The order by id is the order in which every program locks accounts.
	tag, err := tx.Exec(ctx, "SELECT 1 FROM accounts WHERE id = ANY($1) ORDER BY id FOR UPDATE", ids)
	if err == nil && int(tag.RowsAffected()) != len(ids) {
		err = fmt.Errorf("%d of %d accounts were locked", tag.RowsAffected(), len(ids))
	}
	if err == nil {
		err = then()
	}
	return errors.Join(err, tx.Rollback(context.WithoutCancel(ctx)))
}

func sumLocked(n int, phases []lockedPhase, span time.Duration, line *timeline) lockedRow {
	var without, with, ratios []float64
	for _, p := range phases {
		if p.locked != n {
			continue
		}
		free := line.perSecond(line.Others, p.free, p.free.Add(span))
		blocked := line.perSecond(line.Others, p.blocked, p.blocked.Add(span))
		without, with, ratios = append(without, free), append(with, blocked), append(ratios, blocked/max(free, 1))
	}
	return lockedRow{Locked: n, Without: median(without), With: median(with),
		Ratio: median(ratios), RatioLow: slices.Min(ratios), RatioHigh: slices.Max(ratios)}
}

func (r *report) lockedTable(w io.Writer) {
	beginTable(w, fmt.Sprintf("Accounts locked by another session, %d accounts with a client each", sharedAccounts),
		"locked", "pairs/s of the others, no locks", "with locks", "ratio (range)")
	for _, row := range r.Locked {
		fmt.Fprintf(w, "| %d | %s | %s | %.3f (%.3f–%.3f) |\n", row.Locked, count(row.Without), count(row.With),
			row.Ratio, row.RatioLow, row.RatioHigh)
	}
}

func (r *report) lockedGoals() (goals []goal) {
	for _, row := range r.Locked {
		what := fmt.Sprintf("%d accounts locked: the others have at least %.1f of their rate", row.Locked, lockedGoal)
		goals = append(goals, goal{what, fmt.Sprintf("%.3f", row.Ratio), row.Ratio >= lockedGoal})
	}
	return goals
}
