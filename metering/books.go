package metering

import (
	"context"
	"fmt"
	"math/big"

	"sluice.example/sluice/l402"
)

// BookReader is the part of a store that audits read. An audit takes many short
// looks instead of one long snapshot: a long one would keep SQLite from resetting
// its write-ahead log, and PostgreSQL from removing dead rows.
type BookReader interface {
	// Look runs fn over one snapshot: all that fn reads there belongs together.
	Look(ctx context.Context, fn func(Snapshot) error) error
	// Cutoff returns numbers of lines up to which nothing can appear any more: every
	// transaction that was given such a number has ended. It may wait for those
	// transactions; ErrConflict when one of them does not end.
	Cutoff(ctx context.Context) (Position, error)
	// AuditState reads how far audits have come.
	AuditState(ctx context.Context) (AuditState, error)
	// Seals reads all closed periods in order.
	Seals(ctx context.Context) ([]SealRow, error)
}

// BookStore is what audits write. Nothing here needs to survive a power failure,
// except seals, as long as writes are lost in order.
type BookStore interface {
	BookReader

	// SaveTallies writes sums. For period 0 they are the running ones, and a row that
	// counts further already stays as it is, so that two audits at once do no harm.
	// Else they are those at the end of that period, and replace what is there.
	SaveTallies(ctx context.Context, period int64, list []Tally) error
	// SaveAuditState replaces the state, with Version raised by one, unless another
	// audit was faster: saved is false when the state has another version than s.
	SaveAuditState(ctx context.Context, s AuditState) (saved bool, err error)
	// AddSeal appends a closed period durably; ErrRejected when it stands already.
	AddSeal(ctx context.Context, s SealRow) error
	// LeadAudit makes this process the one that audits; ErrNotLeader when another is.
	LeadAudit(ctx context.Context) (AuditLead, error)
}

// AuditLead is the right to audit. Several audits at once are harmless and wasteful.
type AuditLead interface {
	// Check fails with ErrNotLeader once the right is lost.
	Check(ctx context.Context) error
	// Release gives it back.
	Release() error
}

// Snapshot reads the books as they are at one moment. Rows come in ascending order
// of their ids where a beginning is given, in any order where ids are given.
type Snapshot interface {
	// Transfers reads lines with numbers above after, up to upto (0: all), at most
	// limit of them, in order. BudgetLines does so for lines of budgets.
	Transfers(after, upto int64, limit int, fn func(seq int64, t TransferRow)) error
	BudgetLines(after, upto int64, limit int, fn func(seq int64, l BudgetLine)) error

	Accounts(from l402.TokenID, limit int, fn func(AccountRow)) error // from: the first that counts
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

	// Tallies reads the running sums of subjects, where there are any. SealedTallies
	// reads those of the last period up to one in which each has lines.
	Tallies(ids []Subject, fn func(Tally)) error
	SealedTallies(period int64, ids []Subject, fn func(Tally)) error
}

// Position is how far the append-only lines were read: the numbers of the last
// transfer and of the last budget line.
type Position struct {
	Transfers int64 `json:"transfers"`
	Budgets   int64 `json:"budget_lines"`
}

// SubjectKind says what sums are about. Stored as these numbers.
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
func (s Subject) position(at Position) (n int64) { // of the lines that concern it
	if s.Kind == SubjectBudget {
		return at.Budgets
	}
	return at.Transfers
}

// Key is how stores write a subject: the kind, then the id.
func (s Subject) Key() [33]byte {
	var k [33]byte
	k[0] = byte(s.Kind)
	copy(k[1:], s.ID[:])
	return k
}

// SubjectOf reads a Key; shorter bytes are filled up with zeros.
func SubjectOf(key []byte) (s Subject) {
	if len(key) > 0 {
		s.Kind = SubjectKind(key[0])
		copy(s.ID[:], key[1:])
	}
	return s
}

// String names a subject in a report.
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

// Sums is what lines sum up to, see SubjectKind.
type Sums [3]l402.Msat

// Tally is what the lines up to a number sum up to for one subject.
type Tally struct {
	Subject
	Sums Sums
	Upto int64 // a number of transfers, for a budget of budget lines
}

// AuditState is how far audits have come.
type AuditState struct {
	Version    int64    // of the state, see SaveAuditState
	Scanned    Position // Tallies count all lines up to here, or more of them
	Checked    Position // the subjects of lines up to here were compared with their rows
	At         int64    // when the last audit came to its end, µs since 1970; 0: never
	Mismatched int64    // what it found wrong
	Suspects   []byte   // to be looked at again, see appendSuspects
}

// wide is a sum that cannot overflow: of up to 2³¹ amounts of any size. Five
// deposits of the largest amount are more than an int64 holds.
type wide struct{ high, low int64 }

func (w *wide) add(v l402.Msat) {
	w.high += int64(v) >> 32
	w.low += int64(v) & 0xffffffff
}

func (w wide) big() *big.Int {
	b := new(big.Int).Lsh(big.NewInt(w.high), 32)
	return b.Add(b, big.NewInt(w.low))
}

// msat is the sum, cut to what an int64 holds. ok is false when it is beyond all
// money, which no true sum is.
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

// Total adds up a sum that a store made in halves: of the amounts without their lower
// 32 bits, shifted down, and of those bits. ErrAmount when it is beyond all money.
func Total(high, low int64) (l402.Msat, error) {
	sum, ok := wide{high, low}.msat()
	if !ok {
		return 0, ErrAmount
	}
	return sum, nil
}
