package client

import (
	"errors"
	"fmt"

	"sluice.example/sluice/l402"
)

// ErrBodyTooLarge reports a request body that cannot be sent a second time after paying, because it
// has no GetBody and is longer than Config.MaxBody. Nothing was paid.
var ErrBodyTooLarge = errors.New("request body is too large to be sent again after a 402: set GetBody or raise MaxBody")

// BudgetError reports a payment that a cap of the buyer forbids. Nothing was paid.
//
// Under the total cap, Asked is the amount of the invoice plus the limit of the routing fee. Under a
// delegated token, Asked is the most that the request may cost, or 0 if the gateway did not say.
type BudgetError struct {
	Cap    string    // "per request", "total" or "delegated"
	Origin string    // the origin that asked for the money
	Asked  l402.Msat // amount of the invoice; see BudgetError for the other caps
	Limit  l402.Msat // the cap; under a delegated token the amount that the token has left
	Fee    l402.Msat // under the total cap: the part of Asked that is reserved for routing fees
	Spent  l402.Msat // under the total cap: spent or promised so far, routing fees included
	Reason string    // under a delegated token: why the token does not pay
}

// Error returns the cap and the amounts.
func (e *BudgetError) Error() string {
	switch e.Cap {
	case capDelegated:
		return fmt.Sprintf("budget refused: the delegated token at %s %s: ask for more where it came from, or allow buying beyond it",
			e.Origin, e.Reason)
	case capTotal:
		return fmt.Sprintf("budget refused: %s asks for %s, for which routing may cost up to %s more; %s of the total cap of %s are spent or promised, fees included: raise the cap to go on",
			e.Origin, e.Asked-e.Fee, e.Fee, e.Spent, e.Limit)
	}
	return fmt.Sprintf("budget refused: %s asks for %s, the cap per request is %s: raise the cap to go on",
		e.Origin, e.Asked, e.Limit)
}

const (
	capRequest   = "per request"
	capTotal     = "total"
	capDelegated = "delegated"
)

// InvoiceError reports an invoice or challenge that must not be paid, because it is malformed,
// contradicts itself, or is not for this wallet. Nothing was paid.
type InvoiceError struct{ Reason string }

// Error returns what is wrong with the invoice.
func (e *InvoiceError) Error() string { return "invoice refused: " + e.Reason }

func invoiceErrorf(format string, args ...any) error {
	return &InvoiceError{Reason: fmt.Sprintf(format, args...)}
}

// PaymentError reports a payment that failed, or whose outcome is not known yet.
type PaymentError struct {
	Hash l402.PaymentHash
	// InFlight is true when money may still move. The store keeps the intent, and the next use of
	// the store asks the wallet for the outcome before the client pays anything else.
	InFlight bool
	Err      error
}

// Error says whether money may still move.
func (e *PaymentError) Error() string {
	if e.InFlight {
		return fmt.Sprintf("payment %s is in flight or in doubt, it will not be paid again: %v", e.Hash, e.Err)
	}
	return fmt.Sprintf("payment %s failed: %v", e.Hash, e.Err)
}

// Unwrap returns the wallet's or the store's error.
func (e *PaymentError) Unwrap() error { return e.Err }
