package metering

import (
	"context"
	"fmt"
	"math"
	"time"

	"sluice.example/sluice/l402"
)

// Sizes of an audit's looks. Each look is one snapshot of some milliseconds, and
// memory grows with one of them only.
const (
	sliceLines  = 4000
	sliceRows   = 2000
	settleLines = 2 * sliceLines // a scan that meets no more than this has caught up
)

// tally is a Tally in memory.
type tally struct {
	Tally
	overflow bool
	seen     bool // compared with its row
}

func (t *tally) add(m *movement) {
	if m.seq <= t.Upto {
		return // counted already by an audit that was interrupted
	}
	_, err := t.Sums[m.field].Add(m.amount)
	t.Sums[m.field] += m.amount // wraps around, so that the same lines always give the same
	t.overflow = t.overflow || err != nil
}

// auditor reads lines in slices, sums them up by subject on top of a base, and
// compares the sums with the rows.
type auditor struct {
	Report
	store BookReader
	most  int     // subjects in memory
	pause float64 // rest between looks, as a multiple of the time that they took

	// base reads what stands for subjects before the first line that is read here; nil:
	// nothing.
	base    func(Snapshot, []Subject, func(Tally)) error
	at      Position // lines up to here are in tallies
	tallies map[Subject]*tally
	wanted  func(*Subject) bool // nil: every subject
	shrink  func()              // makes room when tallies have become too many; nil: nothing does
	rows    bool                // compare each line with the row that it names
	doubts  map[HoldID]*doubt
	strange map[HoldID]bool // holds that cannot be read, reported once

	suspects map[Subject]bool            // where something was wrong
	watch    func(*lineSet)              // sees every slice; nil: nobody does
	between  func(context.Context) error // runs after every slice; nil: nothing does
	sums     totals

	withBudgets bool              // compare an account's budgets together with it
	budgetsSeen map[[32]byte]bool // by such comparisons
}

// totals is what the accounts that were compared hold together.
type totals struct{ available, held, deposited, charged, adjusted, unbilled wide }

func newAuditor(store BookReader) *auditor {
	return &auditor{Report: Report{Mismatches: []string{}}, store: store, tallies: make(map[Subject]*tally),
		doubts: make(map[HoldID]*doubt), budgetsSeen: make(map[[32]byte]bool), strange: make(map[HoldID]bool), suspects: make(map[Subject]bool)}
}

// mismatch notes what is wrong, and about whom.
func (a *auditor) mismatch(about Subject, format string, args ...any) {
	if a.Mismatched++; len(a.Mismatches) < maxMismatches {
		a.Mismatches = append(a.Mismatches, fmt.Sprintf(format, args...))
	}
	a.suspect(about)
}

// suspect notes where to look again.
func (a *auditor) suspect(about Subject) {
	if len(a.suspects) <= maxSuspects {
		a.suspects[about] = true
	}
}

// rest pauses after a look, in proportion to what it took.
func (a *auditor) rest(ctx context.Context, took time.Duration) error {
	if a.pause <= 0 {
		return ctx.Err()
	}
	if !pauseFor(ctx, time.Duration(float64(took)*a.pause)) {
		return ctx.Err()
	}
	return nil
}

// catchUp scans until nearly all lines are in the tallies. When more lines come in
// than it reads, it rests less.
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

// scan reads the lines up to where nothing can appear any more.
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

// slice reads one run of lines.
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

// take adds lines to the tallies, and compares them with the rows they name.
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

// view is one snapshot in which rows are compared with tallies: what came in
// since the last slice is read in the same snapshot.
type view struct {
	*auditor
	s     Snapshot
	tail  map[Subject][]movement
	lines *lineSet
	bases map[Subject]*tally // of subjects that are not in tallies

	heldBy     map[l402.TokenID]l402.Msat
	heldBudget map[[32]byte]l402.Msat
	heldLock   map[lockKey]l402.Msat
}

// lockKey is a payment as an account's: a lock counts for its owner only.
type lockKey struct {
	hash    l402.PaymentHash
	account l402.TokenID
}

// look scans up to now and gives fn a view.
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

// readHolds sums up what is held: by account, by budget, by lock.
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

// prepare reads the base of subjects that no line has touched here.
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

// sumsOf is what all lines of the snapshot sum up to for a subject.
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
