package metering

// Source says where the usage of a charge came from. The constants are in descending order of quality. The source is
// stored with each charge, so that an account's owner can tell measured from estimated usage.
type Source string

// The sources of usage.
const (
	SourceReported  Source = "reported"  // the backend's final usage
	SourceRunning   Source = "running"   // the last usage that the backend reported during an answer that was cut
	SourceTokenizer Source = "tokenizer" // the backend's own tokenizer, which the gateway asked after a cut
	SourceCounted   Source = "counted"   // counted deltas, and a calibrated ratio of bytes per token
	SourcePace      Source = "pace"      // measured pace × time, for a unary answer that was abandoned
	SourceNone      Source = "none"      // nothing was delivered
)

// Outcome says how a request ended.
type Outcome string

// The ways in which a request ends. A released hold has an outcome as well, and a charge of 0.
const (
	OutcomeComplete       Outcome = "complete"        // the whole answer was delivered
	OutcomeBackendCut     Outcome = "backend_cut"     // the backend ended the answer early
	OutcomeClientGone     Outcome = "client_gone"     // the client hung up or stalled past its deadline
	OutcomeHoldExhausted  Outcome = "hold_exhausted"  // the running cost reached the hold, which could not be extended
	OutcomeBackendError   Outcome = "backend_error"   // the backend answered 4xx or 5xx before the first byte
	OutcomeBackendTimeout Outcome = "backend_timeout" // no first byte came in time
	OutcomeNotTaken       Outcome = "not_taken"       // no backend took the request
	OutcomeQueueTimeout   Outcome = "queue_timeout"   // no slot became free in time
	OutcomeDrained        Outcome = "drained"         // the gateway shut down before the answer ended
	OutcomeSwept          Outcome = "swept"           // the owner's lease ran out, and a sweep charged the hold
)
