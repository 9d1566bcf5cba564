package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// ledgerCallers is how many callers reserve and settle at the same time. It equals the largest
// number of connections of the paid part.
const ledgerCallers = 256

// ledgerPlan describes the measurement of one kind of store. Its prefilled ledgers take turns.
type ledgerPlan struct {
	Stores []string // URLs or paths
	Rounds int
	ledgerLoad
}

// ledgerLoad describes one round on one ledger.
type ledgerLoad struct {
	Callers   int
	For       time.Duration
	Present   bool  // each reservation presents its account's deposit
	InTurn    bool  // true: accounts are taken in the order of their ids; false: at random
	Processes []int // processes of the database server, whose CPU time counts
}

// ledgerResult is the result of one round on one ledger.
type ledgerResult struct {
	loadResult
	Operations uint64 `json:"operations"`
	Batches    uint64 `json:"batches"`
	Written    uint64 `json:"written"` // bytes that this process wrote to files: SQLite's log and checkpoints
}

// ledgerRow is the result for one ledger. Its values are medians over rounds.
type ledgerRow struct {
	Store    string        `json:"store"`
	Accounts int           `json:"accounts"`
	Pairs    float64       `json:"pairs_per_second"` // a pair is one reservation and one settlement
	Ratio    float64       `json:"ratio_to_1000_accounts"`
	P50      time.Duration `json:"p50_ns"` // time of a pair
	P99      time.Duration `json:"p99_ns"`
	CPU      time.Duration `json:"cpu_ns_per_pair"` // of all processes, with PostgreSQL's
	Batch    float64       `json:"operations_per_batch"`
}

// measureLedger measures the ledger without HTTP, and whether its speed depends on the number of
// accounts.
func measureLedger(ctx context.Context, s *site, o options, r *report) error {
	for _, kind := range storeKinds {
		plan := ledgerPlan{Rounds: o.rounds, ledgerLoad: ledgerLoad{Callers: ledgerCallers, For: o.round}}
		for _, n := range o.accounts {
			where, err := s.freshLedger(ctx, kind, fmt.Sprintf("accounts_%d", n), n, 0)
			if err != nil {
				return err
			}
			plan.Stores = append(plan.Stores, where)
		}
		plan.Processes = s.databaseProcesses(kind)
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
	for i, n := range accounts {
		row := paidRow{rounds: plain(rounds[i])}
		row.sum(plain(rounds[base]))
		var perBatch []float64
		for _, r := range rounds[i] {
			perBatch = append(perBatch, float64(r.Operations)/float64(max(r.Batches, 1)))
		}
		rows = append(rows, ledgerRow{Store: kind, Accounts: n, Pairs: row.PerSecond, Ratio: row.Ratio,
			P50: row.P50, P99: row.P99, CPU: row.CPU, Batch: median(perBatch)})
	}
	return rows
}

// plain returns the results without the values that only a ledger has.
func plain(rounds []ledgerResult) (results []loadResult) {
	for _, r := range rounds {
		results = append(results, r.loadResult)
	}
	return results
}

// openLedger is one ledger under measurement.
type openLedger struct {
	*metering.Ledger
	db       store
	accounts []l402.TokenID
	turn     atomic.Uint64
}

// account returns the account of the next request.
func (l *openLedger) account(inTurn bool) l402.TokenID {
	if inTurn {
		return l.accounts[l.turn.Add(1)%uint64(len(l.accounts))]
	}
	return l.accounts[rand.IntN(len(l.accounts))]
}

// openPrefilled opens a prefilled ledger.
func openPrefilled(ctx context.Context, name string) (l *openLedger, err error) {
	l = new(openLedger)
	if l.accounts, err = accountsOf(ctx, name); err != nil {
		return nil, err
	}
	if l.db, err = openStore(ctx, name); err != nil {
		return nil, err
	}
	if l.Ledger, err = metering.Open(ctx, metering.Config{Store: l.db, Patience: time.Minute}); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	return l, nil
}

func (l *openLedger) close(ctx context.Context) error {
	return errors.Join(l.Close(context.WithoutCancel(ctx)), l.db.Close())
}

// openAll opens prefilled ledgers. The function that it returns closes them.
func openAll(ctx context.Context, names []string) (ledgers []*openLedger, closeAll func() error, err error) {
	closeAll = func() (err error) {
		for _, l := range ledgers {
			err = errors.Join(err, l.close(ctx))
		}
		return err
	}
	for _, name := range names {
		l, err := openPrefilled(ctx, name)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		ledgers = append(ledgers, l)
	}
	return ledgers, closeAll, nil
}

// runLedger is the process that opens the ledgers and sends the load to them.
func runLedger(ctx context.Context, plan []byte, tell func(any) error) (err error) {
	var p ledgerPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	ledgers, closeAll, err := openAll(ctx, p.Stores)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	rounds := make([][]ledgerResult, len(ledgers))
	for n := range p.Rounds {
		for _, i := range turns(len(ledgers), n) {
			r, err := ledgers[i].round(ctx, p.ledgerLoad)
			if err != nil {
				return err
			}
			rounds[i] = append(rounds[i], r)
		}
	}
	return tell(rounds)
}

// turns returns the order of the ledgers in one round. It is forward in even rounds and backward in
// odd rounds, so that a change of the machine's speed with time favours no ledger.
func turns(n, round int) (order []int) {
	for i := range n {
		order = append(order, i)
	}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// round sends the load to one ledger for the time p.For.
func (l *openLedger) round(ctx context.Context, p ledgerLoad) (r ledgerResult, err error) {
	processes := append([]int{os.Getpid()}, p.Processes...)
	before, errBefore := measure(processes)
	stats, written := l.Stats(), bytesWritten()
	took := make([][]time.Duration, p.Callers)
	errs := make([]error, p.Callers)
	begin := time.Now()
	end := begin.Add(p.For)
	var wg sync.WaitGroup
	for i := range p.Callers {
		wg.Go(func() {
			for start := begin; start.Before(end) && errs[i] == nil; {
				errs[i] = pair(ctx, l.Ledger, l.account(p.InTurn), p.Present)
				now := time.Now()
				took[i], start = append(took[i], now.Sub(start)), now
			}
		})
	}
	wg.Wait()
	r.Elapsed = time.Since(begin)
	after, errAfter := measure(processes)
	if err := errors.Join(append(errs, errBefore, errAfter)...); err != nil {
		return r, err
	}
	all := slices.Concat(took...)
	r.Requests, r.CPU = len(all), after.cpu-before.cpu
	r.P50, r.P99 = quantiles(all)
	now := l.Stats()
	r.Operations, r.Batches = uint64(now.Operations-stats.Operations), uint64(now.Batches-stats.Batches)
	r.Written = bytesWritten() - written
	return r, nil
}

// reserved is the amount in msat that each request holds. It is more than a request costs.
const reserved l402.Msat = 800

// settlement is what each request consumes.
var settlement = metering.Settlement{Usage: pricing.Units{pricing.InputTokens: 52, pricing.OutputTokens: 24, pricing.Calls: 1},
	Source: metering.SourceReported, Outcome: metering.OutcomeComplete, DeliveredBytes: 500, Backend: "backend"}

// pair makes the calls to the ledger that one request needs. With present, the reservation carries
// the account's deposit, as the reservations of a gateway do.
func pair(ctx context.Context, l *metering.Ledger, account l402.TokenID, present bool) error {
	r := metering.Reservation{Account: account, Amount: reserved,
		Service: serviceName, Model: modelName, Epoch: 1, Rates: rates, Prompt: 500}
	if present {
		r.Deposit = depositOf(account)
	}
	h, err := l.Reserve(ctx, r)
	if err != nil {
		return err
	}
	_, err = h.Settle(ctx, settlement)
	return err
}

// depositOf returns the payment of a prefilled account.
func depositOf(account l402.TokenID) *metering.Deposit {
	return &metering.Deposit{Hash: l402.PaymentHash(account), Account: account, Amount: deposit}
}
