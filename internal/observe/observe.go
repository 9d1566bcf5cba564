// Package observe tells those who watch a gateway what happens in it. An Observer is told each
// event once, where the event happens. Metrics counts events, Log logs them, and All tells them to
// several observers:
//
//	metrics := observe.NewMetrics()
//	observer := observe.All(metrics, observe.NewLog(log))
//	…
//	observer.Settled(ctx, observe.Settlement{…})
//
// An Observer is not told about state, such as the lengths of queues and the prices in force. Who
// shows state reads it at that moment.
package observe

import (
	"context"
	"net/http"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// Observer is told what happens. Its methods are called by many goroutines at once, while requests
// are served, so they must return without waiting for anything. The context of an event is that of
// the event's request. It is only for the context's values, because it may have ended. Models,
// backends, routes, kinds and levels come from the configuration or from a fixed list, so that
// clients cannot make their number grow. Paths and errors may come from clients.
type Observer interface {
	// Began says that the gateway begins to serve a request of the public listener. It returns the
	// request's context, or a context made of it, for example with a trace's span. Later events of
	// the request get the returned context.
	Began(r *http.Request) context.Context
	// Ended says that the request was served. A status of 0 means that nothing was answered.
	Ended(ctx context.Context, route string, status int)
	// Panicked says that a handler panicked with value.
	Panicked(ctx context.Context, path string, value any, stack []byte)
	// Limited says that a caller asked for too many challenges. level names the limit.
	Limited(ctx context.Context, level string)
	// Refused says that the gateway answered a request with a problem. A 402 is a problem too.
	Refused(ctx context.Context, r Refusal)
	// Challenged says that a caller was asked to pay, or why the challenge could not be made.
	Challenged(ctx context.Context, c Challenge)
	// Paid says that a payment was presented.
	Paid(ctx context.Context, p Payment)
	// FirstByte says that the first part of an answer came, and how long after the request.
	FirstByte(ctx context.Context, model string, took time.Duration)
	// FellBack says that a second model, which the client allows, is asked in place of model, and
	// why. The money for the second model is held.
	FellBack(ctx context.Context, model, fallback string, why error)
	// BackendFailed says that a backend gave no answer that could be passed on whole.
	BackendFailed(ctx context.Context, f Failure)
	// Overran says that a backend did, or reported, more than its request can cost.
	Overran(ctx context.Context, o Overrun)
	// Settled says that a hold ended, with a charge or without a charge.
	Settled(ctx context.Context, s Settlement)
	// Delayed says that the store did not confirm a settlement in time. Later the observer is told
	// Settled with Late, or Lost.
	Delayed(ctx context.Context, requestID string, err error)
	// Lost says that the gateway gave up a settlement. The ledger then charges the usage that the
	// hold last reported.
	Lost(ctx context.Context, requestID string, err error)
	// PriceMoved says that a price came into force.
	PriceMoved(ctx context.Context, e pricing.Epoch)
}

// Refusal is a problem with which the gateway answered.
type Refusal struct {
	Kind      string // the type of the problem
	Status    int
	Path      string
	Model     string // "": not known
	Backend   string // the backend that got the request last; "": none did
	RequestID string
	Expected  bool  // caused by load, not by a defect
	Cause     error // the reason, for the operator
}

// Challenge is an attempt to ask a caller to pay.
type Challenge struct {
	Service string
	Result  ChallengeResult
	Err     error // of the Lightning node, if the operator must know it; nil: none
}

// ChallengeResult says how an attempt to ask a caller to pay ended.
type ChallengeResult string

// These are the results of challenges.
const (
	ChallengeMade     ChallengeResult = "made"     // an invoice was made
	ChallengeRepeated ChallengeResult = "repeated" // an earlier challenge was given again
	ChallengeRefused  ChallengeResult = "refused"  // no challenge could be made
)

// Payment is a payment that a token proves.
type Payment struct {
	Hash   l402.PaymentHash
	Amount l402.Msat
	Err    error // why it was not credited; nil: it is credited, now or before
}

// Failure says how a backend failed to answer a request.
type Failure struct {
	Kind      FailureKind
	Backend   string
	Model     string
	RequestID string
	Status    int    // for Refused and Hopeless
	Err       error  // for NoAnswer and BrokeOff
	Said      string // for NoAnswer and Hopeless: the backend's own words
	Dropped   int64  // for NoAnswer: how many events were no part of an answer
}

// FailureKind is the way in which a backend failed.
type FailureKind uint8

// These are the ways in which backends fail. One request may fail in several ways.
const (
	TimedOut FailureKind = iota // no part of the answer came in time
	NoAnswer                    // the body is not an answer, or failed before any part was passed on
	BrokeOff                    // the answer ended within a document
	TooLong                     // the answer is longer than the gateway can keep
	Refused                     // the status is not a 2xx
	Hopeless                    // the request is at fault, so that no retry can succeed
)

// Overrun is what a backend did beyond the bound of a request.
type Overrun struct {
	Backend    string
	Model      string
	RequestID  string
	Prompt     int64     // prompt tokens beyond the bound
	Completion int64     // completion tokens beyond the bound
	Worth      l402.Msat // the price of these tokens at the request's rates, which is not charged
	Impossible bool      // the backend reported a usage that its request cannot have
	Tell       bool      // the operator is told now; LeftOut is how many overruns before were not told
	LeftOut    int64
}

// Settlement is the end of a hold.
type Settlement struct {
	RequestID string
	Model     string
	Backend   string          // "": no backend worked for the hold
	Entry     *metering.Entry // observers must not change it
	Took      time.Duration   // the time to commit the settlement
	Total     time.Duration   // the time since the request came
	GPUSource string          // where the GPU time comes from; "": no GPU time is charged
	Late      bool            // the observer was told Delayed before
}
