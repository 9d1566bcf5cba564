package client

import (
	"context"
	"errors"
	"time"

	"sluice.example/sluice/l402"
)

// Wallet is the Lightning node that pays. An implementation must be safe for concurrent use.
type Wallet interface {
	// Pay pays one invoice and returns the proof. It must not start a second payment for a hash
	// that it already paid or is paying. An error that wraps ErrPaymentFailed says that this
	// payment moved no money and never will. After any other error the outcome is unknown, and the
	// client calls Track to find it.
	Pay(ctx context.Context, r PayRequest) (Paid, error)
	// Track reports the state of the payment with this hash, without waiting for the payment to
	// end. Paid is only set when the state is Succeeded.
	Track(ctx context.Context, hash l402.PaymentHash) (State, Paid, error)
}

// PayRequest is one payment to make.
type PayRequest struct {
	Invoice  string           // BOLT11
	Hash     l402.PaymentHash // of the invoice
	Amount   l402.Msat        // of the invoice, in msat
	FeeLimit l402.Msat        // most that routing may cost, in msat; 0: only routes without a fee
	Timeout  time.Duration    // the wallet stops looking for a route after this time
}

// Paid is the proof of a payment.
type Paid struct {
	Preimage l402.Preimage
	Fee      l402.Msat // routing fee in msat, on top of the amount
}

// State is what a wallet knows about a payment.
type State int

// The states of a payment.
const (
	Unknown   State = iota // the wallet does not know the payment
	InFlight               // money may still move
	Succeeded              // paid; the preimage is known
	Failed                 // the payment ended, no money moved and none will
)

// ErrPaymentFailed marks a payment that moved no money and never will.
var ErrPaymentFailed = errors.New("no money moved")
