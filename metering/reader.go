package metering

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
)

// Reader reads a ledger and changes nothing. A process that only reads may use it while other processes serve. Safe for
// concurrent use.
type Reader struct {
	store StoreReader
	id    l402.LedgerID
	born  time.Time
}

// NewReader reads the ledger's identity from the store.
func NewReader(ctx context.Context, s StoreReader) (*Reader, error) {
	id, born, err := s.Meta(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the ledger's identity: %w", err)
	}
	return &Reader{store: s, id: id, born: born}, nil
}

// ID returns the ledger's random id, which was made with its database.
func (r *Reader) ID() l402.LedgerID { return r.id }

// Born returns when the ledger's database was made. No payment was settled for this ledger before.
func (r *Reader) Born(context.Context) (time.Time, error) { return r.born, nil }

// Cursor returns up to which settled invoice of a Lightning node the ledger has credited payments.
func (r *Reader) Cursor(ctx context.Context, node string) (c CursorRow, known bool, err error) {
	c, known, err = r.store.Cursor(ctx, node)
	return c, known, unavailable("read cursor", err)
}

// Balance returns an account as a reservation sees it: Available is the least of what the account and each of the given
// budgets have left. All amounts of an unknown account are 0.
func (r *Reader) Balance(ctx context.Context, account l402.TokenID, budgets []l402.Budget) (Balance, error) {
	a, rows, _, err := r.store.Balance(ctx, account, budgets)
	if err != nil {
		return Balance{}, unavailable("read balance", err)
	}
	b := Balance{Account: account.String(), Available: a.Available, Held: a.Held, Deposited: a.Deposited,
		Charged: a.Charged, Budgets: make([]BudgetBalance, 0, len(budgets))}
	for i := range budgets {
		row := findBudget(rows, budgets[i].ID)
		room := budgetRoom(row, budgets[i].Limit)
		shown := BudgetBalance{Label: budgets[i].Label, Limit: budgets[i].Limit, Available: room}
		if row != nil {
			shown.Held, shown.Charged = row.Held, row.Spent
		}
		b.Budgets = append(b.Budgets, shown)
		b.Available = min(b.Available, room)
	}
	return b, nil
}

func findBudget(rows []BudgetRow, id [32]byte) *BudgetRow {
	for i := range rows {
		if rows[i].ID == id {
			return &rows[i]
		}
	}
	return nil
}

// Status returns the status of an account. An unknown account is active.
func (r *Reader) Status(ctx context.Context, account l402.TokenID) (Status, error) {
	a, _, _, err := r.store.Balance(ctx, account, nil)
	return a.Status, unavailable("read status", err)
}

// EntryQuery selects charges of one account.
type EntryQuery struct {
	Account l402.TokenID
	Chain   l402.ChainID // only charges through this innermost budget; zero: all charges of the account
	Since   time.Time    // only charges from this time on; zero: all charges
	Before  string       // the next value of the page before; "": begin with the newest charge
	Limit   int          // rows, 1..1000; 0: 100 rows
}

// Bounds of one page of entries.
const (
	defaultEntries = 100
	maxEntries     = 1000
	// scanEntries is how many charges of the account one page looks at, for a chain that has no list of its charges.
	scanEntries = 2000
)

// Entries returns charges, newest first, and the value of Before for the next page ("": there is no next page). The
// cost is in proportion to the rows returned, with one exception. An older version kept no list of a chain's charges.
// Entries looks for the charges of such a chain among all charges of the account. A page of such a chain may then be
// short or even empty, although there are more pages.
func (r *Reader) Entries(ctx context.Context, q EntryQuery) (page []Entry, next string, err error) {
	if q.Limit <= 0 {
		q.Limit = defaultEntries
	}
	q.Limit = min(q.Limit, maxEntries)
	at, listed, err := r.firstEntry(ctx, q)
	if err != nil {
		return nil, "", err
	}
	list, most := q.Chain, q.Limit+1
	if !listed {
		list, most = l402.ChainID{}, scanEntries
	}
	page = []Entry{}
	if at == (HoldID{}) {
		return page, "", nil
	}
	rows, err := r.store.Charges(ctx, q.Account, list, at, most)
	if err != nil {
		return nil, "", unavailable("read entries", err)
	}
	for i := range rows {
		switch {
		case !q.Since.IsZero() && rows[i].At < q.Since.UnixMicro():
			return page, "", nil
		case q.Chain != (l402.ChainID{}) && rows[i].Chain != q.Chain:
		case len(page) == q.Limit:
			return page, rows[i].Hold.String(), nil
		default:
			page = append(page, rows[i].Entry())
		}
	}
	if n := len(rows); !listed && n == most && rows[n-1].Prev != (HoldID{}) {
		return page, rows[n-1].Prev.String(), nil
	}
	return page, "", nil
}

// firstEntry returns the charge at which a page begins. listed reports whether the account or the chain that the query
// selects has a list of its charges.
func (r *Reader) firstEntry(ctx context.Context, q EntryQuery) (at HoldID, listed bool, err error) {
	if q.Before != "" {
		if at, err = ParseHoldID(q.Before); err != nil {
			return at, false, fmt.Errorf("read entries: %w: %w", ErrArgument, err)
		}
	}
	if q.Chain == (l402.ChainID{}) && q.Before != "" {
		return at, true, nil
	}
	a, rows, _, err := r.store.Balance(ctx, q.Account, []l402.Budget{{ID: q.Chain}})
	if err != nil {
		return at, false, unavailable("read entries", err)
	}
	b, first := findBudget(rows, q.Chain), a.Last
	switch {
	case q.Chain == (l402.ChainID{}):
		listed = true
	case b == nil || b.Account != q.Account: // nothing was charged through this chain
		return HoldID{}, true, nil
	case b.ValidUntil != 0:
		listed, first = true, b.Last
	}
	if q.Before == "" {
		at = first
	}
	return at, listed, nil
}

// LookupDeposit finds a payment by its hash.
func (r *Reader) LookupDeposit(ctx context.Context, h l402.PaymentHash) (DepositRow, bool, error) {
	d, found, err := r.store.Deposit(ctx, h)
	return d, found, unavailable("read deposit", err)
}

// EachDeposit calls fn with all deposits in the order of their hashes, until fn fails. It reads them in many short
// snapshots, so it may miss deposits that are added meanwhile.
func (r *Reader) EachDeposit(ctx context.Context, fn func(DepositRow) error) error {
	for from, done := (l402.PaymentHash{}), false; !done; {
		var rows []DepositRow
		err := r.store.Look(ctx, func(s Snapshot) error {
			return s.Deposits(from, sliceRows, func(d DepositRow) { rows = append(rows, d) })
		})
		if err != nil {
			return unavailable("read deposits", err)
		}
		for i := range rows {
			if err := fn(rows[i]); err != nil {
				return err
			}
		}
		if done = len(rows) < sliceRows; !done {
			from = rows[len(rows)-1].Hash
			done = increment(from[:])
		}
	}
	return nil
}

// Unclaimed lists up to limit payments that arrived and that no client has presented. Their buyers may have lost the
// answer with the credential.
func (r *Reader) Unclaimed(ctx context.Context, limit int) ([]DepositRow, error) {
	return r.deposits(ctx, DepositFilter{Unclaimed: true, Limit: limit})
}

// Unconfirmed lists up to limit payments that clients presented longer ago than age, and that the Lightning node never
// reported. Somebody with a leaked key can make such credit.
func (r *Reader) Unconfirmed(ctx context.Context, age time.Duration, limit int) ([]DepositRow, error) {
	return r.deposits(ctx, DepositFilter{Unconfirmed: time.Now().Add(-age), Limit: limit})
}

// Undoubted lists the payments of Unconfirmed that were presented at or after since and that Doubt has not taken back.
func (r *Reader) Undoubted(ctx context.Context, age time.Duration, since time.Time, limit int) ([]DepositRow, error) {
	return r.deposits(ctx, DepositFilter{Unconfirmed: time.Now().Add(-age), Undoubted: true, Since: since, Limit: limit})
}

func (r *Reader) deposits(ctx context.Context, f DepositFilter) (list []DepositRow, err error) {
	f.Limit = min(max(f.Limit, 1), maxEntries)
	err = r.store.Deposits(ctx, f, func(d DepositRow) error { list = append(list, d); return nil })
	return list, unavailable("read deposits", err)
}

// Totals sums over all accounts. It reads every account, which takes seconds with millions of accounts.
func (r *Reader) Totals(ctx context.Context) (Totals, error) {
	t, err := r.store.Totals(ctx)
	return t, unavailable("read totals", err)
}

// unavailable adds ErrUnavailable to the error of a failed read, unless the error is ErrArgument.
func unavailable(what string, err error) error {
	if err == nil || errors.Is(err, ErrArgument) {
		return err
	}
	return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
}
