package openai

import (
	"bytes"

	"sluice.example/sluice/metering/format/rawjson"
)

// reader takes the output of one choice apart and fills a delta with it. Whatever
// stands where output stands counts by its strings, whatever its shape is. The same
// text in several members of one choice counts once.
type reader struct {
	d        *delta
	keepText bool
	said     []phrase // what counted of this choice
	place    int      // the member of the choice that is being read
	unknown  []unknown
	growing  *growing // what a stream said so far where it repeats itself; nil: it is none
	past     *past    // what the answer said before in members that are not known; nil: nothing yet
	path     uint64
	novel    bool   // only what the same member did not say before counts
	mute     bool   // nothing counts: it is only remembered
	fault    []byte // an error that stands in a message; nil: none
}

// phrase is the inside of a string in one member of a choice.
type phrase struct {
	place int
	raw   []byte
}

// unknown is a member that no rule is known for. Such members are read last,
// because they may repeat the others.
type unknown struct{ key, value []byte }

// maxPhrases bounds the strings that repetitions are looked for among.
const maxPhrases = 32

// begin prepares for another choice.
func (r *reader) begin(d *delta, keepText bool) {
	*r = reader{d: d, keepText: keepText, said: r.said[:0], unknown: r.unknown[:0], past: r.past, growing: r.growing}
}

// readOutputs reads the members of a choice that hold output. A message beside a
// delta repeats the deltas until now, so only what no message said before counts,
// and only where the delta says nothing. A text beside either is the same text, so
// that the larger one counts.
func (r *reader) readOutputs(delta, message, text []byte) {
	start := r.d.mark()
	r.path = mixNumber(0, r.d.index)
	if delta != nil {
		r.readMessage(delta)
	}
	if message != nil {
		r.novel, r.mute = delta != nil, delta != nil && r.d.carries()
		r.readMessage(message)
		r.novel, r.mute = false, false
	}
	if text != nil {
		middle := r.d.mark()
		r.place++
		r.addOutput(text)
		r.d.keepLarger(start, middle)
	}
}

// readMessage adds what the model wrote: the content, a refusal, tool calls,
// reasoning, which some servers send under several names at once, and sound.
func (r *reader) readMessage(v []byte) {
	r.place++
	if v[0] != '{' {
		r.addOutput(v)
		return
	}
	var reasoning, details []byte
	path := r.path
	for w := rawjson.Members(v); w.More(); r.path = path {
		key, value := w.Member()
		r.place++
		r.path = mix(path, key)
		switch string(key) {
		case "content", "refusal":
			r.d.spoken = r.d.spoken || rawjson.IsString(value)
			r.addOutput(value)
		case "reasoning", "reasoning_content", "thinking", "reasoning_text":
			if !rawjson.IsString(value) {
				details = longer(details, value)
			} else if len(value) > 2 {
				reasoning = longer(reasoning, value)
			}
		case "reasoning_details", "thinking_blocks":
			details = longer(details, value)
		case "tool_calls":
			r.addCalls(value)
		case "function_call":
			r.addFunction(value)
		case "audio":
			r.addAudio(value)
		case "images", "image":
			r.addPictures(value)
		case "token_ids", "token_id", "output_ids", "output_token_ids":
			r.addIDs(value)
		case "tokens": // llama.cpp
			r.addTokens(key, value)
		case "name":
		default:
			if isFault(key, value) {
				r.fault = value
				continue
			}
			r.later(key, value)
		}
	}
	r.readReasoning(reasoning, details)
}

func longer(a, b []byte) []byte {
	if len(b) > len(a) {
		return b
	}
	return a
}

// readReasoning adds reasoning. Its details are the same text in parts, so that the
// larger one counts.
func (r *reader) readReasoning(reasoning, details []byte) {
	start := r.d.mark()
	path := r.path
	if reasoning != nil {
		r.place++
		r.path = mix(path, []byte("reasoning"))
		r.addOutput(reasoning)
	}
	if details != nil {
		middle := r.d.mark()
		r.place++
		r.path = mix(path, []byte("reasoning_details"))
		r.addOutput(details)
		r.d.keepLarger(start, middle)
	}
	r.path = path
	r.d.reasoning = r.d.reasoning || r.d.bytes > start.bytes
}

// addOutput adds a value that stands where output stands. Of a number nothing tells
// how many tokens it is, so that it counts as one.
func (r *reader) addOutput(v []byte) {
	switch v[0] {
	case '"':
		r.say(v)
	case '{', '[':
		r.addAny(nil, v)
	default:
		r.d.opaque = r.d.opaque || !saysNothing(v) && !r.mute
	}
}

// addCalls adds tool calls: a list of them, or one.
func (r *reader) addCalls(v []byte) {
	if v[0] != '[' {
		r.addCall(v)
		return
	}
	for calls := rawjson.Elements(v); calls.More(); {
		r.addCall(calls.Value())
	}
}

// addCall adds one tool call.
func (r *reader) addCall(v []byte) {
	r.d.called = r.d.called || !saysNothing(v)
	if v[0] != '{' {
		r.addOutput(v)
		return
	}
	path, call := r.path, r.path
	for w := rawjson.Members(v); w.More(); r.path = path {
		key, value := w.Member()
		r.path = mix(call, key)
		switch string(key) {
		case "index":
			n, _ := number(value)
			call = mixNumber(path, n)
		case "function", "custom":
			r.addFunction(value)
		default:
			if !isLabel(key) {
				r.addForeign(key, value)
			}
		}
	}
}

// addFunction adds what the model wrote of a call: its arguments, and its name, which
// some servers repeat in each event.
func (r *reader) addFunction(v []byte) {
	r.d.called = r.d.called || !saysNothing(v)
	if v[0] != '{' {
		r.addOutput(v)
		return
	}
	path := r.path
	for w := rawjson.Members(v); w.More(); r.path = path {
		key, value := w.Member()
		r.path = mix(path, key)
		switch string(key) {
		case "arguments", "input":
			if !rawjson.IsScalar(value) && !saysNothing(value) { // some servers send them parsed
				value = rawjson.Quote(string(value))
			}
			r.addOutput(value)
		default:
			if !isLabel(key) {
				r.addNew(key, value)
			}
		}
	}
}

// addIDs adds tokens that are listed by their numbers: one number may stand for
// several.
func (r *reader) addIDs(v []byte) {
	if n := count(v); n > r.d.exact {
		r.d.exact, r.d.listed = n, 0
	} else if v[0] != '[' {
		r.d.opaque = r.d.opaque || !saysNothing(v)
	}
}

// addTokens adds tokens that are listed by their numbers under a name that may stand for
// something else as well.
func (r *reader) addTokens(key, v []byte) {
	if countNumbers(v) > 0 {
		r.addIDs(v)
		return
	}
	r.later(key, v)
}

// addLogprobs adds the tokens that log probabilities list: one entry for each, in
// content and refusal, or in tokens (completions), or in a list alone.
func (r *reader) addLogprobs(v []byte) {
	n, bytes := entries(v)
	for w := rawjson.Members(v); w.More(); {
		switch key, value := w.Member(); string(key) {
		case "content", "refusal", "tokens":
			more, length := entries(value)
			n, bytes = n+more, bytes+length
		}
	}
	if n > r.d.exact {
		r.d.exact, r.d.listed = n, bytes
	}
}

// entries are the number of elements of an array, and the bytes of the tokens that
// they name.
func entries(v []byte) (n, bytes int64) {
	for e := rawjson.Elements(v); e.More(); n++ {
		value := e.Value()
		for w := rawjson.Members(value); w.More(); {
			if key, token := w.Member(); string(key) == "token" && rawjson.IsString(token) {
				value = token
				break
			}
		}
		if rawjson.IsString(value) {
			bytes += rawjson.TextBytes(value[1 : len(value)-1])
		}
	}
	return n, bytes
}

// say adds a string that the model wrote, unless another member of the choice said
// the same, or this member did before where only what is new counts. Such a
// repetition counts one token where nothing else does, unless a member that is known
// is there and says nothing: then it is a constant in a sign of life. Where each event
// has all until now, only the rest of it is added; one without a rest counts one token,
// because a token may be a part of a letter, unless it ends the answer.
func (r *reader) say(v []byte) {
	if len(v) == 2 {
		return
	}
	raw := v[1 : len(v)-1]
	if r.novel {
		raw = r.fresh(raw)
		if r.mute {
			return
		}
		if len(raw) == 0 {
			r.d.odd = r.d.odd || !r.d.finished && !r.d.spoken
			return
		}
	} else if raw = r.rest(raw); len(raw) == 0 {
		r.d.odd = r.d.odd || !r.d.finished
		return
	}
	for _, p := range r.said {
		if p.place != r.place && bytes.Equal(p.raw, raw) {
			return
		}
	}
	if len(r.said) < maxPhrases {
		r.said = append(r.said, phrase{r.place, raw})
	}
	r.d.add(raw, r.keepText)
}

// add adds the inside of a JSON string.
func (d *delta) add(raw []byte, keepText bool) {
	n := rawjson.TextBytes(raw)
	d.bytes += n
	d.dense += dense(raw)
	if keepText {
		if int64(len(raw)) != n {
			raw = rawjson.Unquote(append(append([]byte{'"'}, raw...), '"'))
		}
		d.text = append(d.text, raw...)
	}
}
