package openai

import (
	"bytes"

	"sluice.example/sluice/metering/format/rawjson"
)

// later keeps a member that no rule is known for until the others are read. Labels,
// and what the model was shown, say nothing that it wrote.
func (r *reader) later(key, value []byte) {
	if !saysNothing(value) && !isLabel(key) && !isShown(key, value) && !r.novel {
		r.unknown = append(r.unknown, unknown{key, value})
	}
}

// shownBytes is how much text in an object or a list that is not known is taken for
// something that the model was shown, in bytes: documents come whole, in one event,
// and what a model writes comes in pieces.
const shownBytes = 512

// readUnknown adds the members that no rule is known for: what is new in them. Where
// they hold more text than an event does, it counts as one token, unless it is all
// that a document has. start is their path.
func (r *reader) readUnknown(start uint64) {
	known := r.d.mark()
	for _, u := range r.unknown {
		r.place++
		r.path = mix(start, u.key)
		before := r.d.mark()
		r.addForeign(u.key, u.value)
		if whole := r.d.document && known.bytes == 0; !whole && !rawjson.IsScalar(u.value) && r.d.bytes-before.bytes > shownBytes {
			r.d.foreign -= r.d.bytes - before.bytes
			r.d.reset(before)
			r.d.odd = true
		}
	}
}

// addForeign adds what is new in a value that need not be the model's.
func (r *reader) addForeign(key, v []byte) {
	before := r.d.mark()
	if string(key) == "executed_tools" {
		r.addExecuted(v)
	} else {
		r.addNew(key, v)
	}
	r.d.foreign += r.d.bytes - before.bytes
	r.d.dense = before.dense
}

// addExecuted adds calls of tools that the API has run (Groq): the model wrote their
// arguments, and was shown their output.
func (r *reader) addExecuted(v []byte) {
	for e := rawjson.Elements(v); e.More(); {
		for w := rawjson.Members(e.Value()); w.More(); {
			if key, value := w.Member(); string(key) == "arguments" {
				r.addNew(key, value)
			}
		}
	}
}

// addAudio adds sound: its transcript is text, and nothing tells how many tokens
// its samples are, so that they count as one.
func (r *reader) addAudio(v []byte) {
	if v[0] != '{' {
		r.sound(v)
		return
	}
	path := r.path
	for w := rawjson.Members(v); w.More(); r.path = path {
		key, value := w.Member()
		r.path = mix(path, key)
		switch string(key) {
		case "transcript", "text":
			r.addOutput(value)
		case "data":
			r.sound(value)
		default:
			if !isLabel(key) {
				r.addNew(key, value)
			}
		}
	}
}

func (r *reader) sound(v []byte) { r.d.opaque = r.d.opaque || hasText(v) && !r.mute }

// addPictures adds pictures that the model made: each address within the value, or
// the bytes themselves.
func (r *reader) addPictures(v []byte) {
	switch v[0] {
	case '"':
		if isAddress(v) || isSealed(v) {
			r.picture(v)
		}
	case '[':
		for e := rawjson.Elements(v); e.More(); {
			r.addPictures(e.Value())
		}
	case '{':
		for w := rawjson.Members(v); w.More(); {
			_, value := w.Member()
			r.addPictures(value)
		}
	}
}

// picture adds one picture, unless an event said the same before.
func (r *reader) picture(v []byte) {
	if r.novel && len(r.fresh(v)) == 0 || r.mute {
		return
	}
	r.d.pictures++
	r.d.opaque = true
}

// seal adds what has no words: it counts as one token.
func (r *reader) seal(v []byte) { r.d.odd = r.d.odd || hasText(v) && !r.mute }

// addNew adds what of a value was not said before.
func (r *reader) addNew(key, v []byte) {
	before := r.novel
	r.novel = true
	r.addAny(key, v)
	r.novel = before
}

// addAny adds every text within the value of a member, whatever its members are
// called, but for those that only name things and those that the model was shown. An
// address, a seal, or data in either, is no text: it counts as one token, or as a
// picture.
func (r *reader) addAny(key, v []byte) {
	path := r.path
	switch v[0] {
	case '"':
		switch {
		case bytes.HasPrefix(v, []byte(`"data:image/`)):
			r.picture(v)
		case isAddress(v), !isWords(key) && isSealed(v):
			r.seal(v)
		default:
			r.say(v)
		}
	case '[':
		n := int64(0)
		for e := rawjson.Elements(v); e.More(); n++ {
			r.path = mixNumber(path, n)
			r.addAny(key, e.Value())
		}
	case '{':
		for w := rawjson.Members(v); w.More(); {
			key, value := w.Member()
			r.path = mix(path, key)
			switch {
			case isSeal(key):
				r.seal(value)
			case !isLabel(key) && !isShown(key, value):
				r.addAny(key, value)
			}
		}
	}
	r.path = path
}

// isLabel reports whether a member with this name says what something is, or which
// one, and nothing that the model wrote.
func isLabel(key []byte) bool {
	switch string(key) {
	case "id", "type", "index", "role", "format", "status", "object", "model", "provider":
		return true
	}
	return bytes.HasSuffix(key, []byte("_id")) || bytes.HasSuffix(key, []byte("Id")) || bytes.HasSuffix(key, []byte("_type"))
}

// isShown reports whether a member has what the model was shown, or what its text was
// made from: pages that were found, and where.
func isShown(key, value []byte) bool {
	if rawjson.IsScalar(value) {
		return false
	}
	switch string(key) {
	case "context", "citations", "annotations", "search_results", "search_info", "sources", "documents", "references",
		"web_search", "grounding_metadata", "groundingMetadata", "tool_outputs", "tool_results":
		return true
	}
	return false
}

// isSeal reports whether a member with this name has a seal, not words.
func isSeal(key []byte) bool {
	switch string(key) {
	case "signature", "encrypted", "encrypted_content", "encrypted_data", "thoughtSignature":
		return true
	}
	return bytes.HasSuffix(key, []byte("_signature"))
}

// isWords reports whether a member with this name is known to hold words; one without
// a name is.
func isWords(key []byte) bool {
	switch string(key) {
	case "", "text", "content", "thinking", "reasoning", "reasoning_content", "summary", "refusal", "transcript", "arguments", "input":
		return true
	}
	return false
}

// sealedBytes is how long a text without a blank must be, in bytes, to be taken for data
// where nothing says that words stand there.
const sealedBytes = 128

// isSealed reports whether a string is data rather than words: long, and written in
// letters, digits and the few signs of base64 and of tokens made of it.
func isSealed(v []byte) bool {
	if len(v) < sealedBytes+2 {
		return false
	}
	for _, c := range v[1 : len(v)-1] {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && bytes.IndexByte([]byte(`+/=-_.:~\\`), c) < 0 {
			return false
		}
	}
	return true
}
