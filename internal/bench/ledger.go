package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"sluice/l402"
	"sluice/metering"
	"sluice/pricing"
)

// ledgerCallers settle and reserve at the same time, as many as the most
// connections of the paid part.
const ledgerCallers = 256

// ledgerPlan is one kind of store, a database per number of accounts.
type ledgerPlan struct {
	Ledgers   []ledgerSize
	Rounds    int
	For       time.Duration
	Processes []int // of the database server
}

type ledgerSize struct {
	Store    string // URL or path
	Accounts int
}

// ledgerResult is one round on one ledger.
type ledgerResult struct {
	loadResult
	Operations uint64 `json:"operations"`
	Batches    uint64 `json:"batches"`
}

// ledgerRow is one ledger: medians over rounds.
type ledgerRow struct {
	Store    string        `json:"store"`
	Accounts int           `json:"accounts"`
	Pairs    float64       `json:"pairs_per_second"` // one reservation and one settlement
	Ratio    float64       `json:"ratio_to_1000_accounts"`
	P50      time.Duration `json:"p50_ns"` // of a pair
	P99      time.Duration `json:"p99_ns"`
	CPU      time.Duration `json:"cpu_ns_per_pair"` // all of it, PostgreSQL's too
	Batch    float64       `json:"operations_per_batch"`
}

// measureLedger finds what the ledger does without HTTP, and whether that
// depends on how many accounts there are.
func measureLedger(ctx context.Context, s *site, o options, r *report) error {
	for _, kind := range []string{"SQLite", "PostgreSQL"} {
		plan := ledgerPlan{Rounds: o.rounds, For: o.round}
		for _, n := range o.accounts {
			name := fmt.Sprintf("accounts_%d", n)
			where := s.path(name + ".db")
			if kind == "PostgreSQL" {
				var err error
				if where, err = s.freshDatabase(ctx, name); err != nil {
					return err
				}
				plan.Processes = []int{s.database.Pid()}
			}
			plan.Ledgers = append(plan.Ledgers, ledgerSize{Store: where, Accounts: n})
		}
		var rounds [][]ledgerResult // by ledger
		if err := s.work(ctx, "ledger", plan, 5*time.Minute, &rounds); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		r.Ledger = append(r.Ledger, sumLedgers(kind, o.accounts, rounds)...)
	}
	return nil
}

func sumLedgers(kind string, accounts []int, rounds [][]ledgerResult) (rows []ledgerRow) {
	base := 0
	for i, n := range accounts {
		if n == 1000 {
			base = i
		}
	}
	plain := func(i int) (results []loadResult) {
		for _, r := range rounds[i] {
			results = append(results, r.loadResult)
		}
		return results
	}
	for i, n := range accounts {
		row := paidRow{rounds: plain(i)}
		row.sum(plain(base))
		var perBatch []float64
		for _, r := range rounds[i] {
			perBatch = append(perBatch, float64(r.Operations)/float64(max(r.Batches, 1)))
		}
		rows = append(rows, ledgerRow{Store: kind, Accounts: n, Pairs: row.PerSecond, Ratio: row.Ratio,
			P50: row.P50, P99: row.P99, CPU: row.CPU, Batch: median(perBatch)})
	}
	return rows
}

// openLedger is one ledger under measurement.
type openLedger struct {
	*metering.Ledger
	db       store
	accounts []l402.TokenID
}

// runLedger is the process that holds the ledgers and calls them.
func runLedger(ctx context.Context, plan []byte, tell func(any) error) (err error) {
	var p ledgerPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	p.Processes = append(p.Processes, os.Getpid())
	ledgers := make([]openLedger, len(p.Ledgers))
	defer func() {
		for _, l := range ledgers {
			if l.Ledger != nil {
				err = errors.Join(err, l.Close(context.WithoutCancel(ctx)), l.db.Close())
			}
		}
	}()
	for i, size := range p.Ledgers {
		l := &ledgers[i]
		if l.accounts, err = prefill(ctx, size); err != nil {
			return fmt.Errorf("%d accounts: %w", size.Accounts, err)
		}
		if l.db, err = openStore(ctx, size.Store); err != nil {
			return err
		}
		if l.Ledger, err = metering.Open(ctx, metering.Config{Store: l.db, Patience: time.Minute}); err != nil {
			return errors.Join(err, l.db.Close())
		}
	}
	rounds := make([][]ledgerResult, len(ledgers))
	for range p.Rounds {
		for i := range ledgers {
			r, err := ledgers[i].round(ctx, p)
			if err != nil {
				return err
			}
			rounds[i] = append(rounds[i], r)
		}
	}
	return tell(rounds)
}

// round calls one ledger for a while, on accounts taken at random.
func (l *openLedger) round(ctx context.Context, p ledgerPlan) (r ledgerResult, err error) {
	before, errBefore := measure(p.Processes)
	stats := l.Stats()
	took := make([][]time.Duration, ledgerCallers)
	errs := make([]error, ledgerCallers)
	begin := time.Now()
	end := begin.Add(p.For)
	var wg sync.WaitGroup
	for i := range ledgerCallers {
		wg.Go(func() {
			for start := begin; start.Before(end) && errs[i] == nil; {
				errs[i] = pair(ctx, l.Ledger, l.accounts[rand.IntN(len(l.accounts))])
				now := time.Now()
				took[i], start = append(took[i], now.Sub(start)), now
			}
		})
	}
	wg.Wait()
	r.Elapsed = time.Since(begin)
	after, errAfter := measure(p.Processes)
	if err := errors.Join(append(errs, errBefore, errAfter)...); err != nil {
		return r, err
	}
	var all []time.Duration
	for _, t := range took {
		all = append(all, t...)
	}
	r.Requests, r.CPU = len(all), after.cpu-before.cpu
	r.P50, r.P99 = quantiles(all)
	now := l.Stats()
	r.Operations, r.Batches = uint64(now.Operations-stats.Operations), uint64(now.Batches-stats.Batches)
	return r, nil
}

// pair is what the ledger does for one request.
func pair(ctx context.Context, l *metering.Ledger, account l402.TokenID) error {
	h, err := l.Reserve(ctx, metering.Reservation{ID: metering.NewHoldID(), Account: account, Amount: 800,
		Service: serviceName, Model: modelName, Epoch: 1, Rates: rates, Prompt: 500})
	if err != nil {
		return err
	}
	_, err = h.Settle(ctx, metering.Settlement{Usage: pricing.Usage{InputTokens: 52, OutputTokens: 24, Calls: 1},
		Source: metering.SourceReported, Outcome: metering.OutcomeComplete, DeliveredBytes: 500, Backend: "backend"})
	return err
}

// prefill makes an empty ledger and puts accounts into it, past the ledger and
// in one statement: a million deposits one by one would take minutes. There are
// no deposits behind them, so the books would not stand an audit.
func prefill(ctx context.Context, size ledgerSize) ([]l402.TokenID, error) {
	db, err := openStore(ctx, size.Store) // makes the schema
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(size.Store, "postgres:") {
		return prefillPostgres(ctx, size)
	}
	return prefillSQLite(ctx, size)
}
