package metering

import (
	"context"
	"fmt"
	"math/big"

	"sluice.example/sluice/l402"
)

// BookReader is the part of a store that audits read. An audit takes many short snapshots instead of one long snapshot.
// A long snapshot would keep SQLite from resetting its write-ahead log, and PostgreSQL from removing dead rows.
type BookReader interface {
	// Look runs fn over one snapshot. All rows that fn reads there are of the same moment.
	Look(ctx context.Context, fn func(Snapshot) error) error
	// Cutoff returns the numbers of lines up to which no new line can appear: every transaction that was given such a
	// number has ended. It may wait for those transactions. It returns ErrConflict when a transaction does not end in
	// time.
	Cutoff(ctx context.Context) (Position, error)
	// AuditState returns how far audits have come.
	AuditState(ctx context.Context) (AuditState, error)
	// Seals returns the seals of all closed periods in order.
	Seals(ctx context.Context) ([]SealRow, error)
}

// BookStore is the part of a store that audits write. Only seals need to survive a power failure. The other writes may
// be lost, as long as they are lost in order.
type BookStore interface {
	BookReader

	// SaveTallies writes sums. For period 0 they are the running sums. SaveTallies then keeps a stored row that counts
	// more lines, so that two audits at once do no harm. For any other period they are the sums at the end of that
	// period, and replace the stored sums.
	SaveTallies(ctx context.Context, period int64, list []Tally) error
	// SaveAuditState replaces the state, with Version raised by one. saved is false, and nothing is written, when the
	// stored state has another version than s, because another audit was faster.
	SaveAuditState(ctx context.Context, s AuditState) (saved bool, err error)
	// AddSeal appends a closed period durably. It returns ErrRejected when the period is already closed.
	AddSeal(ctx context.Context, s SealRow) error
	// LeadAudit makes this process the one that audits. It returns ErrNotLeader when another process has the lead.
	LeadAudit(ctx context.Context) (AuditLead, error)
}

// AuditLead is the right to audit. Several audits at once do no harm, but waste work.
type AuditLead interface {
	// Check returns ErrNotLeader when this process has lost the lead.
	Check(ctx context.Context) error
	// Release gives the lead back.
	Release() error
}

// Snapshot reads the books as they are at one moment. A method that takes a first id calls fn with rows in ascending
// order of their ids. A method that takes a list of ids calls fn with the rows that exist, in any order.
type Snapshot interface {
	// Transfers calls fn with the transfers whose numbers are above after and at most upto (0: all), at most limit of
	// them, in order. BudgetLines does the same for the lines of budgets.
	Transfers(after, upto int64, limit int, fn func(seq int64, t TransferRow)) error
	BudgetLines(after, upto int64, limit int, fn func(seq int64, l BudgetLine)) error

	Accounts(from l402.TokenID, limit int, fn func(AccountRow)) error // from: the first id that may be returned
	Budgets(from [32]byte, limit int, fn func(BudgetRow)) error
	Deposits(from l402.PaymentHash, limit int, fn func(DepositRow)) error
	Charges(from HoldID, limit int, fn func(ChargeRow)) error
	Adjustments(from HoldID, limit int, fn func(AdjustmentRow)) error
	Holds(fn func(HoldRow)) error

	AccountsOf(ids []l402.TokenID, fn func(AccountRow)) error
	BudgetsOf(accounts []l402.TokenID, fn func(BudgetRow)) error
	DepositsOf(ids []l402.PaymentHash, fn func(DepositRow)) error
	ChargesOf(ids []HoldID, fn func(ChargeRow)) error
	AdjustmentsOf(ids []HoldID, fn func(AdjustmentRow)) error

	// Tallies calls fn with the running sums of those subjects that have running sums. SealedTallies calls fn with each
	// subject's sums at the end of a closed period: of the last period, up to the given period, that has lines of the
	// subject.
	Tallies(ids []Subject, fn func(Tally)) error
	SealedTallies(period int64, ids []Subject, fn func(Tally)) error
}

// Position is how far the append-only lines were read: the number of the last transfer and of the last budget line.
type Position struct {
	Transfers int64 `json:"transfers"`
	Budgets   int64 `json:"budget_lines"`
}

// SubjectKind says what a subject is. The stores store these numbers.
type SubjectKind byte

// The kinds of subject.
const (
	SubjectAccount SubjectKind = 1 // Sums: deposited, charged, adjusted
	SubjectBudget  SubjectKind = 2 // Sums: spent
	SubjectPayment SubjectKind = 3 // Sums: credited, charged at the rates that it locked
)

// Subject is an account, a delegated budget or a payment.
type Subject struct {
	Kind SubjectKind
	ID   [32]byte
}

func accountSubject(id l402.TokenID) Subject    { return Subject{SubjectAccount, id} }
func budgetSubject(id [32]byte) Subject         { return Subject{SubjectBudget, id} }
func paymentSubject(h l402.PaymentHash) Subject { return Subject{SubjectPayment, h} }
func (s Subject) position(at Position) (n int64) { // counts the lines that concern s
	if s.Kind == SubjectBudget {
		return at.Budgets
	}
	return at.Transfers
}

// Key returns the subject as stores write it: the kind, then the id.
func (s Subject) Key() [33]byte {
	var k [33]byte
	k[0] = byte(s.Kind)
	copy(k[1:], s.ID[:])
	return k
}

// SubjectOf returns the subject of a Key. It fills a key that is too short up with zeros.
func SubjectOf(key []byte) (s Subject) {
	if len(key) > 0 {
		s.Kind = SubjectKind(key[0])
		copy(s.ID[:], key[1:])
	}
	return s
}

// String returns the subject's name in a report.
func (s Subject) String() string {
	switch s.Kind {
	case SubjectAccount:
		return fmt.Sprintf("account %x", s.ID)
	case SubjectBudget:
		return fmt.Sprintf("budget %x", s.ID)
	case SubjectPayment:
		return fmt.Sprintf("deposit %x", s.ID)
	}
	return fmt.Sprintf("line %x", s.ID[:8])
}

// Sums is what the lines of a subject sum up to. SubjectKind says which sums a subject has. The others are 0.
type Sums [3]l402.Msat

// Tally is the sums of one subject over its lines up to a number.
type Tally struct {
	Subject
	Sums Sums
	Upto int64 // the number of the last line counted: a transfer, or for a budget a budget line
}

// AuditState is how far audits have come.
type AuditState struct {
	Version    int64    // of the stored state, see SaveAuditState
	Scanned    Position // the Tallies count all lines up to here, and may count more
	Checked    Position // audits have compared the subjects of all lines up to here with their rows
	At         int64    // when the last audit ended, µs since 1970; 0: no audit has ended
	Mismatched int64    // how many differences the last audit found
	Suspects   []byte   // what the next audit must look at again, see appendSuspects
}

// wide is a sum of up to 2³¹ amounts of any size. It cannot overflow. An int64 is too small, because the sum of five
// deposits of the largest amount does not fit.
type wide struct{ high, low int64 }

func (w *wide) add(v l402.Msat) {
	w.high += int64(v) >> 32
	w.low += int64(v) & 0xffffffff
}

func (w wide) big() *big.Int {
	b := new(big.Int).Lsh(big.NewInt(w.high), 32)
	return b.Add(b, big.NewInt(w.low))
}

// msat returns the sum, cut to the range of an int64. ok is false when the sum exceeds l402.MaxMsat, which no correct
// sum does.
func (w wide) msat() (sum l402.Msat, ok bool) {
	b := w.big()
	most := big.NewInt(int64(l402.MaxMsat))
	if ok = b.CmpAbs(most) <= 0; b.IsInt64() {
		return l402.Msat(b.Int64()), ok
	}
	if b.Sign() < 0 {
		return -1 << 63, false
	}
	return 1<<63 - 1, false
}

// Total returns a sum that a store summed up in two halves. high is the sum of the amounts shifted right by 32 bits.
// low is the sum of the lower 32 bits. Total returns ErrAmount when the sum exceeds l402.MaxMsat.
func Total(high, low int64) (l402.Msat, error) {
	sum, ok := wide{high, low}.msat()
	if !ok {
		return 0, ErrAmount
	}
	return sum, nil
}
