package openai

import (
	"bytes"

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
