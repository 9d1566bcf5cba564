package metering

import (
	"errors"
	"math/bits"
	"sync/atomic"
	"time"

	"sluice/l402"
)

// Stats is what the running ledger counts since it was opened.
type Stats struct {
	Queue       int               `json:"queue"`      // operations waiting
	Open        int               `json:"open"`       // holds of this process
	Batches     int64             `json:"batches"`    // transactions committed
	Operations  int64             `json:"operations"` // in them
	Sizes       [batchSizes]int64 `json:"sizes"`      // batches of up to 1, 2, 4, … 1024 and more operations
	Retries     int64             `json:"retries"`    // attempts that got no answer from the store
	Conflicts   int64             `json:"conflicts"`  // operations put aside because a row was locked
	Rejected    int64             `json:"rejected"`   // operations refused by the store's guards: a defect
	Lost        int64             `json:"lost"`       // holds that the store lost in a crash and that were made anew
	Sweeps      int64             `json:"sweeps"`     // holds of others that were charged because their lease ran out
	Clamped     int64             `json:"clamped"`    // settlements whose usage was impossible
	Charged     l402.Msat         `json:"charged_msat"`
	Unbilled    l402.Msat         `json:"unbilled_msat"` // consumed beyond what could be charged
	Credited    l402.Msat         `json:"credited_msat"`
	Foreign     int64             `json:"foreign"`      // payments refused because another account has them
	Unconfirmed int64             `json:"unconfirmed"`  // presented, never seen settled; counted twice a minute, up to a bound
	Audits      int64             `json:"audits"`       // checks of the invariants by this process
	AuditErrors int64             `json:"audit_errors"` // of them: came to no result
	AuditedAt   time.Time         `json:"audited_at"`   // when some process last came to one; zero: never
	Mismatched  int64             `json:"mismatched"`   // what that found wrong; anything but 0 is a defect or damage
	Sealed      int64             `json:"sealed"`       // periods closed by this process
	Failing     bool              `json:"failing"`      // the store did not answer last time
}

const batchSizes = 12

// counters are the live form of Stats.
type counters struct {
	batches, operations, retries, conflicts, rejected, lost atomic.Int64
	sweeps, clamped, charged, unbilled, credited            atomic.Int64
	foreign, unconfirmed, audits, mismatched                atomic.Int64
	auditErrors, auditedAt, sealed                          atomic.Int64 // auditedAt: µs since 1970
	sizes                                                   [batchSizes]atomic.Int64
}

func (c *counters) batch(n int) {
	c.batches.Add(1)
	c.operations.Add(int64(n))
	c.sizes[min(bits.Len(uint(n-1)), batchSizes-1)].Add(1)
}

// Stats returns the counters now.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	open := len(l.open)
	l.mu.Unlock()
	c := &l.stats
	s := Stats{Queue: l.queue.len(), Open: open, Batches: c.batches.Load(), Operations: c.operations.Load(),
		Retries: c.retries.Load(), Conflicts: c.conflicts.Load(), Rejected: c.rejected.Load(), Lost: c.lost.Load(),
		Sweeps: c.sweeps.Load(), Clamped: c.clamped.Load(), Charged: l402.Msat(c.charged.Load()),
		Unbilled: l402.Msat(c.unbilled.Load()), Credited: l402.Msat(c.credited.Load()), Foreign: c.foreign.Load(),
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

// committed takes note of a decision that now stands. It runs in the writer,
// before the caller hears of it.
func (l *Ledger) committed(t *task) {
	if errors.Is(t.outcome, ErrForeignDeposit) {
		l.stats.foreign.Add(1)
		l.log.Error("a payment was presented for another account than it was credited to", "account", t.account().String())
	}
	switch op := t.operation.(type) {
	case *reserveOp:
		if op.deposited {
			l.stats.credited.Add(int64(op.credited))
			l.known.add(*op.r.Deposit)
		}
	case *depositOp:
		if t.outcome == nil {
			l.stats.credited.Add(int64(op.credited))
			l.known.add(op.d)
		}
	case *settledOp:
		l.stats.credited.Add(int64(op.credited))
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
