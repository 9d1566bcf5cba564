package format

// OneDocument is the part of a Meter that the APIs have in common whose answers are
// documents, never streams of events. A meter embeds it. Events are none of such an
// API, so that a backend which sends some has failed.
type OneDocument struct {
	failed  bool
	failure Failure
	begun   bool  // a byte of the answer came
	whole   bool  // its end came, and it is an answer
	silent  bool  // the backend sent nobody a part of an answer
	pending int64 // bytes of the piece that was read last
	sent    int64 // bytes delivered
}

// Event implements Meter.
func (d *OneDocument) Event([]byte) (out []byte, last bool) {
	d.Fail(Failure{})
	return nil, false
}

// AfterEnd implements Meter: nothing is, because no event ends an answer.
func (d *OneDocument) AfterEnd([]byte) {}

// Delivered implements Meter.
func (d *OneDocument) Delivered() {
	d.sent += d.pending
	d.pending = 0
}

// Gather implements Meter: there is nothing to gather.
func (d *OneDocument) Gather() int { return 0 }

// Document implements Meter.
func (d *OneDocument) Document(bool) []byte { return nil }

// Scatter implements Meter: no client can ask for a stream.
func (d *OneDocument) Scatter(document []byte) []byte { return document }

// Started implements Meter.
func (d *OneDocument) Started() bool { return d.begun && !d.failed }

// IsPart implements Meter: no event is.
func (d *OneDocument) IsPart() bool { return false }

// Ended implements Meter.
func (d *OneDocument) Ended() bool { return d.whole }

// Finished implements Meter.
func (d *OneDocument) Finished() bool { return d.whole }

// Failed implements Meter.
func (d *OneDocument) Failed() bool { return d.failed }

// Failure implements Meter.
func (d *OneDocument) Failure() Failure { return d.failure }

// Noise implements Meter.
func (d *OneDocument) Noise() int64 { return 0 }

// Beyond implements Meter: nothing is generated.
func (d *OneDocument) Beyond() bool { return false }

// Silent implements Meter.
func (d *OneDocument) Silent() { d.silent = true }

// IsSilent reports whether Silent was called.
func (d *OneDocument) IsSilent() bool { return d.silent }

// Close implements Meter: a document has no end of its own.
func (d *OneDocument) Close(Closing) []byte { return nil }

// Fail notes that the backend failed, and what it said.
func (d *OneDocument) Fail(f Failure) { d.failed, d.failure = true, f }

// Came notes that the next n bytes of the answer came.
func (d *OneDocument) Came(n int) {
	d.begun = true
	d.pending += int64(n)
}

// End notes that the answer is whole.
func (d *OneDocument) End() { d.whole = true }

// Sent is how many bytes of the answer were delivered.
func (d *OneDocument) Sent() int64 { return d.sent }
