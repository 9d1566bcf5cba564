package metering

import (
	"context"
	"errors"
	"math"
	"time"
)

// Bounds of an audit of what is new.
const (
	checkAtOnce = 500 // subjects compared in one snapshot
	saveAtOnce  = 200 // tallies written in one transaction; a payment may have to wait for that transaction
)

// newAudit is an audit of what changed since the last audit.
type newAudit struct {
	*auditor
	books   BookStore
	state   AuditState
	touched map[Subject]bool // subjects to compare besides those in tallies
	every   bool             // too many subjects were touched: compare every row
}

// AuditNew checks what changed since the last audit. It compares each new line with the row that the line names. It
// compares the accounts, budgets and payments of those lines, and of all open holds, with their sums. It keeps the sums
// up to date, so that the cost of an audit depends on the changes alone. A row that was wrong is compared again by
// every audit, until the row is right. The report's sums cover only the rows that this audit compared.
func (l *Ledger) AuditNew(ctx context.Context) (Report, error) {
	r, err := l.auditNew(ctx)
	return r, unavailable("audit", err)
}

func (l *Ledger) auditNew(ctx context.Context) (Report, error) {
	state, err := l.store.AuditState(ctx)
	if err != nil {
		return Report{}, err
	}
	n := &newAudit{auditor: newAuditor(l.store), books: l.store, state: state, touched: make(map[Subject]bool)}
	n.pause, n.most, n.rows, n.at = l.cfg.AuditPause, l.cfg.AuditSubjects, true, state.Scanned
	n.base = func(s Snapshot, ids []Subject, fn func(Tally)) error { return s.Tallies(ids, fn) }
	n.between = n.makeRoom
	if err := n.run(ctx); err != nil {
		return Report{}, err
	}
	return n.Report, nil
}

func (n *newAudit) run(ctx context.Context) error {
	subjects, lines := readSuspects(n.state.Suspects)
	for _, s := range subjects {
		n.touched[s] = true
	}
	if err := n.recall(ctx); err != nil {
		return err
	}
	if err := n.catchUp(ctx); err != nil {
		return err
	}
	reached := n.at // the next audit compares the subjects of lines that are added from now on
	if err := n.compare(ctx); err != nil {
		return err
	}
	err := n.look(ctx, func(v *view) error {
		if err := n.lookAgain(v, lines); err != nil {
			return err
		}
		return n.settleDoubts(v.s, v.lines, true)
	})
	if err != nil {
		return err
	}
	n.finish()
	if err := n.save(ctx); err != nil {
		return err
	}
	done := n.state
	done.At, done.Mismatched, done.Suspects = time.Now().UnixMicro(), n.Mismatched, appendSuspects(nil, n.suspects)
	if len(n.suspects) <= maxSuspects {
		done.Scanned, done.Checked = n.at, reached
	}
	return n.advance(ctx, done)
}

// recall finds the subjects whose lines are in the sums already, but which no audit has compared: the lines were added
// while the last audit compared, or that audit was interrupted.
func (n *newAudit) recall(ctx context.Context) error {
	c := newAuditor(n.store)
	c.pause, c.at = n.pause, n.state.Checked
	upto := n.state.Scanned
	for c.at.Transfers < upto.Transfers || c.at.Budgets < upto.Budgets {
		if err := c.slice(ctx, upto); err != nil {
			return err
		}
		if len(c.tallies) > n.most {
			n.every = true
			return nil
		}
	}
	for id := range c.tallies {
		n.touched[id] = true
	}
	return nil
}

// makeRoom writes the tallies to the store and drops them from memory when there are more than n.most.
func (n *newAudit) makeRoom(ctx context.Context) error {
	if len(n.tallies) <= n.most {
		return nil
	}
	n.every = true
	if err := n.save(ctx); err != nil {
		return err
	}
	if len(n.suspects) > 0 || len(n.doubts) > 0 {
		return nil // the next audit must read these lines again if this audit is interrupted
	}
	next := n.state
	next.Scanned = n.at
	return n.advance(ctx, next)
}

// save writes the tallies to the store, saveAtOnce at a time, and drops them from memory. A tally says which lines it
// counts, so an interruption between two writes does no harm.
func (n *newAudit) save(ctx context.Context) error {
	list := make([]Tally, 0, saveAtOnce)
	write := func() error {
		began := time.Now()
		if err := n.books.SaveTallies(ctx, 0, list); err != nil {
			return err
		}
		list = list[:0]
		return n.rest(ctx, time.Since(began))
	}
	for id, t := range n.tallies {
		t.Upto = id.position(n.at)
		if list = append(list, t.Tally); len(list) == saveAtOnce {
			if err := write(); err != nil {
				return err
			}
		}
	}
	if len(list) > 0 {
		if err := write(); err != nil {
			return err
		}
	}
	clear(n.tallies)
	return nil
}

// errOvertaken reports that another process audited at the same time and saved its state first.
var errOvertaken = errors.New("another audit was faster")

func (n *newAudit) advance(ctx context.Context, to AuditState) error {
	saved, err := n.books.SaveAuditState(ctx, to)
	if err == nil && !saved {
		err = errOvertaken
	}
	if err != nil {
		return err
	}
	n.state = to
	n.state.Version++
	return nil
}

// compare compares the rows of all touched subjects, and of all accounts, budgets and payments with open holds, with
// their sums.
func (n *newAudit) compare(ctx context.Context) error {
	err := n.look(ctx, func(v *view) error {
		for id := range v.heldBy {
			n.touched[accountSubject(id)] = true
		}
		for id := range v.heldBudget {
			n.touched[budgetSubject(id)] = true
		}
		for key := range v.heldLock {
			n.touched[paymentSubject(key.hash)] = true
		}
		return v.checkLocks()
	})
	if err != nil {
		return err
	}
	if n.every {
		whole := &share{0, math.MaxUint64}
		for _, walk := range []func(context.Context, *share) error{n.walkAccounts, n.walkBudgets, n.walkPayments} {
			if err := walk(ctx, whole); err != nil {
				return err
			}
		}
	}
	for id := range n.tallies {
		n.touched[id] = true
	}
	return n.compareTouched(ctx)
}

// compareTouched compares the touched subjects by their ids. Accounts come first, each with all of its budgets.
func (n *newAudit) compareTouched(ctx context.Context) error {
	var accounts, others []Subject
	for id := range n.touched {
		if id.Kind == SubjectAccount {
			accounts = append(accounts, id)
		} else {
			others = append(others, id)
		}
	}
	n.withBudgets = true
	defer func() { n.withBudgets = false }()
	for _, list := range [][]Subject{accounts, others} {
		for len(list) > 0 {
			size := min(len(list), max(checkAtOnce, int(n.OpenHolds)))
			err := n.look(ctx, func(v *view) error {
				left := make([]Subject, 0, size)
				for _, id := range list[:size] {
					if id.Kind != SubjectBudget || !n.budgetsSeen[id.ID] {
						left = append(left, id)
					}
				}
				return v.checkSubjects(left)
			})
			if err != nil {
				return err
			}
			list = list[size:]
		}
	}
	return nil
}
