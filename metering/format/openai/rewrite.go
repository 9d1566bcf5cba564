package openai

import (
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// Rewrite is the body to send: the client's known fields in their order and byte
// for byte, but for the model, what bounds the answer and, on a stream,
// stream_options. The cap and the number of completions are always sent, under the
// names that the backend knows and under no other: a backend may prefer another
// name's number, may not know the client's name, or may have a default of its own.
func (r *Request) Rewrite(w format.Rewrite) []byte {
	out := make([]byte, 0, len(r.body)+len(w.Model)+160)
	w.Cap = max(1, w.Cap)
	if r.cap > 0 {
		w.Cap = min(w.Cap, r.cap)
	}
	for i := range r.members {
		m := &r.members[i]
		switch {
		case m.dropped, !m.forced && !knows(&w.Profile, m.kind, m.key), m.kind == kindOptions, m.kind == kindStream && w.Stream:
		case m.kind == kindModel && w.Model != "":
			out = rawjson.AppendMember(out, m.key, rawjson.Quote(w.Model))
		case m.kind == kindMessages && len(r.messages) != len(m.value):
			out = rawjson.AppendMember(out, m.key, r.messages)
		default:
			out = append(rawjson.Separate(out), m.raw...)
		}
	}
	out = r.appendBounds(out, w)
	if w.Stream {
		out = rawjson.AppendMember(out, "stream", []byte("true"))
	}
	if r.stream || w.Stream {
		out = r.appendOptions(out, w)
	}
	return append(out, '}')
}

// appendBounds adds what bounds the answer, and what a backend would choose for
// itself.
func (r *Request) appendBounds(out []byte, w format.Rewrite) []byte {
	if r.floor > 0 && knows(&w.Profile, kindFloor, "min_tokens") {
		out = rawjson.AppendNumber(out, "min_tokens", min(r.floor, w.Cap))
	}
	out = rawjson.AppendNumber(out, "n", r.sequences)
	caps := w.Profile.Caps
	if len(caps) == 0 {
		out = rawjson.AppendNumber(out, format.CapTokens, w.Cap)
	}
	for _, name := range caps {
		out = rawjson.AppendNumber(out, name, w.Cap)
	}
	if w.Profile.Engine == format.EngineOpenAI && r.messages != nil { // completions are never stored
		out = rawjson.AppendMember(out, "store", []byte("false"))
	}
	return out
}

// appendOptions adds what makes a stream tell its usage.
func (r *Request) appendOptions(out []byte, w format.Rewrite) []byte {
	options := make([]byte, 0, 64)
	if w.ForceUsage || r.wantsUsage {
		options = rawjson.AppendMember(options, "include_usage", []byte("true"))
	}
	if unknown := w.Profile.Engine == format.EngineGeneric || w.Profile.Engine == ""; w.ContinuousUsage || (r.wantsContinuous && unknown) {
		options = rawjson.AppendMember(options, "continuous_usage_stats", []byte("true"))
	}
	if w.Profile.Engine == format.EngineOpenAI {
		options = rawjson.AppendMember(options, "include_obfuscation", []byte("false")) // padding is no text
	}
	if len(options) > 0 {
		out = rawjson.AppendMember(out, "stream_options", append(options, '}'))
	}
	if w.Profile.RunningTimings {
		out = rawjson.AppendMember(out, "timings_per_token", []byte("true"))
	}
	return out
}
