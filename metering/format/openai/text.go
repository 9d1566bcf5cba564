package openai

import (
	"bytes"
	"unicode/utf8"

	"sluice.example/sluice/metering/format/rawjson"
)

// isAddress reports whether a string is an address rather than words.
func isAddress(v []byte) bool {
	for _, scheme := range [...]string{`"data:`, `"http://`, `"https://`} {
		if len(v) >= len(scheme) && string(v[:len(scheme)]) == scheme {
			return bytes.IndexByte(v, ' ') < 0
		}
	}
	return false
}

// hasText reports whether there is a string within a value that is not empty.
func hasText(v []byte) bool {
	switch v[0] {
	case '"':
		return len(v) > 2
	case '[':
		for e := rawjson.Elements(v); e.More(); {
			if hasText(e.Value()) {
				return true
			}
		}
	case '{':
		for w := rawjson.Members(v); w.More(); {
			if _, value := w.Member(); hasText(value) {
				return true
			}
		}
	}
	return false
}

// dense is how many bytes of the inside of a JSON string tokens must have been spent
// on: those of letters and digits, and of a run of signs and white space, whose tokens
// may be as long as it is, the first one.
func dense(raw []byte) (n int64) {
	var last rune
	for i := 0; i < len(raw); {
		c, size := rune(raw[i]), 1
		switch {
		case c == '\\' && raw[i+1] == 'u':
			c, size = rawjson.HexRune(raw[i+2:i+6]), 6
		case c == '\\':
			c, size = ' ', 2
		case c >= utf8.RuneSelf:
			c, size = utf8.DecodeRune(raw[i:])
		}
		i += size
		switch word := isWordRune(c); {
		case word && (c < utf8.RuneSelf || c != last):
			n += int64(max(1, utf8.RuneLen(c)))
		case !word && isWordRune(last):
			n++
		}
		last = c
	}
	return n
}

// isWordRune reports whether a rune is a letter or a digit, or may be one: neither ASCII
// nor one of the blocks of punctuation, arrows, lines and boxes.
func isWordRune(c rune) bool {
	if c < utf8.RuneSelf {
		return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
	}
	return c != 0xa0 && c != 0x3000 && (c < 0x2000 || c >= 0x2c00)
}
