package rawjson

import (
	"encoding/json"
	"strconv"
)

// AppendNumber adds a member that is a whole number.
func AppendNumber(out []byte, key string, n int64) []byte {
	out = append(Separate(out), '"')
	out = append(append(out, key...), '"', ':')
	return strconv.AppendInt(out, n, 10)
}

// Separate opens the object out, or adds the comma before its next member.
func Separate(out []byte) []byte {
	if len(out) == 0 {
		return append(out, '{')
	}
	return append(out, ',')
}

// AppendMember adds a member whose key needs no escapes.
func AppendMember(out []byte, key string, value []byte) []byte {
	out = append(Separate(out), '"')
	out = append(out, key...)
	out = append(out, '"', ':')
	return append(out, value...)
}

// Quote is s as a JSON string.
func Quote(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // no string fails to encode
		return []byte(`""`)
	}
	return b
}

// Next adds the comma before the next member of an object or element of a list.
func Next(out []byte) []byte {
	if c := out[len(out)-1]; c == '{' || c == '[' {
		return out
	}
	return append(out, ',')
}
