package metering

// Source says where the token counts of a charge came from, best first. It is
// stored with each charge, so that an owner can tell measured from estimated.
type Source string

// The sources of token counts.
const (
	SourceReported  Source = "reported"  // the backend's final usage
	SourceRunning   Source = "running"   // the last continuous usage before a cut
	SourceTokenizer Source = "tokenizer" // the backend's own tokenizer, asked after a cut
	SourceCounted   Source = "counted"   // counted deltas and a calibrated bytes-per-token ratio
	SourcePace      Source = "pace"      // a unary answer was abandoned: measured pace × time
	SourceNone      Source = "none"      // nothing was delivered
)

// Outcome says how a request ended.
type Outcome string

// The ways a request ends. A release carries one as well, with charge 0.
const (
	OutcomeComplete       Outcome = "complete"        // the whole answer was delivered
	OutcomeBackendCut     Outcome = "backend_cut"     // the backend ended the answer early
	OutcomeClientGone     Outcome = "client_gone"     // the client hung up or stalled past its deadline
	OutcomeHoldExhausted  Outcome = "hold_exhausted"  // running cost reached the hold and it could not be extended
	OutcomeBackendError   Outcome = "backend_error"   // a 4xx or 5xx before the first byte
	OutcomeBackendTimeout Outcome = "backend_timeout" // no first byte in time
	OutcomeNotTaken       Outcome = "not_taken"       // no backend took the request
	OutcomeQueueTimeout   Outcome = "queue_timeout"   // no slot became free in time
	OutcomeDrained        Outcome = "drained"         // the gateway shut down before the answer ended
	OutcomeSwept          Outcome = "swept"           // the owner's lease ran out
)
