// Package storetest is the suite of tests that every store of the ledger must pass. It works through metering.Ledger
// and pricer.Record, so that it proves facts about money and prices, not about SQL.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Store { return openFresh(t) })
//	}
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// Store keeps both money and prices in one database.
type Store interface {
	metering.Store
	pricer.Store
}

// Run runs the suite. open returns a fresh, empty store for the test t, and closes the store in t's cleanup.
func Run(t *testing.T, open func(t *testing.T) Store) {
	for _, test := range []struct {
		name string
		run  func(*env)
	}{
		{"Charge", testCharge},
		{"ChargeAtMostTheHold", testChargeAtMostTheHold},
		{"Refusals", testRefusals},
		{"Extend", testExtend},
		{"Release", testRelease},
		{"SettleOnce", testSettleOnce},
		{"ImpossibleUsage", testImpossibleUsage},
		{"Status", testStatus},
		{"Adjust", testAdjust},
		{"Entries", testEntries},
		{"DepositOrders", testDepositOrders},
		{"DepositWithReserve", testDepositWithReserve},
		{"ForeignDeposit", testForeignDeposit},
		{"Cursor", testCursor},
		{"DepositLists", testDepositLists},
		{"DepositForgotten", testDepositForgotten},
		{"DepositKnownAndForgotten", testDepositKnownAndForgotten},
		{"DepositClaimsMore", testDepositClaimsMore},
		{"DepositDoubted", testDepositDoubted},
		{"DepositOfManyHolders", testDepositOfManyHolders},
		{"CursorAnew", testCursorAnew},
		{"CursorAmongReplicas", testCursorAmongReplicas},
		{"Budgets", testBudgets},
		{"BudgetRowsStayBounded", testBudgetRowsStayBounded},
		{"TooManyBudgets", testTooManyBudgets},
		{"DelegateCannotUseUpPlaces", testDelegateCannotUseUpPlaces},
		{"BudgetsEnd", testBudgetsEnd},
		{"RateLimit", testRateLimit},
		{"Idempotency", testIdempotency},
		{"KeyedReserveIsDurable", testKeyedReserveIsDurable},
		{"KeyOfALostHold", testKeyOfALostHold},
		{"KeyOfAHoldMadeAnew", testKeyOfAHoldMadeAnew},
		{"KeyOfARunningRepetition", testKeyOfARunningRepetition},
		{"KeyOfASweptHold", testKeyOfASweptHold},
		{"BudgetsWithAHistory", testBudgetsWithAHistory},
		{"EntriesOfAChain", testEntriesOfAChain},
		{"Sweep", testSweep},
		{"LateSettle", testLateSettle},
		{"LateSettleFindsLess", testLateSettleFindsLess},
		{"SweepSparesTheLiving", testSweepSparesTheLiving},
		{"SweepByItself", testSweepByItself},
		{"SweepAfterStart", testSweepAfterStart},
		{"SweepAfterOutage", testSweepAfterOutage},
		{"SweepAfterAFenceFails", testSweepAfterAFenceFails},
		{"SweepWhileClocksStep", testSweepWhileClocksStep},
		{"SweepPassesUnreadableHolds", testSweepPassesUnreadableHolds},
		{"SweepStrays", testSweepStrays},
		{"Units", testUnits},
		{"TakenForDead", testTakenForDead},
		{"LostHold", testLostHold},
		{"LostHoldIsMadeAnew", testLostHoldIsMadeAnew},
		{"Lock", testLock},
		{"LockIsItsOwn", testLockIsItsOwn},
		{"LockExtend", testLockExtend},
		{"LockSweep", testLockSweep},
		{"LockLostHold", testLockLostHold},
		{"LockRepeated", testLockRepeated},
		{"LockUnheard", testLockUnheard},
		{"LockAmbiguity", testLockAmbiguity},
		{"LockAtOnce", testLockAtOnce},
		{"LockAudit", testLockAudit},
		{"SweepSparesOwnHolds", testSweepSparesOwnHolds},
		{"SweepSparesWhatWasTakenOver", testSweepSparesWhatWasTakenOver},
		{"BeatAndFence", testBeatAndFence},
		{"SweepWhileWritesFail", testSweepWhileWritesFail},
		{"Crash", testCrash},
		{"Ambiguity", testAmbiguity},
		{"StoreAway", testStoreAway},
		{"StoreHangs", testStoreHangs},
		{"CallerGone", testCallerGone},
		{"FullQueue", testFullQueue},
		{"LockedRow", testLockedRow},
		{"LockedAccountIsRefusedInTime", testLockedAccountIsRefusedInTime},
		{"OrderAfterConflict", testOrderAfterConflict},
		{"UnheardCommitIsConfirmed", testUnheardCommitIsConfirmed},
		{"AnswersAreDurable", testAnswersAreDurable},
		{"FiftyOf200", testFiftyOf200},
		{"ThreeReplicas", testThreeReplicas},
		{"BudgetsUnderConcurrency", testBudgetsUnderConcurrency},
		{"Close", testClose},
		{"Keys", testKeys},
		{"Epochs", testEpochs},
		{"EpochsEnd", testEpochsEnd},
		{"EpochQueries", testEpochQueries},
		{"Lead", testLead},
		{"Watch", testWatch},
		{"Overrides", testOverrides},
		{"Loads", testLoads},
		{"Clean", testClean},
		{"AuditFindsDamage", testAuditFindsDamage},
		{"AuditByItself", testAuditByItself},
		{"AuditOfSumsBeyondAllMoney", testAuditOfSums},
		{"AuditBesideLoad", testAuditBesideLoad},
		{"AuditOfAGrowingLedger", testAuditOfAGrowingLedger},
		{"AuditCutOff", testAuditCutOff},
		{"AuditInTurn", testAuditInTurn},
		{"Seal", testSeal},
		{"SealOfNothing", testSealOfNothing},
		{"SealWaits", testSealWaits},
		{"Model", testModel},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := open(t)
			e := newEnv(t, store)
			e.priceStore, e.prices = store, pricer.NewRecord(store)
			test.run(e)
		})
	}
}

// env is one store under test, with faults and a clock that tests can move.
type env struct {
	*testing.T
	store  *faulty
	ledger *metering.Ledger
	clock  clock
	living []*metering.Ledger // ledgers that send heartbeats while another ledger watches

	priceStore pricer.Store // the same store without faults; set by Run
	prices     *pricer.Record

	skipFinalAudit bool // the test leaves wrong books
}

// clock is the clock by which ledgers judge whether others are alive.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// newEnv opens a ledger whose background work does nothing by itself during a test. At the end of each test an audit
// must find nothing wrong.
func newEnv(t *testing.T, s metering.Store) *env {
	e := &env{T: t, store: &faulty{Store: s}}
	e.ledger = e.open(metering.Config{})
	t.Cleanup(func() {
		if !t.Failed() && !e.skipFinalAudit {
			e.audit()
		}
	})
	return e
}

// lease is so long that nothing expires unless the test moves the clock.
const lease = time.Hour

// open opens another ledger on the same store, as another process would.
func (e *env) open(cfg metering.Config) *metering.Ledger {
	e.Helper()
	cfg.Store, cfg.Now = e.store, e.clock.now
	if cfg.Lease == 0 {
		cfg.Lease = lease
	}
	l, err := metering.Open(ctx(e.T), cfg)
	if err != nil {
		e.Fatalf("open ledger: %v", err)
	}
	e.living = append(e.living, l)
	e.Cleanup(func() {
		e.store.heal()
		if err := l.Close(ctx(e.T)); err != nil {
			e.Errorf("close ledger: %v", err)
		}
	})
	return l
}

// stall makes a ledger send no heartbeats from now on.
func (e *env) stall(l *metering.Ledger) {
	e.living = slices.DeleteFunc(e.living, func(other *metering.Ledger) bool { return other == l })
}

// kill drops a ledger as a crash would.
func (e *env) kill(l *metering.Ledger) {
	e.stall(l)
	kill(l)
}

// looks is the number of looks in which a ledger sees a whole lease pass.
const looks = 7

// watch makes a ledger look at the owners for a lease, in which the living ledgers send heartbeats. It returns how many
// holds were swept.
func (e *env) watch(l *metering.Ledger) (swept int, err error) {
	for range looks {
		e.clock.advance(lease / (looks - 2))
		for _, other := range e.living {
			if err := other.Renew(ctx(e.T)); err != nil {
				return swept, err
			}
		}
		n, err := l.Sweep(ctx(e.T))
		if swept += n; err != nil {
			return swept, err
		}
	}
	return swept, nil
}

func kill(l *metering.Ledger) {
	dead, cancel := context.WithCancel(context.Background())
	cancel()
	_ = l.Close(dead)
}

// ctx returns a context that bounds one step of a test.
func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return c
}

// audit fails the test unless every balance agrees with its lines.
func (e *env) audit() metering.Report {
	e.Helper()
	r, err := e.ledger.Audit(ctx(e.T))
	if err != nil {
		e.Fatalf("audit: %v", err)
	}
	if !r.OK() {
		e.Errorf("audit: %d mismatches: %q", r.Mismatched, r.Mismatches)
	}
	return r
}

// account makes an account with a balance.
func (e *env) account(balance l402.Msat) l402.TokenID {
	e.Helper()
	id := l402.NewTokenID()
	if balance > 0 {
		e.deposit(id, balance)
	}
	return id
}

func (e *env) deposit(id l402.TokenID, amount l402.Msat) l402.PaymentHash {
	e.Helper()
	d := metering.Deposit{Hash: newHash(), Account: id, Amount: amount}
	if got, err := e.ledger.Deposit(ctx(e.T), d); err != nil || got != amount {
		e.Fatalf("deposit: credited %v, %v; want %v", got, err, amount)
	}
	return d.Hash
}

func newHash() (h l402.PaymentHash) { rand.Read(h[:]); return h }

// perCall prices one call at 1 msat, so that the number of calls is the cost.
var perCall = pricing.Rates{pricing.Calls: 1}

// calls returns a settlement that costs n msat.
func calls(n l402.Msat) metering.Settlement {
	return metering.Settlement{Usage: pricing.Units{pricing.Calls: int64(n)}, Source: metering.SourceReported,
		Outcome: metering.OutcomeComplete, DeliveredBytes: 17, Backend: "b1"}
}

func reservation(id l402.TokenID, amount l402.Msat, budgets ...l402.Budget) metering.Reservation {
	r := metering.Reservation{ID: metering.NewHoldID(), Account: id, Budgets: budgets, Amount: amount,
		Service: "inference", Model: "m", Epoch: 3, Rates: perCall}
	if len(budgets) > 0 {
		r.Chain = budgets[len(budgets)-1].ID
	}
	return r
}

func (e *env) reserve(id l402.TokenID, amount l402.Msat, budgets ...l402.Budget) *metering.Hold {
	e.Helper()
	return e.reserveOn(e.ledger, reservation(id, amount, budgets...))
}

func (e *env) reserveOn(l *metering.Ledger, r metering.Reservation) *metering.Hold {
	e.Helper()
	h, err := l.Reserve(ctx(e.T), r)
	if err != nil {
		e.Fatalf("reserve %v: %v", r.Amount, err)
	}
	return h
}

func (e *env) settle(h *metering.Hold, cost l402.Msat) metering.Entry {
	e.Helper()
	entry, err := h.Settle(ctx(e.T), calls(cost))
	if err != nil {
		e.Fatalf("settle: %v", err)
	}
	return *entry
}

// balance checks the amounts that the account's owner sees.
func (e *env) balance(id l402.TokenID, available, held, charged l402.Msat) {
	e.Helper()
	b, err := e.ledger.Balance(ctx(e.T), id, nil)
	if err != nil {
		e.Fatalf("balance: %v", err)
	}
	if b.Available != available || b.Held != held || b.Charged != charged {
		e.Errorf("balance: available %d, held %d, charged %d; want %d, %d, %d",
			b.Available, b.Held, b.Charged, available, held, charged)
	}
}

// refused checks the kind of a refusal.
func (e *env) refused(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("got error %v, want %v", err, want)
	}
}

// insufficient checks the amounts of a refusal.
func (e *env) insufficient(err error, available, required l402.Msat) *metering.InsufficientError {
	e.Helper()
	var short *metering.InsufficientError
	if !errors.As(err, &short) {
		e.Fatalf("got error %v, want InsufficientError", err)
	}
	if short.Available != available || short.Required != required {
		e.Errorf("insufficient: available %d, required %d; want %d, %d", short.Available, short.Required, available, required)
	}
	return short
}

func newBudget(limit l402.Msat) l402.Budget {
	b := l402.Budget{Limit: limit, Label: "part", ValidUntil: time.Now().Add(1000 * time.Hour).Unix()}
	rand.Read(b.ID[:])
	return b
}

// eventually polls until ok returns true, for work that other goroutines do.
func (e *env) eventually(what string, ok func() bool) {
	e.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			e.Fatalf("%s did not happen", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// parallel runs fn n times at once.
func parallel(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}
