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
	Lines       int64     `json:"lines"`       // of transfers and of budgets: how many the audit read
	Since       string    `json:"since"`       // the closed period that the audit built on; "": no period
	SealedAt    int64     `json:"sealed_us"`   // when that period was closed, µs since 1970; 0: no period
	Periods     int64     `json:"periods"`     // number of closed periods
	Unclaimed   int64     `json:"unclaimed"`   // payments that arrived and were never presented
	Unconfirmed int64     `json:"unconfirmed"` // payments presented over confirmWithin ago, never reported settled
	Mismatched  int64     `json:"mismatched"`  // number of differences; 0: everything agrees
	Mismatches  []string  `json:"mismatches"`  // texts of the first maxMismatches differences
}

// maxMismatches bounds the number of texts in Report.Mismatches.
const maxMismatches = 100

// OK reports whether the audit found no difference.
func (r *Report) OK() bool { return r.Mismatched == 0 }

// AuditOptions says what an audit reads, how fast, and with how much memory.
type AuditOptions struct {
	// Open makes the audit build on the sums of the last closed period: the audit does not read the lines of closed
	// periods again. Without Open, or when no period was closed, the audit recomputes everything from the first line
	// on, and also compares each charge and adjustment row with its lines.
	Open bool
	// Pause is how long the audit rests after each snapshot, as a multiple of the time that it spent on the snapshot.
	Pause float64
	// Subjects bounds how many accounts, budgets and payments are in memory at a time, about 150 bytes each. 0 means a
	// million. When the store has more subjects, the audit takes one range of ids after another, and reads the lines
	// again for each range.
	Subjects int
}

// Audit recomputes every balance from the append-only lines and from the rows that they name, and checks the invariants
// of every account and budget.
func (r *Reader) Audit(ctx context.Context) (Report, error) { return r.AuditWith(ctx, AuditOptions{}) }

// AuditWith is Audit with options. It may run beside any load: it reads lines in short snapshots, follows the lines
// that other processes add meanwhile, and compares each row with its lines, the newest included, in one snapshot. Its
// memory grows with the open holds, with o.Subjects, and with the subjects that are added while it compares.
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

// first returns the first id of a share.
func (s *share) first() (id [32]byte) {
	binary.BigEndian.PutUint64(id[:8], s.low)
	return id
}

// all audits everything. With open, it audits only what came after the last closed period.
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

// audit compares the subjects of one share. It shrinks the share when the share has more than a.most subjects.
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
	// From here on the share must not shrink, because an account that left it would be compared without its lines, or
	// counted twice. Subjects that are added meanwhile take memory beyond a.most.
	a.shrink = nil
	for _, walk := range []func(context.Context, *share) error{a.walkAccounts, a.walkBudgets, a.walkPayments, a.leftOver} {
		if err := walk(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// auditOnce checks what does not depend on a share: the doubts, the locks of holds, and, with whole, the rows that
// counts covers.
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

// finish writes the sums over all accounts into the report, and reports a sum that exceeds all existing bitcoin.
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
