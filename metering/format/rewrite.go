package format

import "time"

// MeterOptions says how an answer is metered.
type MeterOptions struct {
	Start            time.Time        // when the request was sent to the backend
	Now              func() time.Time // the clock; nil: time.Now
	ContinuousUsage  bool             // Rewrite forced a usage into every chunk
	Timings          bool             // Rewrite forced timings into every chunk
	UsagePerSequence bool             // see Profile
	UsageOfAll       bool             // a usage is known to speak of all completions; neither: nothing is known
	OneCompletion    bool             // see Profile
	TruncatesPrompts bool             // see Profile.TruncatesPrompts
	Gathered         bool             // the stream is read for a client that waits for one document
	KeepText         bool             // keep the text, for NeedsTokenizer, as long as no usage was reported
	Voter            uint64           // who asked, for the Calibration: one number for each account
	Public           []byte           // the public name of the model, a JSON string, which answers carry; nil: what the backend wrote
}

// Rewrite is what a request becomes before a backend sees it.
type Rewrite struct {
	Model           string  // the backend's name of the model; empty: the client's
	Cap             int64   // completion tokens per sequence, at least 1; never raises what the client asked for
	ForceUsage      bool    // ask for the usage chunk, whatever the client said
	ContinuousUsage bool    // ask for a usage in every chunk: the backend knows continuous_usage_stats
	Stream          bool    // ask for a stream, although the client waits for a document
	Profile         Profile // what the backend is known to do; without Caps the cap is written as max_tokens
}
