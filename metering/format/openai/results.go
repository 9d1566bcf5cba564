package openai

import (
	"bytes"

	"sluice.example/sluice/metering/format/rawjson"
)

// results says how the answers of an API look that has a model read texts.
type results struct {
	lists []string // members that hold a result for each text
	bare  bool     // the list may come without an object around it
	want  int64    // results of an answer, at least
	read  func(list string, v []byte) result
}

// result is what one element of an answer says.
type result struct {
	computed bool  // it has a vector, or a score
	index    int64 // of the text that it is of; noIndex: it does not say
	tokens   int64 // read for it; 0: it does not say
}

// noIndex is the index of a result that names no text.
const noIndex = -1 << 63

// indexOf is the index that an element names.
func indexOf(v []byte) int64 {
	if n, ok := number(v); ok {
		return n
	}
	return noIndex
}

// isNumbers reports whether a value is a number, or a list that begins with one, at
// whatever depth. An outline keeps the first element of a list only.
func isNumbers(v []byte) bool {
	for v[0] == '[' {
		c := rawjson.Elements(v)
		if !c.More() {
			return false
		}
		v = c.Value()
	}
	return v[0] == '-' || v[0] >= '0' && v[0] <= '9'
}

// isVector reports whether a value is a vector: numbers, or text in base64 where that
// was asked for; or an object of vectors, such as one for each type of number.
func isVector(v []byte, packed bool) bool {
	switch v[0] {
	case '"':
		return packed && isPacked(v[1:len(v)-1])
	case '{':
		for c := rawjson.Members(v); c.More(); {
			if _, value := c.Member(); isVector(value, packed) {
				return true
			}
		}
		return false
	}
	return v[0] == '[' && isNumbers(v)
}

// leastPacked is the fewest bytes of a vector: one number of 32 bits, or 32 of one bit.
const leastPacked = 4

// isPacked reports whether the inside of a JSON string, or as much of it as an outline
// keeps, is base64, of either alphabet.
func isPacked(raw []byte) bool {
	text := bytes.TrimRight(raw, "=")
	if len(raw)-len(text) > 2 {
		return false
	}
	digits := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c >= '0' && c <= '9', c|0x20 >= 'a' && c|0x20 <= 'z', c == '+', c == '/', c == '-', c == '_':
			digits++
		case c == '\\' && i+1 < len(text) && text[i+1] == '/': // PHP writes a slash so
			digits++
			i++
		default:
			return false
		}
	}
	return digits*6/8 >= leastPacked && (digits%4 != 1 || len(raw) >= rawjson.OutlineString)
}

// readVector reads an element of data.
func (r *embeddingRequest) readVector(_ string, v []byte) result {
	e := result{index: noIndex}
	for c := rawjson.Members(v); c.More(); {
		switch key, value := c.Member(); string(key) {
		case "embedding":
			e.computed = isVector(value, r.packed)
		case "index":
			e.index = indexOf(value)
		}
	}
	return e
}

// readScore reads an element of an answer that ranks or scores. Engines that count each
// pair by itself say its tokens too.
func readScore(list string, v []byte) result {
	e := result{index: noIndex}
	if list == "scores" {
		e.computed = isNumbers(v)
		return e
	}
	for c := rawjson.Members(v); c.More(); {
		switch key, value := c.Member(); string(key) {
		case "score", "relevance_score":
			e.computed = e.computed || isNumbers(value)
		case "index":
			e.index = indexOf(value)
		case "meta_info":
			e.tokens = detail(value, "prompt_tokens")
		}
	}
	return e
}
