package openai

import (
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/rawjson"
)

// delta is what one chunk, or a whole answer, adds to one choice.
type delta struct {
	index     int64
	bytes     int64 // of text, tool calls and reasoning included
	foreign   int64 // those of bytes that are in members which are not known
	dense     int64 // of the others, those that tokens must have been spent on
	pictures  int64 // that the model made
	exact     int64 // tokens, where the backend lists them one by one; 0: it does not
	listed    int64 // bytes of the text that these tokens are; 0: not known
	partial   bool  // it is of the beginning of a document: what it lists may lack tokens of its text
	document  bool  // it is of a document
	opaque    bool  // it carries something whose tokens nothing tells, such as sound
	odd       bool  // it carries something of which nothing tells whether the model wrote it
	spoken    bool  // a member that holds words is there, though it may say nothing
	called    bool  // some of it is a tool call
	reasoning bool  // some of it is reasoning
	finished  bool  // it carries a finish_reason, which is why
	why       string
	reported  bool // tokens holds the running usage that came with it
	tokens    int64
	text      []byte // the text itself, where it is kept
	usage     []byte // a usage within the choice; nil: none
}

// carries reports whether the model may have written something.
func (d *delta) carries() bool { return d.certain() || d.bytes > 0 || d.odd }

// certain reports whether it has for sure: something is where output stands.
func (d *delta) certain() bool { return d.bytes > d.foreign || d.exact > 0 || d.opaque }

// chunk is what the meter reads from one JSON object of an answer.
type chunk struct {
	deltas  []delta
	choices bool      // it has the member choices, be it empty
	objects bool      // one of its choices is an object
	model   []byte    // the value of the member model; nil: none
	usage   []byte    // the value of the member usage, null included; nil: none
	timings []byte    // the value of llama.cpp's timings; nil: none
	failed  bool      // it is, or has, an error
	fault   []byte    // the value that says so; nil: the object as a whole
	reason  string    // the finish_reason that says so; empty: none does
	strange []unknown // members that this package does not know, with text in them
	ids     int64     // tokens that are listed beside the choices
	beside  bool      // there is no choice, and the only delta is of what stands beside it
	told    bool      // the usage in it speaks of all that was delivered, and of what it says itself
	partial bool      // it is the beginning of a document
	unary   bool      // it is a document
	reader  reader
}

// read takes the JSON object v apart; checkValue accepted it. It reuses the
// memory of c.
func (c *chunk) read(v []byte, keepText bool) {
	*c = chunk{deltas: c.deltas[:0], strange: c.strange[:0], partial: c.partial, unary: c.unary, reader: c.reader}
	sign := false // it speaks of an error, if it is no chunk
	for w := rawjson.Members(v); w.More(); {
		key, value := w.Member()
		switch string(key) {
		case "choices":
			c.readChoices(value, keepText)
		case format.MemberModel:
			c.model = value
		case "usage":
			c.usage = value
		case "timings":
			c.timings = value
		case "object":
			switch string(value) {
			case `"chat.completion.chunk"`, `"chat.completion"`:
			case `"error"`: // vLLM, SGLang and TensorRT-LLM, some versions
				c.failed = true
			default:
				sign = sign || isSign(key, value)
			}
		case "token_ids", "output_ids", "output_token_ids":
			c.ids = max(c.ids, count(value))
		case "tokens":
			c.ids = max(c.ids, countNumbers(value))
			c.note(key, value)
		case "id", "created", "system_fingerprint", "service_tier", "obfuscation", "provider", "request_id",
			"prompt_filter_results", "prompt_token_ids", "prompt_logprobs", "kv_transfer_params":
		case "__verbose":
			c.readVerbose(value)
		case "x_groq":
			c.readEnvelope(value)
		case "base_resp": // MiniMax
			c.readStatus(value)
		default:
			if isFault(key, value) {
				c.failed = true
				continue
			}
			c.readEnvelope(value)
			sign = sign || isSign(key, value)
			c.note(key, value)
		}
	}
	c.failed = c.failed || sign && len(c.deltas) == 0
	c.countBeside(keepText)
}

// readEnvelope looks for an error within what an API sends beside the choices, where
// Groq says that it stopped an answer early.
func (c *chunk) readEnvelope(v []byte) {
	for w := rawjson.Members(v); w.More(); {
		if key, value := w.Member(); (value[0] == '"' || value[0] == '{') && isFault(key, value) {
			c.failed, c.fault = true, value
		}
	}
}

// readStatus reads a status that is 0 where all is well, and the words beside it.
func (c *chunk) readStatus(v []byte) {
	var words []byte
	failed := false
	for w := rawjson.Members(v); w.More(); {
		switch key, value := w.Member(); string(key) {
		case "status_code":
			failed = !saysNothing(value)
		case "status_msg":
			words = value
		}
	}
	if failed {
		c.failed, c.fault = true, words
	}
}

// alone reports whether it has no choice: a usage in it is that of the whole answer.
func (c *chunk) alone() bool { return len(c.deltas) == 0 || c.beside }

// answers reports whether each choice of a document says something, or that it has
// ended.
func (c *chunk) answers() bool {
	for i := range c.deltas {
		if d := &c.deltas[i]; !d.carries() && !d.finished {
			return false
		}
	}
	return true
}

// failure is what went wrong in the object v, which failed.
func (c *chunk) failure(v []byte) (f format.Failure) {
	if f = format.FailureOf(v); c.fault != nil && f.Message == "" {
		f = format.FailureOf(c.fault)
	}
	if f.Message == "" && c.reason != "" {
		f.Message = format.Clean("finish_reason " + c.reason)
	}
	return f
}

// readChoices reads the choices: a list of them, or one.
func (c *chunk) readChoices(v []byte, keepText bool) {
	c.choices = true
	if v[0] == '{' {
		c.readChoice(v, keepText)
		return
	}
	for e := rawjson.Elements(v); e.More(); {
		value := e.Value()
		c.objects = c.objects || value[0] == '{'
		c.readChoice(value, keepText)
	}
}

// saysNothing reports whether a value says nothing: null, false, "", {}, [] or 0.
func saysNothing(v []byte) bool { return rawjson.SaysNothing(v) }

// maxDeltas bounds the deltas of one chunk that are told apart; servers send
// one, or one for each choice.
const maxDeltas = 2 * maxChoices

// next is the next delta to fill, with the memory that it had. Beyond
// maxDeltas the last one takes all others.
func (c *chunk) next() *delta {
	if len(c.deltas) == maxDeltas {
		return &c.deltas[maxDeltas-1]
	}
	if len(c.deltas) < cap(c.deltas) {
		c.deltas = c.deltas[:len(c.deltas)+1]
	} else {
		c.deltas = append(c.deltas, delta{})
	}
	d := &c.deltas[len(c.deltas)-1]
	*d = delta{text: d.text[:0]}
	return d
}

// readChoice reads one choice. What is no object but has text in it is the output
// itself.
func (c *chunk) readChoice(v []byte, keepText bool) {
	if v[0] != '{' && !hasText(v) {
		return
	}
	d := c.next()
	r := &c.reader
	r.begin(d, keepText)
	if v[0] != '{' {
		r.addOutput(v)
		return
	}
	d.partial, d.document = c.partial, c.unary
	var delta, message, text, logprobs []byte
	for w := rawjson.Members(v); w.More(); {
		key, value := w.Member()
		switch string(key) {
		case "index":
			d.index, _ = number(value)
		case "delta":
			delta = unlessNothing(value)
		case "message":
			message = unlessNothing(value)
		case "text":
			d.spoken = d.spoken || rawjson.IsString(value)
			text = unlessNothing(value)
		case "usage": // Moonshot
			d.usage = unlessNothing(value)
		case "finish_reason":
			c.readReason(d, value)
		case "logprobs", "completion_probabilities":
			logprobs = unlessNothing(value)
		case "token_ids", "output_ids", "output_token_ids":
			r.addIDs(value)
		case "tokens":
			r.addTokens(key, value)
		case "stop_reason", "matched_stop", "native_finish_reason", "finish_details", "content_filter_results",
			"content_filter_result", "prompt_token_ids", "routed_experts", "seed":
		default:
			if isFault(key, value) { // OpenRouter
				c.failed, c.fault = true, value
				continue
			}
			r.later(key, value)
		}
	}
	if logprobs != nil {
		r.addLogprobs(logprobs)
	}
	r.readOutputs(delta, message, text)
	r.readUnknown(mixNumber(1, d.index))
	if r.fault != nil {
		c.failed, c.fault = true, r.fault
	}
	if logprobs != nil && !d.carries() {
		r.addOutput(logprobs) // of a form that is not known
	}
}

// readReason reads the finish_reason of a choice.
func (c *chunk) readReason(d *delta, v []byte) {
	why := reason(v)
	if why == "" {
		return
	}
	d.finished, d.why = true, why
	if isFailure(why) {
		c.failed, c.reason = true, why
	}
}

// unlessNothing is v, or nil where it says nothing.
func unlessNothing(v []byte) []byte {
	if saysNothing(v) {
		return nil
	}
	return v
}

// count is the number of elements of an array; 0 for anything else.
func count(v []byte) (n int64) {
	for e := rawjson.Elements(v); e.More(); n++ {
		e.Value()
	}
	return n
}

// countNumbers is the number of elements of an array of numbers; 0 for anything else.
func countNumbers(v []byte) int64 {
	if v[0] != '[' || saysNothing(v) {
		return 0
	}
	if c := v[rawjson.SkipSpace(v, 1)]; c < '0' || c > '9' {
		return 0
	}
	return count(v)
}

// hidden names the members of a chunk that the client does not see as they are: those
// that the gateway asked for and the client did not, which are its usage or llama.cpp's
// timings, and the backend's name of the model.
type hidden struct{ usage, timings, model bool }

// removeHidden appends to dst the object v, which checkValue accepted, without
// the members that h names, and with public in place of the name of the model.
func removeHidden(dst, v []byte, h hidden, public []byte) []byte {
	kept := 0 // v[:kept] is in dst
	first := true
	for c := rawjson.Members(v); ; {
		before := c.At() // behind the member before, or the opening brace
		if !c.More() {
			return append(dst, v[kept:]...)
		}
		start := c.At()
		key, value := c.Member()
		if h.model && string(key) == format.MemberModel {
			dst = append(append(dst, v[kept:c.At()-len(value)]...), public...)
			kept, first = c.At(), false
			continue
		}
		if !(h.usage && string(key) == "usage" || h.timings && string(key) == "timings") {
			first = false
			continue
		}
		if first { // drop it up to and with the comma behind it
			dst = append(dst, v[kept:start]...)
			if kept = c.At(); c.More() {
				kept = c.At()
			}
			continue
		}
		dst = append(dst, v[kept:before]...) // drop it from the comma before it
		kept = c.At()
	}
}
