// Package observe is what happens in a gateway, as those see it who watch. An Observer is
// told of each event once, where it happens. Metrics counts, Log writes lines, and All
// tells several:
//
//	metrics := observe.NewMetrics()
//	observer := observe.All(metrics, observe.NewLog(log))
//	…
//	observer.Settled(ctx, observe.Settlement{…})
//
// What has a state rather than events, such as queues and prices in force, is no part of
// it: whoever shows that reads it when asked.
package observe

import (
	"context"
	"net/http"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// Observer is told what happens. Its methods are called by many goroutines at once, on
// the way of requests: they must return without waiting for anything. Contexts are of the
// request that an event is about, for their values alone: they may have ended. Models,
// backends, routes, kinds and levels come from the configuration or from a fixed list, so
// that clients cannot make their number grow; paths and errors do not.
type Observer interface {
	// Began says that a request of the public listener is being served. Later events of
	// the request get the context that it returns, which is the request's own or made of
	// it: there a trace keeps its span.
	Began(r *http.Request) context.Context
	// Ended says that it is served no more; status is 0 if nothing was answered.
	Ended(ctx context.Context, route string, status int)
	// Panicked says that a handler did.
	Panicked(ctx context.Context, path string, value any, stack []byte)
	// Limited says that a caller asked for too many challenges, by the limit that said so.
	Limited(ctx context.Context, level string)
	// Refused says that a request was answered by the gateway itself, 402 included.
	Refused(ctx context.Context, r Refusal)
	// Challenged says that a caller was asked to pay, or why it could not be.
	Challenged(ctx context.Context, c Challenge)
	// Paid says that a payment was presented.
	Paid(ctx context.Context, p Payment)
	// FirstByte says how long the first part of an answer took, since the request came.
	FirstByte(ctx context.Context, model string, took time.Duration)
	// FellBack says that another model is asked than the client wanted first, as it
	// allows, and why.
	FellBack(ctx context.Context, model, fallback string, why error)
	// BackendFailed says that a backend gave no answer that could be passed on whole.
	BackendFailed(ctx context.Context, f Failure)
	// Overran says that a backend did, or reported, more than its request could cost.
	Overran(ctx context.Context, o Overrun)
	// Settled says that a hold was ended, with a charge or without one.
	Settled(ctx context.Context, s Settlement)
	// Delayed says that the store did not confirm a settlement in time. Settled, with
	// Late, or Lost follows.
	Delayed(ctx context.Context, requestID string, err error)
	// Lost says that a settlement was given up: what was last reported of it is charged.
	Lost(ctx context.Context, requestID string, err error)
	// PriceMoved says that a price came into force.
	PriceMoved(ctx context.Context, e pricing.Epoch)
}

// Refusal is an answer of the gateway itself.
type Refusal struct {
	Kind      string // of problem
	Status    int
	Path      string
	Model     string // empty: not known
	Backend   string // that the request went to last; empty: none
	RequestID string
	Expected  bool  // by load, not by a defect
	Cause     error // for the operator
}

// Challenge is an attempt to ask a caller to pay.
type Challenge struct {
	Service string
	Result  ChallengeResult
	Err     error // of the Lightning node, where the operator has to know it; nil: none
}

// ChallengeResult is what came of it.
type ChallengeResult string

// The results of challenges.
const (
	ChallengeMade     ChallengeResult = "made"     // an invoice was made
	ChallengeRepeated ChallengeResult = "repeated" // one that was made before was given again
	ChallengeRefused  ChallengeResult = "refused"  // none could be made
)

// Payment is a deposit that a token proves.
type Payment struct {
	Hash   l402.PaymentHash
	Amount l402.Msat
	Err    error // why it was not credited; nil: it was, now or before
}

// Failure is what a backend did instead of answering.
type Failure struct {
	Kind      FailureKind
	Backend   string
	Model     string
	RequestID string
	Status    int    // of Refused and Hopeless
	Err       error  // of NoAnswer and BrokeOff
	Said      string // of NoAnswer and Hopeless: what the backend said, in its own words
	Dropped   int64  // events of NoAnswer that are no part of an answer
}

// FailureKind is the way in which a backend failed.
type FailureKind uint8

// The ways in which backends fail. One request may fail in several.
const (
	TimedOut FailureKind = iota // nothing of the answer came in time
	NoAnswer                    // the answer is none, or failed before anything was passed on
	BrokeOff                    // it ended in the middle of a document
	TooLong                     // it is longer than the gateway can keep
	Refused                     // its status is no 2xx
	Hopeless                    // the request is to blame: no try can succeed
)

// Overrun is what a backend did beyond the bound of a request.
type Overrun struct {
	Backend    string
	Model      string
	RequestID  string
	Prompt     int64     // tokens beyond the bound
	Completion int64     // tokens beyond the bound
	Worth      l402.Msat // of these, at the request's rates; not charged
	Impossible bool      // the backend reported a usage that its request cannot have
	Tell       bool      // the operator is told now; LeftOut overruns of the backend went before, untold
	LeftOut    int64
}

// Settlement is the end of a hold.
type Settlement struct {
	RequestID string
	Model     string
	Backend   string // empty: none worked on it
	Entry     metering.Entry
	Took      time.Duration // to commit it
	Total     time.Duration // since the request came
	GPUSource string        // where the GPU time comes from; empty: there is none
	Late      bool          // Delayed went before
}
