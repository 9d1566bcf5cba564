package format

import (
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// Format is one API that is sold. It is safe for concurrent use.
type Format interface {
	// Name names the API in metrics, in s_capabilities (see Kindred too) and in logs; it
	// never changes.
	Name() string
	// Paths are those of its paid POST routes, at the gateway and at backends alike.
	Paths() []string
	// Parse takes the body of a request to one of the paths apart, and keeps it.
	// policy says what the owner of a model allows. What cannot be vouched for is
	// refused with a *RequestError that names the member.
	Parse(path string, body []byte, policy func(model string) *Policy) (Request, error)
	// Smallest is the path and the body of a request that costs a backend next to
	// nothing, by which it proves that it serves. The model is named "-".
	Smallest() (path, body string)
}

// Request is one request of an API. It never changes, and may be read from several
// goroutines.
type Request interface {
	// Model is the name of the model as the client gave it; never empty.
	Model() string
	// Stream reports whether the client asked for a stream of events.
	Stream() bool
	// HasCap reports whether the client said how many tokens it wants at most.
	HasCap() bool
	// PromptBytes is the number of bytes of text that the prompt is made of, what
	// templates add included: what a ratio of bytes per token applies to.
	PromptBytes() int64
	// Bound is the most that the request can cost within the limits of its model; a
	// *RequestError where nothing bounds it.
	Bound(Limits) (Bound, error)
	// Fit is b with a cap that leaves the prompt its place in the context, where the
	// client gave no cap.
	Fit(b Bound, l Limits) Bound
	// Countable reports whether a tokenizer alone can count the prompt.
	Countable() bool
	// CountPrompt lists the calls that count the prompt at a backend, the best first:
	// each alone is enough. None where the backend cannot count.
	CountPrompt(p Profile, model string, l Limits) []Question
	// Gathered reports whether the backend is to be asked for a stream, though the
	// client waits for one document.
	Gathered(Profile) bool
	// Rewrite is the body for a backend: only known members, with the caps and
	// multipliers that Bound used under the backend's names.
	Rewrite(Rewrite) []byte
	// Meter meters the answer of one backend. cal may be nil: then the defaults apply
	// and nothing is learned.
	Meter(b Bound, cal *Calibration, o MeterOptions) Meter
}

// Meter reads one answer as it passes and knows at every moment what was delivered.
// It is owned by one goroutine. An answer is a stream, read with Event, or a document,
// read with Unary; Final is called once, when it has ended.
type Meter interface {
	// Event reads one event of a stream, as Events returns it. out is what the client
	// gets, nil for nothing, and valid until the next call or as long as event is.
	// last reports the end of the answer: settle, then send what Close returns.
	Event(event []byte) (out []byte, last bool)
	// AfterEnd reads an event that came together with the end, behind it: a usage in it
	// counts, and the client gets nothing of it.
	AfterEnd(event []byte)
	// Delivered says that the event returned last was written to the client.
	Delivered()
	// Gather takes the event seen last into the document of a client that waits for
	// one, and returns the bytes taken in all; 0 where there was nothing to take.
	Gather() int
	// Document is what was gathered. capped says that the answer was cut at the cap.
	Document(capped bool) []byte

	// Unary reads a whole document and returns it as the client gets it. It fails
	// where it is no answer, or says that the backend failed, and with ErrNotWhole where
	// it lacks what was asked for.
	Unary(document []byte) ([]byte, error)
	// UnaryPart reads the beginning of a document that has no end.
	UnaryPart(part []byte)
	// Scatter is a document that Unary returned as the events of a stream, for a
	// client that asked for one; Close ends it.
	Scatter(document []byte) []byte

	// IsPart reports whether the event seen last is a part of the answer, and not noise.
	IsPart() bool
	// Started reports whether a part of the answer was delivered; Finished, whether
	// the answer came to its end; Ended, whether nothing was written after that, so
	// that nothing which follows makes it less.
	Started() bool
	Finished() bool
	Ended() bool
	// Failed reports whether the backend reported an error within its answer, and
	// Failure what it said. Noise counts events that are none of the API.
	Failed() bool
	Failure() Failure
	Noise() int64

	// Running is what was delivered until now, and so the charge if the answer ended
	// here. It never falls.
	Running() (pricing.Units, metering.Source)
	// Beyond reports whether it is certain that the backend generated more than it
	// was asked for.
	Beyond() bool
	// NeedsTokenizer says what to ask the backend's tokenizer before Final: ok,
	// whether to ask at all; prompt, whether to count the prompt; text, what was
	// delivered. Tokenized takes the counts; -1 where there is none.
	NeedsTokenizer() (prompt bool, text string, ok bool)
	Tokenized(prompt, completion int64)
	// Silent says that the backend sent nobody a part of an answer.
	Silent()
	// Final is what is charged after the answer ended, within the bound, and where the
	// counts came from. clamped reports a usage that was brought within the bound, or
	// that cannot be; Excess is then what was beyond.
	Final(end End, now time.Time) (u pricing.Units, s metering.Source, clamped bool)
	Excess() Overrun

	// Close is the end of a stream, sent after the charge: the API's end event, or,
	// for a stream that is not whole, what its SDKs raise on.
	Close(Closing) []byte
}

// Pieces is a Meter that reads a document piece by piece, so that no copy of a long one
// is kept. Unary reads one that came whole; a document is read in one of both ways.
type Pieces interface {
	Meter
	// Piece reads the next part of the document and returns it as the client gets it,
	// in the memory of part. Failed says afterwards that it cannot be an answer,
	// whatever follows. Delivered says that it was written.
	Piece(part []byte) []byte
	// PiecesEnd says that the document has come to its end. It fails where it was
	// no answer.
	PiecesEnd() error
}

// Listing is a Meter of an API whose answer may be a JSON list without an object
// around it.
type Listing interface {
	Meter
	MayBeList() bool
}

// Closing is what the end of a stream says.
type Closing struct {
	End     End
	Comment string // one line with its colon: what the answer cost
	// For a stream that is not whole:
	Kind    string // of problem
	Code    string
	Message string
}
