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
)

// These constants are for the holders part. Each holder has an account and a payment, and each
// request of the holder presents the payment. The part measures the cost of a request when there
// are many payments. The holders take turns, so that no payment is remembered by chance. They take
// turns in the order of their ids, so that the cost of many accounts as such is small; the ledger
// part measures that cost.
const (
	fewHolders  = 1_000
	manyHolders = 100_000
	holdersGoal = 0.9
)

var holdersCallers = []int{1, 64}

// holdersPlan describes the measurement of one kind of store. It has a ledger with few holders and
// a ledger with many.
type holdersPlan struct {
	Stores    []string
	Rounds    int
	For       time.Duration
	Processes []int
}

// holdersRow is the result for one kind of store and one number of callers.
type holdersRow struct {
	Store     string        `json:"store"`
	Callers   int           `json:"callers"`
	Few       float64       `json:"pairs_per_second_few"`
	Many      float64       `json:"pairs_per_second_many"`
	Ratio     float64       `json:"ratio"` // median of the ratios within each round
	RatioLow  float64       `json:"ratio_lowest"`
	RatioHigh float64       `json:"ratio_highest"`
	FewP50    time.Duration `json:"few_p50_ns"`
	ManyP50   time.Duration `json:"many_p50_ns"`
	// Unpresented is the same ratio when no reservation carries a deposit. It shows the cost of the
	// many accounts as such.
	Unpresented float64 `json:"ratio_without_deposits"`
}

// holdersRounds are the results for one number of callers. The first index is 0 without deposits
// and 1 with deposits. The second index is the ledger.
type holdersRounds [2][2][]ledgerResult

// measureHolders compares many holders with few holders.
func measureHolders(ctx context.Context, s *site, o options, r *report) error {
	for _, kind := range storeKinds {
		plan := holdersPlan{Rounds: 2 * o.rounds, For: o.round / 3}
		for _, n := range []int{fewHolders, manyHolders} {
			where, err := s.freshLedger(ctx, kind, fmt.Sprintf("holders_%d", n), n, 0)
			if err != nil {
				return err
			}
			plan.Stores = append(plan.Stores, where)
		}
		plan.Processes = s.databaseProcesses(kind)
		var found []holdersRounds // by number of callers
		if err := s.work(ctx, "holders", plan, 10*time.Minute, &found); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		for i, callers := range holdersCallers {
			r.Holders = append(r.Holders, sumHolders(kind, callers, found[i]))
		}
		for _, where := range plan.Stores {
			if err := s.dropLedger(ctx, where); err != nil {
				return err
			}
		}
	}
	return nil
}

func sumHolders(kind string, callers int, rounds holdersRounds) holdersRow {
	sum := func(present, ledger int) paidRow {
		row := paidRow{rounds: plain(rounds[present][ledger])}
		row.sum(plain(rounds[present][0]))
		return row
	}
	few, many := sum(1, 0), sum(1, 1)
	return holdersRow{Store: kind, Callers: callers, Few: few.PerSecond, Many: many.PerSecond, Ratio: many.Ratio,
		RatioLow: many.RatioLow, RatioHigh: many.RatioHigh, FewP50: few.P50, ManyP50: many.P50, Unpresented: sum(0, 1).Ratio}
}

// runHolders is the process that opens both ledgers and sends the load to them.
func runHolders(ctx context.Context, plan []byte, tell func(any) error) (err error) {
	var p holdersPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	ledgers, closeAll, err := openAll(ctx, p.Stores)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	for _, l := range ledgers {
		if err := l.serveAll(ctx); err != nil {
			return err
		}
	}
	found := make([]holdersRounds, len(holdersCallers))
	for n := range p.Rounds {
		for i, callers := range holdersCallers {
			for present := range 2 {
				for _, j := range turns(len(ledgers), n) {
					r, err := ledgers[j].round(ctx, ledgerLoad{Callers: callers, For: p.For, Present: present == 1, InTurn: true,
						Processes: p.Processes})
					if err != nil {
						return err
					}
					found[i][present][j] = append(found[i][present][j], r)
				}
			}
		}
	}
	return tell(found)
}

// serveAll has each holder make one request with its payment. After that the ledger remembers as
// many accounts and payments as it can, as the ledger of a gateway does that has run for a while.
func (l *openLedger) serveAll(ctx context.Context) error {
	errs := make([]error, ledgerCallers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(l.accounts)) && errs[i] == nil; n = next.Add(1) - 1 {
				errs[i] = pair(ctx, l.Ledger, l.accounts[n], true)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (r *report) holdersTable(w io.Writer) {
	beginTable(w, "Holders that present their payment with each request", "store", "callers",
		fmt.Sprintf("pairs/s, %s holders", count(fewHolders)), "p50",
		fmt.Sprintf("pairs/s, %s holders", count(manyHolders)), "p50",
		"ratio (range)", "the same without payments")
	for _, row := range r.Holders {
		fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %s | %.2f (%.2f–%.2f) | %.2f |\n", row.Store, row.Callers,
			count(row.Few), short(row.FewP50), count(row.Many), short(row.ManyP50),
			row.Ratio, row.RatioLow, row.RatioHigh, row.Unpresented)
	}
}

func (r *report) holdersGoals() (goals []goal) {
	for _, row := range r.Holders {
		what := fmt.Sprintf("%s, %d %s: %s holders have at least %.1f of the rate of %s", row.Store, row.Callers,
			plural(row.Callers, "caller"), count(manyHolders), holdersGoal, count(fewHolders))
		goals = append(goals, goal{what, fmt.Sprintf("%.3f", row.Ratio), row.Ratio >= holdersGoal})
	}
	return goals
}
