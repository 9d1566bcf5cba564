package metering

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"sluice.example/sluice/l402"
)

// Report is the result of an audit.
type Report struct {
	Totals
	Unbilled    l402.Msat `json:"unbilled_msat"`
	OpenHolds   int64     `json:"open_holds"`
	Budgets     int64     `json:"budgets"`
	Lines       int64     `json:"lines"`       // read, of transfers and of budgets
	Since       string    `json:"since"`       // the closed period that the audit built on; "": on nothing
	SealedAt    int64     `json:"sealed_us"`   // when that period was closed, µs since 1970; 0: nothing was built on
	Periods     int64     `json:"periods"`     // closed
	Unclaimed   int64     `json:"unclaimed"`   // payments that arrived and were never presented
	Unconfirmed int64     `json:"unconfirmed"` // payments presented over confirmWithin ago and never seen settled
	Mismatched  int64     `json:"mismatched"`  // how many; 0: all agrees
	Mismatches  []string  `json:"mismatches"`  // the first maxMismatches of them
}

// maxMismatches bounds the list of a report.
const maxMismatches = 100

// OK reports whether everything agreed.
func (r *Report) OK() bool { return r.Mismatched == 0 }

// AuditOptions says what an audit reads.
type AuditOptions struct {
	// Open builds on the sums of the last closed period: its lines are not read
	// again. Without it, or when no period was closed, everything is recomputed from
	// the first line on, and each row is compared with its lines as well.
	Open bool
	// Pause is how long to rest after each look, as a multiple of what it took.
	Pause float64
	// Subjects bounds how many accounts, budgets and payments are in memory at a time,
	// about 150 bytes each. 0: a million. Where there are more, an audit takes one
	// range of ids after another and reads the lines again for each.
	Subjects int
}

// Audit recomputes every balance from the append-only lines and from the rows
// behind them, and checks the invariants of every account and budget.
func (r *Reader) Audit(ctx context.Context) (Report, error) { return r.AuditWith(ctx, AuditOptions{}) }

// AuditWith is Audit with options. It may run beside any load: it reads lines in
// short looks, follows those that are added meanwhile, and compares each row
// together with the newest lines in one snapshot. Memory grows with open holds, with
// o.Subjects, and with the subjects that come in while it compares.
func (r *Reader) AuditWith(ctx context.Context, o AuditOptions) (Report, error) {
	a := newAuditor(r.store)
	a.pause = o.Pause
	a.most = orDefault(o.Subjects, 1<<20)
	err := a.all(ctx, o.Open)
	if err != nil {
		return Report{}, unavailable("audit", err)
	}
	for filter, count := range map[DepositFilter]*int64{
		{Unclaimed: true}: &a.Unclaimed, {Unconfirmed: time.Now().Add(-confirmWithin)}: &a.Unconfirmed,
	} {
		if err := r.store.Deposits(ctx, filter, func(DepositRow) error { *count++; return nil }); err != nil {
			return Report{}, unavailable("audit", err)
		}
	}
	return a.Report, nil
}

// share is a range of ids by their first eight bytes, both ends included.
type share struct{ low, high uint64 }

func prefix(id *[32]byte) uint64 { return binary.BigEndian.Uint64(id[:8]) }

func (s *share) holds(id *[32]byte) bool { p := prefix(id); return s.low <= p && p <= s.high }

// first is the first id of a share.
func (s *share) first() (id [32]byte) {
	binary.BigEndian.PutUint64(id[:8], s.low)
	return id
}

// all audits everything, or what is open.
func (a *auditor) all(ctx context.Context, open bool) error {
	seals, err := a.checkSeals(ctx)
	if err != nil {
		return err
	}
	var from Position
	recount := newRecount(seals)
	if n := len(seals); open && n > 0 {
		last := seals[n-1]
		from, a.Since, a.SealedAt = last.To, last.Name, last.Sealed
		a.base = func(s Snapshot, ids []Subject, fn func(Tally)) error { return s.SealedTallies(last.Period, ids, fn) }
		recount = nil
	}
	whole := from == Position{}
	for part := (share{0, math.MaxUint64}); ; part = (share{part.high + 1, math.MaxUint64}) {
		first := part.low == 0
		var counts census
		a.at, a.tallies, a.rows, a.watch = from, make(map[Subject]*tally), first, nil
		if first && whole {
			counts.begin(a, recount)
		}
		if err := a.audit(ctx, &part); err != nil {
			return err
		}
		if first {
			if err := a.auditOnce(ctx, whole, &counts); err != nil {
				return err
			}
			recount.compare(a, seals)
		}
		if part.high == math.MaxUint64 {
			break
		}
	}
	a.finish()
	return nil
}

// audit compares the subjects of one share, which shrinks when they are too many.
func (a *auditor) audit(ctx context.Context, part *share) error {
	a.wanted = func(s *Subject) bool { return part.holds(&s.ID) }
	a.shrink = func() {
		for len(a.tallies) > a.most && part.high > part.low {
			part.high = part.low + (part.high-part.low)/2
			for id := range a.tallies {
				if !part.holds(&id.ID) {
					delete(a.tallies, id)
				}
			}
		}
	}
	if err := a.catchUp(ctx); err != nil {
		return err
	}
	// From here on the share stays: an account that left it would be compared without
	// its lines, or counted twice. Accounts that come in meanwhile take memory.
	a.shrink = nil
	for _, walk := range []func(context.Context, *share) error{a.walkAccounts, a.walkBudgets, a.walkPayments, a.leftOver} {
		if err := walk(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// auditOnce checks what does not depend on a share.
func (a *auditor) auditOnce(ctx context.Context, whole bool, counts *census) error {
	err := a.look(ctx, func(v *view) error {
		if err := v.settleDoubts(v.s, v.lines, true); err != nil {
			return err
		}
		return v.checkLocks()
	})
	if err != nil || !whole {
		return err
	}
	return counts.walk(ctx)
}

// finish sums up.
func (a *auditor) finish() {
	for _, sum := range []struct {
		name string
		sum  wide
		into *l402.Msat
	}{
		{"available", a.sums.available, &a.Available}, {"held", a.sums.held, &a.Held}, {"deposited", a.sums.deposited, &a.Deposited},
		{"charged", a.sums.charged, &a.Charged}, {"adjusted", a.sums.adjusted, &a.Adjusted}, {"unbilled", a.sums.unbilled, &a.Unbilled},
	} {
		var ok bool
		if *sum.into, ok = sum.sum.msat(); !ok && sum.name != "unbilled" {
			a.mismatch(Subject{}, "all accounts: %s %s msat is more than there is", sum.name, sum.sum.big())
		}
	}
}
