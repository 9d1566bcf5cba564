package client

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/l402"
)

// Wallet is the Lightning node that pays. Implementations must be safe for
// concurrent use.
type Wallet interface {
	// Pay pays one invoice and returns the proof. It must not start a second
	// payment for a hash that it already paid or is paying. An error that
	// wraps ErrPaymentFailed says that this payment moved no money and never
	// will; after any other error the outcome is unknown and Track decides.
	Pay(ctx context.Context, r PayRequest) (Paid, error)
	// Track reports what became of the payment with this hash, without
	// waiting for it to end. Paid is meaningful for Succeeded only.
	Track(ctx context.Context, hash l402.PaymentHash) (State, Paid, error)
}

// PayRequest is one payment to make.
type PayRequest struct {
	Invoice  string           // BOLT11
	Hash     l402.PaymentHash // of the invoice
	Amount   l402.Msat        // of the invoice
	FeeLimit l402.Msat        // most that routing may cost; 0: free routes only
	Timeout  time.Duration    // give up looking for a route after this long
}

// Paid is the proof of a payment.
type Paid struct {
	Preimage l402.Preimage
	Fee      l402.Msat // routing fee, on top of the amount
}

// State is what a wallet knows about a payment.
type State int

// The states of a payment.
const (
	Unknown   State = iota // the wallet never heard of it
	InFlight               // money may still move
	Succeeded              // paid; the preimage is known
	Failed                 // ended, no money moved and none will
)

// ErrPaymentFailed marks a payment that moved no money and never will.
var ErrPaymentFailed = errors.New("no money moved")
