package metering

import (
	"context"
	"fmt"
	"sync"

	"sluice.example/sluice/l402"
)

// Deposit credits a payment that macaroon and preimage prove. It returns what this call added, in msat: 0 when the
// payment was credited already. When this process remembers the payment as presented, Deposit first reads it from the
// store, because the store may have forgotten it in a failover. Deposit returns ErrForeignDeposit when the hash belongs
// to another account.
func (l *Ledger) Deposit(ctx context.Context, d Deposit) (l402.Msat, error) {
	if l.knows(d) {
		row, found, err := l.LookupDeposit(ctx, d.Hash)
		if err != nil || found && row.Account == d.Account {
			return 0, err
		}
	}
	op := &depositOp{d: d}
	if err := l.do(ctx, "deposit", op, false); err != nil {
		return 0, err
	}
	return op.credited, nil
}

// Known reports whether this process remembers the payment as credited: a client presented it to this process, or the
// Lightning node reported it.
func (l *Ledger) Known(h l402.PaymentHash) bool {
	l.recall()
	return l.known.hash(h) || l.paid.hash(h)
}

// knows reports whether this process remembers that presenting the payment would change nothing.
func (l *Ledger) knows(d Deposit) bool {
	l.recall()
	return l.known.has(d)
}

// recall drops the remembered payments when the store's generation has changed, because the database may have forgotten
// those payments in a failover.
func (l *Ledger) recall() {
	now := l.store.Generation()
	if l.generation.Swap(now) != now {
		l.known.clear()
		l.paid.clear()
		l.log.Warn("the database has failed over; payments are looked up again", "generation", now)
	}
}

// CreditSettled credits a payment that the Lightning node reported, and moves the node's cursor in the same
// transaction. It returns what this call added, in msat. The cursor moves even when the payment cannot be credited
// (ErrForeignDeposit, ErrAmount), so that one such payment does not stop the stream. CreditSettled waits for the store
// as long as ctx allows.
func (l *Ledger) CreditSettled(ctx context.Context, s Settled) (l402.Msat, error) {
	if s.Account == (l402.TokenID{}) || !storable(s.Node, maxName) {
		return 0, fmt.Errorf("credit: %w: no account, or a node name that is no text", ErrArgument)
	}
	op := &settledOp{s: s}
	if err := l.do(ctx, "credit", op, true); err != nil {
		return 0, err
	}
	return op.credited, nil
}

// AdvanceCursor moves a node's cursor to a settled invoice that needs no credit. An index below the stored index
// changes nothing. With anew, the node's history began anew: c replaces the stored cursor, whatever its index. The
// caller has then credited everything that was settled up to c.
func (l *Ledger) AdvanceCursor(ctx context.Context, c CursorRow, anew bool) error {
	if c.Node == "" || !storable(c.Node, maxName) {
		return fmt.Errorf("advance cursor: %w: no node", ErrArgument)
	}
	return l.do(ctx, "advance cursor", &settledOp{s: Settled{Node: c.Node, Index: c.Index, Cursor: c.Hash}, anew: anew}, true)
}

// Doubt takes back a payment that a client presented and that the Lightning node does not know, although it should: see
// Reader.Unconfirmed. The part that is still available leaves the account. The part that is spent or held is noted on
// the deposit as owed. If the payment settles later, the ledger credits it again. Doubt does not change a payment that
// the node reported.
func (l *Ledger) Doubt(ctx context.Context, d DepositRow) error {
	return l.do(ctx, "doubt a deposit", &doubtOp{hash: d.Hash, who: d.Account}, true)
}

// Adjust adds delta to what is available in an account, and notes the reason. A negative delta takes money away. Adjust
// makes a missing account. Repeating an id changes nothing. Adjust returns *InsufficientError when less than -delta is
// available.
func (l *Ledger) Adjust(ctx context.Context, id HoldID, account l402.TokenID, delta l402.Msat, reason string) error {
	if id == (HoldID{}) || account == (l402.TokenID{}) || delta == 0 || !storable(reason, 4*maxName) {
		return fmt.Errorf("adjust: %w: id, account and an amount are required, and a reason in text of at most %d bytes", ErrArgument, 4*maxName)
	}
	if !max(delta, -delta).Valid() {
		return fmt.Errorf("adjust by %s: %w", delta, ErrAmount)
	}
	op := &adjustOp{row: AdjustmentRow{ID: id, Account: account, Delta: delta, Reason: reason}}
	return l.do(ctx, "adjust", op, false)
}

// SetStatus freezes, revokes or reactivates an account. It makes a missing account.
func (l *Ledger) SetStatus(ctx context.Context, account l402.TokenID, s Status) error {
	if account == (l402.TokenID{}) || s < StatusActive || s > StatusRevoked {
		return fmt.Errorf("set status: %w", ErrArgument)
	}
	return l.do(ctx, "set status", &statusOp{who: account, status: s}, false)
}

// knownDeposits remembers payments that need not be presented again. It keeps two generations, so that it can forget
// the older half at once. Safe for concurrent use.
type knownDeposits struct {
	mu    sync.RWMutex
	size  int
	young map[l402.PaymentHash]Deposit
	old   map[l402.PaymentHash]Deposit
}

func newKnownDeposits(size int) *knownDeposits {
	return &knownDeposits{size: max(1, size/2), young: make(map[l402.PaymentHash]Deposit)}
}

// get returns a remembered payment. It moves a payment of the older generation to the younger one.
func (k *knownDeposits) get(h l402.PaymentHash) (Deposit, bool) {
	k.mu.RLock()
	d, ok := k.young[h]
	if ok {
		k.mu.RUnlock()
		return d, true
	}
	d, ok = k.old[h]
	k.mu.RUnlock()
	if ok {
		k.add(d) // used again, so remember it longer
	}
	return d, ok
}

func (k *knownDeposits) hash(h l402.PaymentHash) bool {
	_, ok := k.get(h)
	return ok
}

// has reports whether presenting d would change nothing.
func (k *knownDeposits) has(d Deposit) bool {
	known, ok := k.get(d.Hash)
	return ok && known.Account == d.Account && d.Amount <= known.Amount
}

func (k *knownDeposits) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.young)
	clear(k.old)
}

func (k *knownDeposits) add(d Deposit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.young) >= k.size {
		k.old, k.young = k.young, make(map[l402.PaymentHash]Deposit, k.size)
	}
	k.young[d.Hash] = d
}
