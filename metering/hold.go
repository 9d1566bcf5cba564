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

// Hold is one open reservation. The goroutine of one request owns it. The ledger renews it until it ends, so the owner
// must call Settle or Release on every path.
type Hold struct {
	ledger *Ledger
	id     HoldID
	who    l402.TokenID
	made   terms // read only

	mu        sync.Mutex // guards the fields below: the ledger's heartbeat reads what the request's goroutine writes
	amount    l402.Msat
	available l402.Msat
	usage     pricing.Units
	source    Source
	ending    *task // the settlement or release; nil while the hold is open
}

// ID returns the id of the hold, which is the request's public id.
func (h *Hold) ID() HoldID { return h.id }

// Rates returns the rates that this request pays: those of the reservation, or those of its lock.
func (h *Hold) Rates() pricing.Rates { return h.made.ctx.rates }

// Epoch returns the id of the price epoch that Rates come from.
func (h *Hold) Epoch() int64 { return h.made.ctx.epoch }

// Locked reports whether the hold was made under the reservation's lock.
func (h *Hold) Locked() bool { return h.made.ctx.lock != (l402.PaymentHash{}) }

// Amount returns what is held now, in msat. It is the most that this request can be charged.
func (h *Hold) Amount() l402.Msat {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.amount
}

// Available returns what the account and its budgets could hold besides this hold, in msat, when the hold was made or
// last extended.
func (h *Hold) Available() l402.Msat {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.available
}

// Progress notes what the request has consumed so far. It does no I/O. The next heartbeat writes the usage to the
// store, so that a sweep can charge it if this process dies.
func (h *Hold) Progress(u pricing.Units, s Source) {
	h.mu.Lock()
	h.usage, h.source = u, s
	h.mu.Unlock()
}

// Extend raises the hold to a total in msat. A total that is held already changes nothing, so the caller may repeat
// Extend. Extend refuses with *InsufficientError (Required is the missing amount), ErrFrozen, ErrSwept or ErrEnded. The
// caller must then cut the answer. After any other error the hold may have been raised in the store or not. The charge
// is at most what the store holds.
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

// extend queues an extension, unless the hold has ended. An extension after the settlement would make a hold that has
// no owner.
func (h *Hold) extend(total l402.Msat, patient bool) (*extendOp, *task, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ending != nil {
		return nil, nil, fmt.Errorf("extend: %w", ErrEnded)
	}
	usage := h.usage
	op := &extendOp{id: h.id, who: h.who, want: h.made, usage: appendUsage(make([]byte, 0, 16), usage.Clamped()), source: h.source}
	op.want.amount = total
	t, err := h.ledger.submit("extend", op, patient)
	return op, t, err
}

// Settle charges the cost of what was consumed, at most what is held, and gives the rest back. When Settle returns
// without an error, the charge is committed durably and exactly once, however often the store failed in between. ctx
// bounds only the waiting. When ctx ends, the ledger continues with the settlement by itself. Calling Settle again
// waits for the same settlement, whatever the arguments. The caller should use a context that does not end when the
// client leaves, and must not change the entry, which is nil with an error.
func (h *Hold) Settle(ctx context.Context, s Settlement) (*Entry, error) {
	t, err := h.end(s)
	if err != nil {
		return nil, err
	}
	if err := h.ledger.wait(ctx, t); err != nil {
		return nil, err
	}
	return &t.operation.(*settleOp).entry, nil
}

// Release gives back everything that is held, because nothing was delivered. Otherwise it is like Settle.
func (h *Hold) Release(ctx context.Context, o Outcome) error {
	_, err := h.Settle(ctx, Settlement{Source: SourceNone, Outcome: o})
	return err
}

// end queues the settlement on its first call. Later calls return the same task.
func (h *Hold) end(s Settlement) (*task, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ending != nil {
		return h.ending, nil
	}
	// A backend name that a store cannot keep must not prevent a settlement, so end cuts the name to what every store
	// can keep.
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

// forget stops the heartbeats of a hold.
func (l *Ledger) forget(id HoldID) {
	l.mu.Lock()
	delete(l.open, id)
	l.mu.Unlock()
}

// releaseUnowned releases a hold that may have been made for a caller who gave up. When the ledger is closing, the
// release is not queued, and a sweep ends the hold after the ledger has ended.
func (l *Ledger) releaseUnowned(o *reserveOp) {
	op := &settleOp{id: o.r.ID, who: o.r.Account, ctx: contextOf(o.r), s: Settlement{Source: SourceNone, Outcome: OutcomeClientGone}}
	if o.r.Lock != nil {
		op.maybe = o.r.Lock.Hash
	}
	if _, err := l.submit("release", op, true); err != nil && !errors.Is(err, ErrClosed) {
		l.log.Error("release of an unowned hold", "request_id", o.r.ID.String(), "error", err)
	}
}

// progress returns what the next heartbeat reports of the hold. It returns false when the hold has ended.
func (h *Hold) progress() (Progress, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	usage := h.usage.Clamped()
	return Progress{ID: h.id, Usage: appendUsage(make([]byte, 0, 16), usage), Source: h.source}, h.ending == nil
}
