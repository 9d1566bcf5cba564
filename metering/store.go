package metering

import (
	"context"
	"time"

	"sluice.example/sluice/l402"
)

// Store keeps the ledger's rows. It loads and writes rows, and decides nothing. Safe for concurrent use.
type Store interface {
	StoreReader
	OwnerStore
	BookStore

	// Apply runs one batch. It loads every row that b names without locking the row, sets b.Now to its own clock, and
	// calls decide. Then it writes the changes in one transaction, account by account. When another process has locked
	// an account, or changed it since it was loaded, Apply leaves out the account with everything that belongs to it,
	// and calls b.Miss. So no process waits for a lock, and Apply holds no lock while decide runs.
	//
	// With b.Durable, which decide may set, a nil error means that the commit survives a power failure. Without
	// b.Durable, a crash of the machine may lose the last commits, in order. A crash of this process does not lose
	// them.
	//
	// After ErrConflict and ErrRejected, nothing was written. After any other error the batch may have been committed
	// or not. The ledger then runs the batch again, which is safe for the reasons in the package's comment.
	Apply(ctx context.Context, b *Batch, decide func()) error

	// Generation returns a number that grows when the database may have lost what this process remembers, after a
	// failover to another server. It never falls.
	Generation() uint64

	// Fingerprints calls update with all recorded key fingerprints, and records those that update returns. It does so
	// in one durable transaction that excludes other calls of Fingerprints.
	Fingerprints(ctx context.Context, update func(known [][32]byte) (add [][32]byte, err error)) error

	// Clean deletes up to limit expired idempotency keys, up to limit past rate windows, and up to limit owners that
	// were fenced long ago and own no holds. It returns how many rows it deleted.
	Clean(ctx context.Context, limit int) (int, error)
}

// StoreReader is the part of a Store that changes nothing. Its reads take no locks and see only committed rows.
type StoreReader interface {
	BookReader

	// Meta returns the ledger's random id, and when its database was made.
	Meta(ctx context.Context) (l402.LedgerID, time.Time, error)
	// Ping fails when the store does not answer.
	Ping(ctx context.Context) error
	// Balance reads one account and those of the given budgets that exist, in one snapshot. For an unknown account,
	// found is false and err is nil.
	Balance(ctx context.Context, id l402.TokenID, budgets []l402.Budget) (a AccountRow, rows []BudgetRow, found bool, err error)
	// Charge finds the charge of a hold.
	Charge(ctx context.Context, hold HoldID) (c ChargeRow, found bool, err error)
	// Charges lists up to limit charges, newest first, from one charge back into the past: those of the account, or
	// with a chain those made through that innermost budget. The list ends where a row is missing or belongs to another
	// account or chain.
	Charges(ctx context.Context, account l402.TokenID, chain l402.ChainID, from HoldID, limit int) ([]ChargeRow, error)
	// ExpiredBudgets looks at up to limit budgets whose ids are above after, in order of ids. It lists those that hold
	// nothing and whose tokens have all expired before a moment (unix seconds). next is the value of after for the next
	// call; zero: no budgets are left.
	ExpiredBudgets(ctx context.Context, before int64, after [32]byte, limit int) (list []BudgetRow, next [32]byte, err error)
	// Cursor reads up to which settled invoice of a Lightning node the ledger has credited payments.
	Cursor(ctx context.Context, node string) (c CursorRow, known bool, err error)
	// Deposit finds a deposit by its payment hash.
	Deposit(ctx context.Context, h l402.PaymentHash) (d DepositRow, found bool, err error)
	// Deposits calls fn with all deposits, or with those that the filter selects, in an order that depends on the
	// store. It ends after the filter's limit, or when fn fails.
	Deposits(ctx context.Context, which DepositFilter, fn func(DepositRow) error) error
	// Totals sums over all accounts. It fails when a sum exceeds l402.MaxMsat, which happens only when accounts are
	// damaged or credit was forged.
	Totals(ctx context.Context) (Totals, error)
}

// AccountRow is one account. The store also guards these invariants: Available + Held = Deposited + Adjusted − Charged,
// and neither Available nor Held is negative.
type AccountRow struct {
	ID        l402.TokenID
	Status    Status
	Available l402.Msat
	Held      l402.Msat
	Deposited l402.Msat
	Charged   l402.Msat
	Adjusted  l402.Msat
	Budgets   int64  // live budgets that the account itself delegated, see BudgetRow.live
	Last      HoldID // newest charge: the head of a list linked by ChargeRow.Prev; zero: no charge
	Version   int64  // set by the store, which compares it to see whether the row has changed since
}

// BudgetRow is one delegated budget that has or had something spent or held. The store also guards Spent + Held ≤
// Limit.
type BudgetRow struct {
	ID         [32]byte
	Account    l402.TokenID
	Parent     [32]byte // the budget that it was delegated from; zero: the account itself
	Limit      l402.Msat
	Spent      l402.Msat
	Held       l402.Msat
	Children   int64  // live budgets that were delegated from this one
	ValidUntil int64  // unix seconds: no token is valid longer; 0: made by a version without expiries
	Last       HoldID // newest charge through it as innermost budget, linked by ChargeRow.ChainPrev; zero: none
	Checksum   int32  // over the columns that never change, see checksum; 0: an older version made the row
}

// live reports whether the budget counts against the limits on budgets. It counts while it has something left to spend
// or holds something. A budget that is spent completely stays in the store until its tokens have expired, but does not
// count. A budget that an older version made without an expiry always counts, as it did in that version.
func (r *BudgetRow) live() bool { return r.Spent < r.Limit || r.Held > 0 || r.ValidUntil == 0 }

// HoldRow is one open reservation.
type HoldRow struct {
	ID      HoldID
	Account l402.TokenID
	Amount  l402.Msat
	Owner   OwnerID // the owner of the hold; zero: a version without owners made it
	Context []byte  // what a sweep needs to know, see holdContext; it never changes
	Usage   []byte  // running usage at the last heartbeat, see appendUsage
	Source  Source  // source of the running usage
}

// ChargeRow is one ended reservation that cost something or that was swept.
type ChargeRow struct {
	Hold        HoldID
	Account     l402.TokenID
	Prev        HoldID // the account's charge before this charge; zero: this is the first
	ChainPrev   HoldID // the charge before this charge through the same innermost budget; zero: this is the first
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
	Amount      l402.Msat // the amount that was held
	Charged     l402.Msat
	Unbilled    l402.Msat
	Epoch       int64
	Rates       []byte // see appendRates
	Provisional bool
	Lock        l402.PaymentHash // payment that locked Rates; zero: no lock. It never changes
	Checksum    int32            // over the columns that never change, see checksum; 0: an older version made the row
}

// DepositRow is one payment. After the Lightning node has reported the payment, the reported amount counts. Until then
// the amount that the credential proves counts.
type DepositRow struct {
	Hash      l402.PaymentHash `json:"payment_hash"`
	Account   l402.TokenID     `json:"account"`
	Credited  l402.Msat        `json:"credited_msat"`
	Presented int64            `json:"presented_us"` // first presentation, µs since 1970; 0: never
	Settled   int64            `json:"settled_us"`   // first reported by the Lightning node, µs since 1970; 0: never
	Node      string           `json:"node"`         // the node that reported it; "": none has
	Index     uint64           `json:"settle_index"`
	Covered   l402.Msat        `json:"covered_msat"` // held or charged at the rates that it locked, see RateLock
	Doubted   int64            `json:"doubted_us"`   // taken back, as lnd does not know it, µs since 1970; 0: never
	Owed      l402.Msat        `json:"owed_msat"`    // part of Credited that neither arrived nor was taken back
}

// WindowRow counts the requests of one rate limit in two windows of a minute.
type WindowRow struct {
	ID       [32]byte
	Account  l402.TokenID // the account of the token that states the limit; not stored
	Window   int64        // minutes since 1970
	Count    int64        // requests in Window
	Previous int64        // requests in the window before
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
	Charged bool  // false: the hold is still open
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

// CursorRow is up to which settled invoice of one Lightning node the ledger has credited payments.
type CursorRow struct {
	Node    string
	Index   uint64
	Hash    l402.PaymentHash // of the invoice settled at Index; zero: unknown
	Since   int64            // when the node's history last began anew, µs since 1970; 0: it never did
	Anew    bool             // the row replaces the stored row, even with a higher index; not stored
	Account l402.TokenID     // the account whose credit must be written for the cursor to move; zero: none; not stored
}

// TransferKind says why money moved.
type TransferKind int8

// The kinds of transfer. The stores store these numbers.
const (
	TransferDeposit    TransferKind = 1 // lightning → account
	TransferCharge     TransferKind = 2 // account → revenue
	TransferReversal   TransferKind = 3 // revenue → account: takes a provisional charge back
	TransferAdjustment TransferKind = 4 // adjustments → account, or account → adjustments
)

// The names of the ledger's own books, which are the other sides of transfers.
const (
	BookLightning   = "lightning"
	BookRevenue     = "revenue"
	BookAdjustments = "adjustments"
)

// TransferRow is one append-only pair of lines. Amount leaves Debit and enters Credit, so the two lines of each
// transfer sum up to zero.
type TransferRow struct {
	Kind    TransferKind
	Account l402.TokenID // the account of the two sides; not stored by itself
	Debit   []byte       // a token id, or the name of a book
	Credit  []byte
	Amount  l402.Msat // above 0
	Ref     []byte    // payment hash, hold id or adjustment id
	At      int64     // µs since 1970
}

// BudgetLine is one append-only movement on a delegated budget: what a hold's charge spent (positive), or what was
// taken back of that charge (negative). A line without a hold closes an expired budget. Such a line takes back all that
// was spent, because the budget's row is deleted, and the parent budget has counted the same money from the start.
type BudgetLine struct {
	Account l402.TokenID // not stored
	Budget  [32]byte
	Hold    HoldID
	Amount  l402.Msat
	At      int64 // µs since 1970
}

// DepositFilter selects deposits.
type DepositFilter struct {
	Unclaimed   bool      // reported settled, never presented
	Unconfirmed time.Time // presented before this time, never reported settled; zero: no such filter
	Undoubted   bool      // with Unconfirmed: leave out the deposits that were taken back
	Since       time.Time // with Unconfirmed: presented at or after this time; zero: no such filter
	Limit       int       // rows; 0: no limit
}

// Totals is the sums over all accounts.
type Totals struct {
	Accounts  int64     `json:"accounts"`
	Available l402.Msat `json:"available_msat"`
	Held      l402.Msat `json:"held_msat"`
	Deposited l402.Msat `json:"deposited_msat"`
	Charged   l402.Msat `json:"charged_msat"`
	Adjusted  l402.Msat `json:"adjusted_msat"`
}
