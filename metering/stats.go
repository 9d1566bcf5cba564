package metering

import (
	"errors"
	"math/bits"
	"sync/atomic"
	"time"

	"sluice.example/sluice/l402"
)

// Stats is what the running ledger has counted since it was opened.
type Stats struct {
	Queue       int               `json:"queue"`      // operations waiting
	Open        int               `json:"open"`       // holds of this process
	Batches     int64             `json:"batches"`    // transactions committed
	Operations  int64             `json:"operations"` // operations in these transactions
	Sizes       [batchSizes]int64 `json:"sizes"`      // batches of up to 1, 2, 4, … 1024 operations, and of more
	Retries     int64             `json:"retries"`    // attempts that got no answer from the store
	Conflicts   int64             `json:"conflicts"`  // operations put aside: others changed or locked their account
	Rejected    int64             `json:"rejected"`   // operations refused by the store's guards, which means a defect
	Lost        int64             `json:"lost"`       // holds that the store lost in a crash, and that were made anew
	Sweeps      int64             `json:"sweeps"`     // holds of other owners, charged because the lease ran out
	Unreadable  int64             `json:"unreadable"` // abandoned holds that could not be read at the last look
	Fenced      int64             `json:"fenced"`     // times that this ledger was taken for dead
	Closed      int64             `json:"closed"`     // delegated budgets closed because their tokens have expired
	Excess      int64             `json:"excess"`     // payments presented as more than arrived: a key has leaked
	Doubted     int64             `json:"doubted"`    // payments taken back, as the Lightning node does not know them
	Clamped     int64             `json:"clamped"`    // settlements whose usage was impossible
	Charged     l402.Msat         `json:"charged_msat"`
	Unbilled    l402.Msat         `json:"unbilled_msat"` // cost beyond what could be charged
	Credited    l402.Msat         `json:"credited_msat"`
	TakenBack   l402.Msat         `json:"taken_back_msat"` // credited on a credential's proof, but not arrived
	Foreign     int64             `json:"foreign"`         // payments refused because they belong to another account
	Unconfirmed int64             `json:"unconfirmed"`     // presented, never reported settled; counted up to maxAlarm
	Audits      int64             `json:"audits"`          // audits of what is new that this process ended
	AuditErrors int64             `json:"audit_errors"`    // audits that failed
	AuditedAt   time.Time         `json:"audited_at"`      // when any process last ended an audit; zero: never
	Mismatched  int64             `json:"mismatched"`      // mismatches of that audit; above 0: a defect or damage
	Sealed      int64             `json:"sealed"`          // periods closed by this process
	Failing     bool              `json:"failing"`         // the store did not answer the last attempt
}

const batchSizes = 12

// counters are the running values of Stats.
type counters struct {
	batches, operations, retries, conflicts, rejected, lost atomic.Int64
	sweeps, clamped, charged, unbilled, credited            atomic.Int64
	foreign, unconfirmed, audits, mismatched                atomic.Int64
	unreadable, fenced, closed, excess, doubted, takenBack  atomic.Int64
	auditErrors, auditedAt, sealed                          atomic.Int64 // auditedAt: µs since 1970
	sizes                                                   [batchSizes]atomic.Int64
}

func (c *counters) batch(n int) {
	c.batches.Add(1)
	c.operations.Add(int64(n))
	c.sizes[min(bits.Len(uint(n-1)), batchSizes-1)].Add(1)
}

// credit counts a credit, or with a negative change a credit that was taken back.
func (c *counters) credit(change l402.Msat) {
	c.credited.Add(int64(max(0, change)))
	c.takenBack.Add(int64(max(0, -change)))
}

// Stats returns the counters as they are now.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	open := len(l.open)
	l.mu.Unlock()
	c := &l.stats
	s := Stats{Queue: l.queue.len(), Open: open, Batches: c.batches.Load(), Operations: c.operations.Load(),
		Retries: c.retries.Load(), Conflicts: c.conflicts.Load(), Rejected: c.rejected.Load(), Lost: c.lost.Load(),
		Sweeps:     c.sweeps.Load(),
		Unreadable: c.unreadable.Load(), Fenced: c.fenced.Load(), Closed: c.closed.Load(), Excess: c.excess.Load(),
		Doubted: c.doubted.Load(), Clamped: c.clamped.Load(), Charged: l402.Msat(c.charged.Load()),
		Unbilled: l402.Msat(c.unbilled.Load()), Credited: l402.Msat(c.credited.Load()),
		TakenBack: l402.Msat(c.takenBack.Load()), Foreign: c.foreign.Load(),
		Unconfirmed: c.unconfirmed.Load(), Audits: c.audits.Load(), Mismatched: c.mismatched.Load(), Failing: l.writer.failing()}
	s.AuditErrors, s.Sealed = c.auditErrors.Load(), c.sealed.Load()
	if at := c.auditedAt.Load(); at != 0 {
		s.AuditedAt = time.UnixMicro(at)
	}
	for i := range s.Sizes {
		s.Sizes[i] = c.sizes[i].Load()
	}
	return s
}

// committed counts and logs a decision that was committed. The writer calls it before it answers the caller.
func (l *Ledger) committed(t *task) {
	if errors.Is(t.outcome, ErrForeignDeposit) {
		l.stats.foreign.Add(1)
		l.log.Error("a payment was presented for another account than it was credited to", "account", t.account().String())
	}
	switch op := t.operation.(type) {
	case *reserveOp:
		if op.deposited {
			l.presented(*op.r.Deposit, op.credited, op.excess)
		}
	case *depositOp:
		if t.outcome == nil {
			l.presented(op.d, op.credited, op.excess)
		}
	case *doubtOp:
		if op.taken > 0 || op.owed > 0 {
			l.stats.doubted.Add(1)
			l.stats.credit(-op.taken)
			l.log.Error("a payment was presented that the Lightning node does not know; it was taken back: is a master key known to others?",
				"account", op.who.String(), "payment_hash", op.hash.String(), "taken_msat", int64(op.taken), "spent_msat", int64(op.owed))
		}
	case *settledOp:
		l.stats.credit(op.credited)
		l.overclaimed(op.s.Deposit, op.excess)
		if t.outcome == nil && op.s.Account != (l402.TokenID{}) {
			l.paid.add(op.s.Deposit)
		}
	case *extendOp:
		if op.remade {
			l.stats.lost.Add(1)
		}
	case *settleOp:
		l.settled(op)
	}
}

func (l *Ledger) settled(op *settleOp) {
	l.stats.unbilled.Add(int64(op.unbilled))
	l.stats.charged.Add(int64(op.moved))
	if op.swept {
		l.stats.sweeps.Add(1)
		l.log.Warn("charged a hold whose owner is gone", "request_id", op.id.String(),
			"charged_msat", int64(op.entry.Charged))
	}
	if op.s.ClampedUsage {
		l.stats.clamped.Add(1)
	}
}

// presented counts a payment that a client presented, and remembers it.
func (l *Ledger) presented(d Deposit, credited, excess l402.Msat) {
	l.stats.credit(credited)
	l.overclaimed(d, excess)
	l.known.add(d)
}

// overclaimed counts and logs a payment that was presented as more than arrived. excess is the difference in msat.
func (l *Ledger) overclaimed(d Deposit, excess l402.Msat) {
	if excess == 0 {
		return
	}
	l.stats.excess.Add(1)
	l.log.Error("a payment was presented as more than has arrived: is a master key known to others?",
		"account", d.Account.String(), "payment_hash", d.Hash.String(), "excess_msat", int64(excess))
}
