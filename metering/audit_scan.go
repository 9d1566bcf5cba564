package metering

import (
	"context"
	"fmt"
	"math"
	"time"

	"sluice.example/sluice/l402"
)

// Sizes of an audit's snapshots. Each snapshot lasts some milliseconds, and the memory for lines and rows is that of
// one snapshot.
const (
	sliceLines  = 4000
	sliceRows   = 2000
	settleLines = 2 * sliceLines // a scan that reads no more lines than this has caught up
)

// tally is a Tally in memory.
type tally struct {
	Tally
	overflow bool
	seen     bool // the sums were compared with the subject's row
}

func (t *tally) add(m *movement) {
	if m.seq <= t.Upto {
		return // an audit that was interrupted has counted this line already
	}
	_, err := t.Sums[m.field].Add(m.amount)
	t.Sums[m.field] += m.amount // the sum wraps around, so that the same lines always give the same sum
	t.overflow = t.overflow || err != nil
}

// auditor reads lines in slices, sums them up by subject on top of a base, and compares the sums with the rows.
type auditor struct {
	Report
	store BookReader
	most  int     // bound on the subjects in memory
	pause float64 // rest between snapshots, as a multiple of the time that a snapshot took

	// base reads the sums of subjects before the first line that this audit reads; nil: all sums are 0.
	base    func(Snapshot, []Subject, func(Tally)) error
	at      Position // tallies count the lines up to here
	tallies map[Subject]*tally
	wanted  func(*Subject) bool // whether this audit sums up a subject; nil: it sums up every subject
	shrink  func()              // drops tallies when there are too many; nil: tallies are never dropped
	rows    bool                // compare each line with the row that the line names
	doubts  map[HoldID]*doubt
	strange map[HoldID]bool // holds whose context or usage cannot be read, so that each is reported once

	suspects map[Subject]bool            // subjects and lines with a mismatch
	watch    func(*lineSet)              // called with every slice of lines; nil: not called
	between  func(context.Context) error // called after every slice of lines; nil: not called
	sums     totals

	withBudgets bool              // compare an account's budgets together with the account
	budgetsSeen map[[32]byte]bool // budgets that were compared together with an account
}

// totals is what the compared accounts have in all.
type totals struct{ available, held, deposited, charged, adjusted, unbilled wide }

func newAuditor(store BookReader) *auditor {
	return &auditor{Report: Report{Mismatches: []string{}}, store: store, tallies: make(map[Subject]*tally),
		doubts: make(map[HoldID]*doubt), budgetsSeen: make(map[[32]byte]bool), strange: make(map[HoldID]bool), suspects: make(map[Subject]bool)}
}

// mismatch notes in the report what is wrong, and notes the subject as a suspect.
func (a *auditor) mismatch(about Subject, format string, args ...any) {
	if a.Mismatched++; len(a.Mismatches) < maxMismatches {
		a.Mismatches = append(a.Mismatches, fmt.Sprintf(format, args...))
	}
	a.suspect(about)
}

// suspect notes a subject or line that the next audit must look at again.
func (a *auditor) suspect(about Subject) {
	if len(a.suspects) <= maxSuspects {
		a.suspects[about] = true
	}
}

// rest pauses after a snapshot, for the time that the snapshot took multiplied by a.pause.
func (a *auditor) rest(ctx context.Context, took time.Duration) error {
	if a.pause <= 0 {
		return ctx.Err()
	}
	if !pauseFor(ctx, time.Duration(float64(took)*a.pause)) {
		return ctx.Err()
	}
	return nil
}

// catchUp scans until nearly all lines are in the tallies. When other processes add lines faster than the audit reads
// them, the audit rests less.
func (a *auditor) catchUp(ctx context.Context) error {
	for last := int64(math.MaxInt64); ; {
		before := a.Lines
		if err := a.scan(ctx); err != nil {
			return err
		}
		read := a.Lines - before
		if read <= settleLines {
			return nil
		}
		if read > last/2 {
			a.hurry()
		}
		last = read
	}
}

// hurry halves the rests of this audit.
func (a *auditor) hurry() {
	if a.pause /= 2; a.pause < 0.1 {
		a.pause = 0
	}
}

// scan reads the lines up to the store's Cutoff: no line with a number up to there can appear any more.
func (a *auditor) scan(ctx context.Context) error {
	cut, err := a.store.Cutoff(ctx)
	if err != nil {
		return err
	}
	cut.Transfers, cut.Budgets = max(cut.Transfers, a.at.Transfers), max(cut.Budgets, a.at.Budgets)
	for a.at != cut {
		if err := a.slice(ctx, cut); err != nil {
			return err
		}
		if a.between != nil {
			if err := a.between(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// slice reads at most sliceLines lines of each kind in one snapshot.
func (a *auditor) slice(ctx context.Context, upto Position) error {
	began := time.Now()
	err := a.store.Look(ctx, func(s Snapshot) error {
		set, err := readLines(s, a.at, upto, sliceLines)
		if err != nil {
			return err
		}
		return a.take(s, set)
	})
	if err != nil {
		return err
	}
	return a.rest(ctx, time.Since(began))
}

// take adds lines to the tallies. With a.rows, it also compares the lines with the rows that they name.
func (a *auditor) take(s Snapshot, set *lineSet) error {
	moves := set.movements()
	kept := moves[:0]
	var fresh []Subject
	for i := range moves {
		m := &moves[i]
		if a.wanted != nil && !a.wanted(&m.Subject) {
			continue
		}
		if a.tallies[m.Subject] == nil {
			a.tallies[m.Subject] = &tally{Tally: Tally{Subject: m.Subject}}
			fresh = append(fresh, m.Subject)
		}
		kept = append(kept, *m)
	}
	if a.base != nil && len(fresh) > 0 {
		if err := a.base(s, fresh, func(t Tally) { a.tallies[t.Subject].Tally = t }); err != nil {
			return err
		}
	}
	for i := range kept {
		a.tallies[kept[i].Subject].add(&kept[i])
	}
	if a.shrink != nil {
		a.shrink()
	}
	if a.rows {
		a.checkLines(set)
		if len(a.doubts) > manyDoubts {
			if err := a.settleDoubts(s, nil, false); err != nil {
				return err
			}
		}
	}
	if a.watch != nil {
		a.watch(set)
	}
	a.at = set.next
	a.Lines += int64(len(set.transfers) + len(set.budgets))
	return nil
}

// view is one snapshot in which rows are compared with tallies. The lines that were added after the last slice are read
// in the same snapshot.
type view struct {
	*auditor
	s     Snapshot
	tail  map[Subject][]movement
	lines *lineSet
	bases map[Subject]*tally // sums of subjects that are not in tallies

	heldBy     map[l402.TokenID]l402.Msat
	heldBudget map[[32]byte]l402.Msat
	heldLock   map[lockKey]l402.Msat
}

// lockKey is a payment and an account. A lock counts only for the account that owns the payment.
type lockKey struct {
	hash    l402.PaymentHash
	account l402.TokenID
}

// look scans the lines up to now, and calls fn with a view of a new snapshot.
func (a *auditor) look(ctx context.Context, fn func(*view) error) error {
	for {
		if err := a.scan(ctx); err != nil {
			return err
		}
		began, behind := time.Now(), false
		err := a.store.Look(ctx, func(s Snapshot) error {
			set, err := readLines(s, a.at, toTheEnd, settleLines)
			if err != nil {
				return err
			}
			if behind = set.more; behind {
				a.hurry()
				return nil
			}
			v := &view{s: s, auditor: a, lines: set, tail: make(map[Subject][]movement), bases: make(map[Subject]*tally)}
			for _, m := range set.movements() {
				v.tail[m.Subject] = append(v.tail[m.Subject], m)
			}
			if err := v.readHolds(); err != nil {
				return err
			}
			return fn(v)
		})
		if err == nil {
			err = a.rest(ctx, time.Since(began))
		}
		if err != nil || !behind {
			return err
		}
	}
}

// readHolds sums up the open holds by account, by budget and by lock.
func (v *view) readHolds() error {
	v.heldBy = make(map[l402.TokenID]l402.Msat)
	v.heldBudget = make(map[[32]byte]l402.Msat)
	v.heldLock = make(map[lockKey]l402.Msat)
	v.OpenHolds = 0
	return v.s.Holds(func(h HoldRow) {
		v.OpenHolds++
		v.heldBy[h.Account] += h.Amount
		c, err := readContext(h.Context)
		if err == nil {
			_, err = readUsage(h.Usage)
		}
		if err != nil && !v.strange[h.ID] {
			v.strange[h.ID] = true
			v.mismatch(accountSubject(h.Account), "account %s: hold %s: %v", h.Account, h.ID, err)
		}
		if c == nil || h.Amount == 0 {
			return
		}
		for i := range c.budgets {
			v.heldBudget[c.budgets[i].ID] += h.Amount
		}
		if c.lock != (l402.PaymentHash{}) {
			v.heldLock[lockKey{c.lock, h.Account}] += h.Amount
		}
	})
}

// prepare reads the base of the subjects that no line of this audit has touched.
func (v *view) prepare(ids []Subject) error {
	if v.base == nil {
		return nil
	}
	missing := ids[:0]
	for _, id := range ids {
		if v.tallies[id] == nil {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return v.base(v.s, missing, func(t Tally) { v.bases[t.Subject] = &tally{Tally: t} })
}

// sumsOf returns the sums of a subject over all lines of the snapshot.
func (v *view) sumsOf(id Subject) (sums Sums, overflow bool) {
	t := tally{Tally: Tally{Subject: id}}
	if known := v.tallies[id]; known != nil {
		known.seen = true
		t = *known
	} else if known := v.bases[id]; known != nil {
		t = *known
	}
	for i := range v.tail[id] {
		t.add(&v.tail[id][i])
	}
	return t.Sums, t.overflow
}
