package metering

import (
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
)

// The ledger's refusals. A refused operation has changed nothing, except that
// a refused Reserve leaves its Deposit credited.
var (
	// ErrBusy: the queue to the writer is full; try again in a moment.
	ErrBusy = errors.New("ledger queue is full")
	// ErrUnavailable: the store cannot be reached. Whether the operation took
	// place is unknown; a reservation is released by itself if it did.
	ErrUnavailable = errors.New("ledger store is unavailable")
	// ErrClosed: the ledger was closed.
	ErrClosed = errors.New("ledger is closed")
	// ErrFrozen: the operator froze or revoked the account.
	ErrFrozen = errors.New("account is frozen or revoked")
	// ErrForeignDeposit: the payment hash was credited to another account.
	ErrForeignDeposit = errors.New("payment belongs to another account")
	// ErrTooManyBudgets: the account has as many delegated budgets in use as it may.
	ErrTooManyBudgets = errors.New("too many delegated budgets in use")
	// ErrForeignKeys: none of the master keys has ever worked with this database.
	ErrForeignKeys = errors.New("these master keys do not belong to this database")
	// ErrSwept: the hold's lease ran out and it was charged; only a late
	// settlement is possible.
	ErrSwept = errors.New("hold was swept: its lease ran out")
	// ErrEnded: the hold was settled or released already.
	ErrEnded = errors.New("hold has ended")
	// ErrAmount: an amount is negative, zero where it must not be, or beyond
	// l402.MaxMsat.
	ErrAmount = errors.New("amount out of range")
	// ErrArgument: an operation lacks a part that it needs.
	ErrArgument = errors.New("incomplete operation")
	// ErrNotLeader: another process audits, or this one does so no longer.
	ErrNotLeader = errors.New("another process leads the audits")
)

// A Store's reports of a batch that was rolled back for certain. Any other
// error leaves it open whether the batch was committed.
var (
	// ErrConflict: a row is locked by someone else, or the transaction lost
	// against a concurrent one. A smaller batch, or the same later, may pass.
	ErrConflict = errors.New("conflict with a concurrent transaction")
	// ErrRejected: the store's own guards (CHECK constraints) refused the rows.
	// Trying again is useless: it is a defect, or damage to the data.
	ErrRejected = errors.New("rows rejected by the store's guards")
)

// InsufficientError reports that the account, or one of the delegated budgets,
// cannot cover the amount.
type InsufficientError struct {
	Available l402.Msat // what one request could hold now: the least of account and budgets
	Required  l402.Msat // what was asked for
	Credited  l402.Msat // what the reservation's Deposit added in the same moment
}

// Error states both amounts.
func (e *InsufficientError) Error() string {
	return fmt.Sprintf("insufficient balance: %d msat available, %d msat required", e.Available, e.Required)
}

// RateLimitedError reports that one of the token's rate limits is used up.
type RateLimitedError struct {
	RetryAfter time.Duration // at least a second
}

// Error states when to come back.
func (e *RateLimitedError) Error() string {
	return fmt.Sprintf("rate limit of the token is used up: retry after %s", e.RetryAfter)
}

// The states of a duplicate request.
const (
	DuplicateRunning  = "running"  // the first is still in flight
	DuplicateCharged  = "charged"  // the first was charged: see Entry
	DuplicateMismatch = "mismatch" // the key was used with another body
)

// DuplicateError reports that the idempotency key was used before.
type DuplicateError struct {
	State string
	Entry *Entry // with DuplicateCharged; nil otherwise
}

// Error names the state.
func (e *DuplicateError) Error() string { return "duplicate request: " + e.State }
