package metering

import (
	"errors"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
)

// The ledger's refusals. A refused operation has changed nothing, with one exception: a refused Reserve leaves its
// Deposit credited.
var (
	// ErrBusy reports that the queue to the writer is full. The caller may try again in a moment.
	ErrBusy = errors.New("ledger queue is full")
	// ErrUnavailable reports that the store cannot be reached. The operation may have taken place or not. If a
	// reservation took place, the ledger releases its hold by itself.
	ErrUnavailable = errors.New("ledger store is unavailable")
	// ErrClosed reports that the ledger was closed.
	ErrClosed = errors.New("ledger is closed")
	// ErrFrozen reports that the operator froze or revoked the account.
	ErrFrozen = errors.New("account is frozen or revoked")
	// ErrForeignDeposit reports that the payment was credited to another account.
	ErrForeignDeposit = errors.New("payment belongs to another account")
	// ErrTooManyBudgets reports that the account, or a budget, has as many live delegated budgets as it may have.
	ErrTooManyBudgets = errors.New("too many delegated budgets in use")
	// ErrForeignKeys reports that none of the given master keys has ever been used with this database.
	ErrForeignKeys = errors.New("these master keys do not belong to this database")
	// ErrSwept reports that the hold's lease ran out and that the hold was charged. The owner can only settle it late.
	ErrSwept = errors.New("hold was swept: its lease ran out")
	// ErrEnded reports that the hold was already settled or released.
	ErrEnded = errors.New("hold has ended")
	// ErrAmount reports an amount that is negative, zero where it must not be, or above l402.MaxMsat.
	ErrAmount = errors.New("amount out of range")
	// ErrArgument reports that an argument of an operation is missing or wrong.
	ErrArgument = errors.New("incomplete operation")
	// ErrNotLeader reports that another process audits, or that this process has lost the lead.
	ErrNotLeader = errors.New("another process leads the audits")
)

// A Store reports with these errors that it rolled a batch back. After any other error the batch may have been
// committed or not.
var (
	// ErrConflict reports that another process has a row locked, or that the transaction lost against a concurrent one.
	// A smaller batch may pass, or the same batch later.
	ErrConflict = errors.New("conflict with a concurrent transaction")
	// ErrRejected reports that the store's own guards (CHECK constraints) refused the rows. Trying again is useless,
	// because the cause is a defect or damage to the data.
	ErrRejected = errors.New("rows rejected by the store's guards")
)

// InsufficientError reports that the account, or one of its delegated budgets, has less than the required amount.
type InsufficientError struct {
	Available l402.Msat // what one request could hold now: the least of the account and its budgets
	Required  l402.Msat // the amount that was asked for
	Credited  l402.Msat // what the reservation's Deposit added in the same transaction
}

// Error returns both amounts.
func (e *InsufficientError) Error() string {
	return fmt.Sprintf("insufficient balance: %d msat available, %d msat required", e.Available, e.Required)
}

// RateLimitedError reports that one of the token's rate limits is used up.
type RateLimitedError struct {
	RetryAfter time.Duration // at least a second
}

// Error says after what time to try again.
func (e *RateLimitedError) Error() string {
	return fmt.Sprintf("rate limit of the token is used up: retry after %s", e.RetryAfter)
}

// The states of a duplicate request. "The first" is the request that used the key first.
const (
	DuplicateRunning  = "running"  // the first is still in flight
	DuplicateCharged  = "charged"  // the first was charged: see DuplicateError.Entry
	DuplicateMismatch = "mismatch" // the first had another body
)

// DuplicateError reports that the idempotency key was used before.
type DuplicateError struct {
	State string
	Entry *Entry // the charge of the first with DuplicateCharged, if it was found; nil otherwise
}

// Error names the state.
func (e *DuplicateError) Error() string { return "duplicate request: " + e.State }
