package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of JSON that is taken apart. Deep tool schemas
// have a depth of about 20.
const maxDepth = 128

// skipSpace is the index of the first byte at or after i that is not JSON
// white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// checkDocument checks that b is one JSON object in valid UTF-8, nested at
// most maxDepth deep, with nothing behind it.
func checkDocument(b []byte) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("it is not valid UTF-8")
	}
	start := skipSpace(b, 0)
	if start == len(b) {
		return fmt.Errorf("it is empty")
	}
	if b[start] != '{' {
		return fmt.Errorf("it is not a JSON object")
	}
	end, err := checkValue(b, start, maxDepth)
	if err != nil {
		return err
	}
	if end = skipSpace(b, end); end != len(b) {
		return fmt.Errorf("there is data after the JSON object, at byte %d", end)
	}
	return nil
}

// checkValue checks the JSON value at b[i:] by the grammar of RFC 8259 and
// returns the index behind it. i is within b.
func checkValue(b []byte, i, depth int) (int, error) {
	switch c := b[i]; {
	case c == '"':
		return checkString(b, i)
	case c == '{' || c == '[':
		if depth == 0 {
			return 0, fmt.Errorf("it is nested deeper than %d levels, at byte %d", maxDepth, i)
		}
		return checkContainer(b, i, depth-1)
	case c == '-' || (c >= '0' && c <= '9'):
		return checkNumber(b, i)
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(b)-i >= len(word) && string(b[i:i+len(word)]) == word {
			return i + len(word), nil
		}
	}
	return 0, invalid(i)
}

// checkContainer checks the object or array that begins at b[i].
func checkContainer(b []byte, i, depth int) (int, error) {
	object := b[i] == '{'
	closing := b[i] + 2 // ']' and '}' follow their opening by two
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == closing {
		return i + 1, nil
	}
	for {
		var err error
		if object {
			if i >= len(b) || b[i] != '"' {
				return 0, invalid(i)
			}
			if i, err = checkString(b, i); err != nil {
				return 0, err
			}
			if i = skipSpace(b, i); i >= len(b) || b[i] != ':' {
				return 0, invalid(i)
			}
			i = skipSpace(b, i+1)
		}
		if i >= len(b) {
			return 0, invalid(i)
		}
		if i, err = checkValue(b, i, depth); err != nil {
			return 0, err
		}
		if i = skipSpace(b, i); i >= len(b) {
			return 0, invalid(i)
		}
		if b[i] == closing {
			return i + 1, nil
		}
		if b[i] != ',' {
			return 0, invalid(i)
		}
		i = skipSpace(b, i+1)
	}
}

// checkString checks the string that begins with the quote at b[i].
func checkString(b []byte, i int) (int, error) {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, nil
		case c < ' ':
			return 0, invalid(i)
		case c == '\\':
			i++
			if i < len(b) && b[i] == 'u' {
				if len(b)-i < 5 || !isHex(b[i+1:i+5]) {
					return 0, invalid(i)
				}
				i += 4
			} else if i >= len(b) || strings.IndexByte(`"\/bfnrt`, b[i]) < 0 {
				return 0, invalid(i)
			}
		}
	}
	return 0, invalid(i)
}

func isHex(b []byte) bool {
	for _, c := range b {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

// checkNumber checks the number that begins at b[i].
func checkNumber(b []byte, i int) (int, error) {
	digits := func(at int) int {
		for at < len(b) && b[at] >= '0' && b[at] <= '9' {
			at++
		}
		return at
	}
	if b[i] == '-' {
		i++
	}
	end := digits(i)
	if end == i || (b[i] == '0' && end > i+1) {
		return 0, invalid(i)
	}
	if end < len(b) && b[end] == '.' {
		from := end + 1
		if end = digits(from); end == from {
			return 0, invalid(end)
		}
	}
	if end < len(b) && b[end]|0x20 == 'e' {
		from := end + 1
		if from < len(b) && (b[from] == '+' || b[from] == '-') {
			from++
		}
		if end = digits(from); end == from {
			return 0, invalid(end)
		}
	}
	return end, nil
}

func invalid(i int) error { return fmt.Errorf("it is not valid JSON, at byte %d", i) }

// skipValue is the index behind the value at b[i:], which checkValue
// accepted: it only looks for the end.
func skipValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		for depth := 0; ; i++ {
			switch b[i] {
			case '"':
				i = skipString(b, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(b) && !isDelimiter(b[i]) {
		i++
	}
	return i
}

func isDelimiter(c byte) bool {
	switch c {
	case ',', ':', '}', ']', '{', '[', '"', ' ', '\n', '\r', '\t':
		return true
	}
	return false
}

// skipString is the index behind the string that begins with the quote at
// b[i] and that checkString accepted.
func skipString(b []byte, i int) int {
	for i++; ; i++ {
		i += bytes.IndexByte(b[i:], '"')
		slashes := 0
		for b[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i + 1
		}
	}
}

// cursor walks the members of one object or the elements of one array that
// checkValue accepted.
type cursor struct {
	b []byte
	i int
}

// members is a cursor over the object v; over nothing when v is none.
func members(v []byte) cursor { return over(v, '{') }

// elements is a cursor over the array v; over nothing when v is none.
func elements(v []byte) cursor { return over(v, '[') }

func over(v []byte, opening byte) cursor {
	if len(v) == 0 || v[0] != opening {
		return cursor{}
	}
	return cursor{v, 1}
}

// more moves to the next element or key; false at the end.
func (c *cursor) more() bool {
	if c.i == 0 {
		return false
	}
	c.i = skipSpace(c.b, c.i)
	if c.b[c.i] == ',' {
		c.i = skipSpace(c.b, c.i+1)
	}
	return c.b[c.i] != '}' && c.b[c.i] != ']'
}

// value is the element of an array here, without the white space around it.
func (c *cursor) value() []byte {
	start := c.i
	c.i = skipValue(c.b, start)
	return c.b[start:c.i]
}

// member is the member of an object here, its key unescaped.
func (c *cursor) member() (key, value []byte) {
	key = unquote(c.value())
	c.i = skipSpace(c.b, skipSpace(c.b, c.i)+1)
	return key, c.value()
}

// unquote is the text of a JSON string that checkString accepted; it copies
// only where there are escapes. A lone surrogate becomes U+FFFD.
func unquote(s []byte) []byte {
	if bytes.IndexByte(s, '\\') < 0 {
		return s[1 : len(s)-1]
	}
	var text string
	if json.Unmarshal(s, &text) != nil {
		return s[1 : len(s)-1]
	}
	return []byte(text)
}

// unquoteAny is the text of a string, or any other value as it is.
func unquoteAny(v []byte) []byte {
	if isString(v) {
		return unquote(v)
	}
	return v
}

// isNull reports whether v is the literal null.
func isNull(v []byte) bool { return len(v) == 4 && v[0] == 'n' }

// isString reports whether v is a string.
func isString(v []byte) bool { return len(v) > 0 && v[0] == '"' }
