package metering

import (
	"context"
	"time"

	"sluice/l402"
)

// Store keeps the ledger's rows. It loads, locks and writes; it decides
// nothing. Safe for concurrent use.
type Store interface {
	StoreReader
	PriceStore
	BookStore

	// Apply runs one batch in one transaction: it makes the accounts in
	// b.Create that are missing, locks and loads every row that b names (accounts
	// first, by id), sets b.Now to its own clock after the locks are held, calls
	// decide, writes what changed and commits. With b.Durable a nil error means
	// that the commit survives a power failure; without it, the last moments may
	// be lost with the machine, in order, but not with this process.
	//
	// ErrConflict and ErrRejected say that nothing was written. After any other
	// error the batch may have been committed or not; running it again must be
	// safe, and is.
	Apply(ctx context.Context, b *Batch, decide func()) error

	// Fingerprints runs update over all key fingerprints on record, in one durable
	// transaction that excludes others of its kind, and adds what it returns.
	Fingerprints(ctx context.Context, update func(known [][32]byte) (add [][32]byte, err error)) error

	// Clean deletes up to limit each of idempotency keys that ran out, rate windows
	// of the past and loads that nobody asks for any more, and returns how many rows
	// went.
	Clean(ctx context.Context, limit int) (int, error)
}

// StoreReader is the part of a Store that changes nothing. Its reads take no
// locks and see what is committed.
type StoreReader interface {
	PriceReader
	BookReader

	// Meta returns the ledger's random id, made with the database, and when that was.
	Meta(ctx context.Context) (l402.LedgerID, time.Time, error)
	// Ping fails when the store does not answer.
	Ping(ctx context.Context) error
	// Balance reads one account and those of the budgets that exist, in one
	// snapshot. An unknown account is not found, without an error.
	Balance(ctx context.Context, id l402.TokenID, budgets []l402.Budget) (a AccountRow, rows []BudgetRow, found bool, err error)
	// Charge finds the charge of a hold.
	Charge(ctx context.Context, hold HoldID) (c ChargeRow, found bool, err error)
	// Charges walks the account's charges from one back into the past: at most
	// limit rows, newest first. It ends where a row is missing or another's.
	Charges(ctx context.Context, account l402.TokenID, from HoldID, limit int) ([]ChargeRow, error)
	// Expired lists up to limit holds whose lease has run out by the store's clock,
	// leaving out rows that someone has locked.
	Expired(ctx context.Context, limit int) ([]HoldRow, error)
	// Cursor reads the settle index reached for a Lightning node.
	Cursor(ctx context.Context, node string) (index uint64, known bool, err error)
	// Deposit finds a deposit by its payment hash.
	Deposit(ctx context.Context, h l402.PaymentHash) (d DepositRow, found bool, err error)
	// Deposits streams deposits in no particular order: all of them, those settled
	// but never presented, or those presented before a moment and never seen
	// settled. It ends after limit rows (0: no limit) or with fn's error.
	Deposits(ctx context.Context, which DepositFilter, fn func(DepositRow) error) error
	// Totals sums over all accounts, which may be more than all money only when the
	// accounts are damaged: then it fails.
	Totals(ctx context.Context) (Totals, error)
}

// AccountRow is one account. Invariant, guarded by the store as well: Available
// + Held = Deposited + Adjusted − Charged, and neither Available nor Held is
// negative.
type AccountRow struct {
	ID        l402.TokenID
	Status    Status
	Available l402.Msat
	Held      l402.Msat
	Deposited l402.Msat
	Charged   l402.Msat
	Adjusted  l402.Msat
	Budgets   int64  // delegated budgets with a row
	Last      HoldID // newest charge: the head of a list linked by ChargeRow.Prev; zero without one
}

// BudgetRow is one delegated budget with something spent or held. Guarded by
// the store as well: Spent + Held ≤ Limit.
type BudgetRow struct {
	ID      [32]byte
	Account l402.TokenID
	Limit   l402.Msat
	Spent   l402.Msat
	Held    l402.Msat
}

// HoldRow is one open reservation.
type HoldRow struct {
	ID      HoldID
	Account l402.TokenID
	Amount  l402.Msat
	Expires int64  // store's clock, µs since 1970
	Context []byte // what a sweep needs to know, see holdContext; never changes
	Usage   []byte // running usage at the last renewal, see appendUsage
	Source  Source // of the running usage
}

// ChargeRow is one ended reservation that cost something, or that was swept.
type ChargeRow struct {
	Hold        HoldID
	Account     l402.TokenID
	Prev        HoldID // the account's charge before this one; zero at the end
	At          int64  // µs since 1970
	Service     string
	Model       string
	Chain       l402.ChainID
	Source      Source
	Outcome     Outcome
	Backend     string
	Usage       []byte // see appendUsage
	Clamped     bool
	Delivered   int64     // bytes
	Amount      l402.Msat // what was held
	Charged     l402.Msat
	Unbilled    l402.Msat
	Epoch       int64
	Rates       []byte // see appendRates
	Provisional bool
	Lock        l402.PaymentHash // payment that locked Rates; zero: none. Never changes
}

// DepositRow is one payment.
type DepositRow struct {
	Hash      l402.PaymentHash `json:"payment_hash"`
	Account   l402.TokenID     `json:"account"`
	Credited  l402.Msat        `json:"credited_msat"`
	Presented int64            `json:"presented_us"` // first presentation, µs since 1970; 0: never
	Settled   int64            `json:"settled_us"`   // first seen in the settle stream, µs since 1970; 0: never
	Node      string           `json:"node"`         // that reported it
	Index     uint64           `json:"settle_index"`
	Covered   l402.Msat        `json:"covered_msat"` // held and charged at the rates that the payment locked, see RateLock
}

// RateRow counts one rate limit over two windows of a minute.
type RateRow struct {
	ID       [32]byte
	Window   int64 // minutes since 1970
	Count    int64 // in Window
	Previous int64 // in the window before
}

// KeyID names an idempotency key within its account.
type KeyID struct {
	Account l402.TokenID
	Key     [32]byte
}

// KeyRow remembers one idempotency key.
type KeyRow struct {
	KeyID
	Body    [32]byte
	Hold    HoldID
	Charged bool  // false: the hold is open
	Expires int64 // µs since 1970
}

// AdjustmentRow is one correction by the operator.
type AdjustmentRow struct {
	ID      HoldID
	Account l402.TokenID
	Delta   l402.Msat
	Reason  string
	At      int64 // µs since 1970
}

// CursorRow is how far one Lightning node's settled invoices were taken in.
type CursorRow struct {
	Node  string
	Index uint64
}

// TransferKind says why money moved.
type TransferKind int8

// The kinds of transfer. Stored as these numbers.
const (
	TransferDeposit    TransferKind = 1 // lightning → account
	TransferCharge     TransferKind = 2 // account → revenue
	TransferReversal   TransferKind = 3 // revenue → account: takes back a provisional charge
	TransferAdjustment TransferKind = 4 // adjustments → account, or back
)

// The ledger's own sides of transfers.
const (
	BookLightning   = "lightning"
	BookRevenue     = "revenue"
	BookAdjustments = "adjustments"
)

// TransferRow is one append-only pair of lines: Amount leaves Debit and enters
// Credit, so that a transfer sums to zero by its form.
type TransferRow struct {
	Kind   TransferKind
	Debit  []byte // token id, or the name of a book
	Credit []byte
	Amount l402.Msat // above 0
	Ref    []byte    // payment hash, hold id or adjustment id
	At     int64     // µs since 1970
}

// BudgetLine is one append-only movement on a delegated budget: what a hold's
// charge spent (positive) or gave back (negative).
type BudgetLine struct {
	Budget [32]byte
	Hold   HoldID
	Amount l402.Msat
	At     int64 // µs since 1970
}

// DepositFilter selects deposits.
type DepositFilter struct {
	Unclaimed   bool      // settled, never presented
	Unconfirmed time.Time // presented before this, never settled; zero: not asked
	Limit       int       // rows; 0: no limit
}

// Totals is what all accounts hold together.
type Totals struct {
	Accounts  int64     `json:"accounts"`
	Available l402.Msat `json:"available_msat"`
	Held      l402.Msat `json:"held_msat"`
	Deposited l402.Msat `json:"deposited_msat"`
	Charged   l402.Msat `json:"charged_msat"`
	Adjusted  l402.Msat `json:"adjusted_msat"`
}
