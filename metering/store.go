package metering

import (
	"context"
	"time"

	"sluice.example/sluice/l402"
)

// Store keeps the ledger's rows. It loads, locks and writes; it decides
// nothing. Safe for concurrent use.
type Store interface {
	StoreReader
	OwnerStore
	BookStore

	// Apply runs one batch. It loads every row that b names without locking any,
	// sets b.Now to its own clock, and calls decide. Then it writes what changed in
	// one transaction, account by account: an account that somebody else has changed
	// since it was loaded, or has locked, is left out with everything that belongs
	// to it, and reported with b.Miss. So nobody waits for a lock, and no lock is held
	// while the program decides.
	//
	// With b.Durable, which decide may set, a nil error means that the commit survives
	// a power failure. Without it, the last moments may be lost with the machine, in
	// order, but not with this process.
	//
	// ErrConflict and ErrRejected say that nothing was written. After any other
	// error the batch may have been committed or not; running it again must be
	// safe, and is.
	Apply(ctx context.Context, b *Batch, decide func()) error

	// Generation grows when the database behind the store may have forgotten what
	// this process knows of it: after a failover to another server. It never falls.
	Generation() uint64

	// Fingerprints runs update over all key fingerprints on record, in one durable
	// transaction that excludes others of its kind, and adds what it returns.
	Fingerprints(ctx context.Context, update func(known [][32]byte) (add [][32]byte, err error)) error

	// Clean deletes up to limit each of idempotency keys that ran out, rate windows
	// of the past, and owners that were fenced long ago and hold nothing. It returns
	// how many rows went.
	Clean(ctx context.Context, limit int) (int, error)
}

// StoreReader is the part of a Store that changes nothing. Its reads take no
// locks and see what is committed.
type StoreReader interface {
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
	// Charges walks charges from one back into the past, newest first, at most limit
	// of them: those of the account, or with a chain those made through that innermost
	// budget. It ends where a row is missing or belongs to another account.
	Charges(ctx context.Context, account l402.TokenID, chain l402.ChainID, from HoldID, limit int) ([]ChargeRow, error)
	// ExpiredBudgets looks through up to limit budgets, by id from after on, for those
	// whose tokens have all expired before a moment (unix seconds) and that hold
	// nothing. next is where to go on; zero: all were looked at.
	ExpiredBudgets(ctx context.Context, before int64, after [32]byte, limit int) (list []BudgetRow, next [32]byte, err error)
	// Cursor reads how far the settled invoices of a Lightning node were taken in.
	Cursor(ctx context.Context, node string) (c CursorRow, known bool, err error)
	// Deposit finds a deposit by its payment hash.
	Deposit(ctx context.Context, h l402.PaymentHash) (d DepositRow, found bool, err error)
	// Deposits streams deposits in no particular order: all of them, or those that
	// the filter selects. It ends after the filter's limit or with fn's error.
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
	Budgets   int64  // live budgets that the account itself delegated, see BudgetRow.live
	Last      HoldID // newest charge: the head of a list linked by ChargeRow.Prev; zero without one
	Version   int64  // of the store: what it compares to see whether the row has changed since
}

// BudgetRow is one delegated budget with something spent or held. Guarded by
// the store as well: Spent + Held ≤ Limit.
type BudgetRow struct {
	ID         [32]byte
	Account    l402.TokenID
	Parent     [32]byte // the budget that it was delegated from; zero: the account itself
	Limit      l402.Msat
	Spent      l402.Msat
	Held       l402.Msat
	Children   int64  // live budgets that were delegated from this one
	ValidUntil int64  // unix seconds, no token names it later; 0: made by a version that did not know it
	Last       HoldID // newest charge made through it as the innermost budget, linked by ChargeRow.ChainPrev
	Checksum   int32  // of what never changes, see checksum; 0: made by a version that knew none
}

// live reports whether the budget counts against the limits on budgets: something
// is left to spend, or something is held. A budget that is spent out stays on
// record until its tokens have expired, and counts against nothing. A budget of a
// version that knew no expiry counts always, as it did in that version.
func (r *BudgetRow) live() bool { return r.Spent < r.Limit || r.Held > 0 || r.ValidUntil == 0 }

// HoldRow is one open reservation.
type HoldRow struct {
	ID      HoldID
	Account l402.TokenID
	Amount  l402.Msat
	Owner   OwnerID // who renews it; zero: made by a version without owners
	Context []byte  // what a sweep needs to know, see holdContext; never changes
	Usage   []byte  // running usage at the last renewal, see appendUsage
	Source  Source  // of the running usage
}

// ChargeRow is one ended reservation that cost something, or that was swept.
type ChargeRow struct {
	Hold        HoldID
	Account     l402.TokenID
	Prev        HoldID // the account's charge before this one; zero at the end
	ChainPrev   HoldID // the charge before this one through the same innermost budget; zero at the end
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
	Checksum    int32            // of what never changes, see checksum; 0: made by a version that knew none
}

// DepositRow is one payment. A settlement at the Lightning node is the truth;
// until it comes the credential's proof counts.
type DepositRow struct {
	Hash      l402.PaymentHash `json:"payment_hash"`
	Account   l402.TokenID     `json:"account"`
	Credited  l402.Msat        `json:"credited_msat"`
	Presented int64            `json:"presented_us"` // first presentation, µs since 1970; 0: never
	Settled   int64            `json:"settled_us"`   // first seen in the settle stream, µs since 1970; 0: never
	Node      string           `json:"node"`         // that reported it
	Index     uint64           `json:"settle_index"`
	Covered   l402.Msat        `json:"covered_msat"` // held and charged at the rates that the payment locked, see RateLock
	Doubted   int64            `json:"doubted_us"`   // taken back: lnd does not know it; µs since 1970; 0: not
	Owed      l402.Msat        `json:"owed_msat"`    // of Credited: no payment stands behind it, and it was spent
}

// WindowRow counts one rate limit over two windows of a minute.
type WindowRow struct {
	ID       [32]byte
	Account  l402.TokenID // whose token states the limit; not stored
	Window   int64        // minutes since 1970
	Count    int64        // in Window
	Previous int64        // in the window before
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
	Node    string
	Index   uint64
	Hash    l402.PaymentHash // of the invoice settled at Index; zero: not known
	Since   int64            // when the node's history last began anew, µs since 1970; 0: never
	Anew    bool             // replaces what stands, also a higher index; not stored
	Account l402.TokenID     // whose credit must be written for the cursor to move; zero: nobody's; not stored
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
	Kind    TransferKind
	Account l402.TokenID // the side that is an account; not stored by itself
	Debit   []byte       // token id, or the name of a book
	Credit  []byte
	Amount  l402.Msat // above 0
	Ref     []byte    // payment hash, hold id or adjustment id
	At      int64     // µs since 1970
}

// BudgetLine is one append-only movement on a delegated budget: what a hold's
// charge spent (positive) or gave back (negative). A line without a hold closes a
// budget that has expired: it takes back all that was spent, because the budget's
// row is gone and its parent has counted that money all along.
type BudgetLine struct {
	Account l402.TokenID // not stored
	Budget  [32]byte
	Hold    HoldID
	Amount  l402.Msat
	At      int64 // µs since 1970
}

// DepositFilter selects deposits.
type DepositFilter struct {
	Unclaimed   bool      // settled, never presented
	Unconfirmed time.Time // presented before this, never settled; zero: not asked
	Undoubted   bool      // with Unconfirmed: leave out those that were taken back
	Since       time.Time // with Unconfirmed: presented since then; zero: not asked
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
