package metering

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// Hold is one open reservation. It is owned by one request's goroutine, and
// renewed by the ledger until it ends: Settle or Release it on every path.
type Hold struct {
	ledger *Ledger
	id     HoldID
	who    l402.TokenID
	made   terms // read only

	mu        sync.Mutex // the renewer reads what the owner writes
	amount    l402.Msat
	available l402.Msat
	usage     pricing.Units
	source    Source
	ending    *task // settlement or release, once there is one
}

// ID names the hold: the request's public id.
func (h *Hold) ID() HoldID { return h.id }

// Rates is the price that this request pays: the reservation's, or those of its
// lock.
func (h *Hold) Rates() pricing.Rates { return h.made.ctx.rates }

// Epoch is the price epoch that Rates come from.
func (h *Hold) Epoch() int64 { return h.made.ctx.epoch }

// Locked reports whether the hold was made under the reservation's lock.
func (h *Hold) Locked() bool { return h.made.ctx.lock != (l402.PaymentHash{}) }

// Amount is what is held now: the most that this request can be charged.
func (h *Hold) Amount() l402.Msat {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.amount
}

// Available is what the account and its budgets could hold beyond this, at the
// moment of the hold or its last extension.
func (h *Hold) Available() l402.Msat {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.available
}

// Progress notes what the request consumed so far. No I/O: the next renewal
// carries it to the store, for the case that this process dies.
func (h *Hold) Progress(u pricing.Units, s Source) {
	h.mu.Lock()
	h.usage, h.source = u, s
	h.mu.Unlock()
}

// Extend raises the hold to a total; a total that stands already changes
// nothing, so it may be repeated. Refused with *InsufficientError (Required is
// what lacks), ErrFrozen, ErrSwept, ErrEnded: the answer must be cut then. After
// any other error the hold may have been raised in the store or not; the charge
// is bounded by what stands there.
func (h *Hold) Extend(ctx context.Context, total l402.Msat) error {
	if !total.Valid() {
		return fmt.Errorf("extend to %s: %w", total, ErrAmount)
	}
	op, t, err := h.extend(total, false)
	if err != nil {
		return err
	}
	if err := h.ledger.wait(ctx, t); err != nil {
		return err
	}
	h.mu.Lock()
	h.amount, h.available = max(h.amount, total), op.available
	h.mu.Unlock()
	return nil
}

// extend queues an extension, unless the hold has ended: one that arrived after
// the settlement would make a hold that nobody owns.
func (h *Hold) extend(total l402.Msat, patient bool) (*extendOp, *task, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ending != nil {
		return nil, nil, fmt.Errorf("extend: %w", ErrEnded)
	}
	usage := h.usage
	op := &extendOp{id: h.id, who: h.who, want: h.made, usage: appendUsage(nil, usage.Clamped()), source: h.source}
	op.want.amount = total
	t, err := h.ledger.submit("extend", op, patient)
	return op, t, err
}

// Settle charges the cost of what was consumed, at most what is held, and gives
// the rest back. It is committed durably when it returns without error, exactly
// once however often the store fails in between. ctx bounds the waiting only:
// the ledger goes on with it by itself, and calling Settle again waits for the
// same settlement, whatever the arguments. Use a context that the client's
// leaving does not end.
func (h *Hold) Settle(ctx context.Context, s Settlement) (Entry, error) {
	t, err := h.end(s)
	if err != nil {
		return Entry{}, err
	}
	if err := h.ledger.wait(ctx, t); err != nil {
		return Entry{}, err
	}
	return t.operation.(*settleOp).entry, nil
}

// Release gives everything back: nothing was delivered. Otherwise like Settle.
func (h *Hold) Release(ctx context.Context, o Outcome) error {
	_, err := h.Settle(ctx, Settlement{Source: SourceNone, Outcome: o})
	return err
}

// end queues the settlement the first time, and returns the same one after.
func (h *Hold) end(s Settlement) (*task, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ending != nil {
		return h.ending, nil
	}
	// A name that a store cannot hold must not keep a settlement from happening.
	s.Backend = strings.ToValidUTF8(strings.ReplaceAll(s.Backend[:min(len(s.Backend), maxName)], "\x00", ""), "")
	s.DeliveredBytes = max(0, s.DeliveredBytes)
	cost, clamped := costOf(h.made.ctx.rates, &s.Usage)
	s.ClampedUsage = s.ClampedUsage || clamped
	op := &settleOp{id: h.id, who: h.who, ctx: h.made.ctx, held: h.amount, cost: cost, s: s}
	t, err := h.ledger.submit("settle", op, true)
	if err != nil {
		return nil, err
	}
	h.ending = t
	h.ledger.forget(h.id)
	return t, nil
}

// forget ends the renewal of a hold.
func (l *Ledger) forget(id HoldID) {
	l.mu.Lock()
	delete(l.open, id)
	l.mu.Unlock()
}

// releaseUnowned releases a hold that may have been made for a caller who gave
// up. Should the ledger be closing, its lease does the same.
func (l *Ledger) releaseUnowned(o *reserveOp) {
	op := &settleOp{id: o.r.ID, who: o.r.Account, ctx: contextOf(o.r), s: Settlement{Source: SourceNone, Outcome: OutcomeClientGone}}
	if o.r.Lock != nil {
		op.maybe = o.r.Lock.Hash
	}
	if _, err := l.submit("release", op, true); err != nil && !errors.Is(err, ErrClosed) {
		l.log.Error("release of an unowned hold", "request_id", o.r.ID.String(), "error", err)
	}
}

// progress is what the next renewal carries, or false when the hold has ended.
func (h *Hold) progress() (Progress, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	usage := h.usage.Clamped()
	return Progress{ID: h.id, Usage: appendUsage(nil, usage), Source: h.source}, h.ending == nil
}
