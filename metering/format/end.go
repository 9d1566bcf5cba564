package format

import (
	"errors"

	"sluice.example/sluice/metering"
)

// ErrNotWhole reports a document that lacks a part of what was asked for, which need not
// be its backend's fault.
var ErrNotWhole = errors.New("the answer lacks what was asked for")

// End says how an answer ended.
type End uint8

// The ways an answer ends.
const (
	Complete        End = iota // the backend said all it had to say
	BackendCut                 // the backend ended the answer early
	ClientGone                 // the client hung up during a stream
	UnaryClientGone            // the client hung up while a unary answer was being made
	HoldExhausted              // the running cost reached the hold
	Drained                    // the gateway shut down
)

// Outcome is how the ledger names this end.
func (e End) Outcome() metering.Outcome {
	switch e {
	case Complete:
		return metering.OutcomeComplete
	case BackendCut:
		return metering.OutcomeBackendCut
	case HoldExhausted:
		return metering.OutcomeHoldExhausted
	case Drained:
		return metering.OutcomeDrained
	}
	return metering.OutcomeClientGone
}

// Overrun is what a backend did beyond the bound of a request, in tokens: work
// that was delivered and not charged.
type Overrun struct{ Prompt, Completion int64 }
