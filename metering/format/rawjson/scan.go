package rawjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxDepth bounds the nesting of JSON that is taken apart. Deep tool schemas
// have a depth of about 20.
const MaxDepth = 128

// SkipSpace is the index of the first byte at or after i that is not JSON
// white space.
func SkipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// CheckDocument checks that b is one JSON object in valid UTF-8, nested at
// most MaxDepth deep, with nothing behind it.
func CheckDocument(b []byte) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("it is not valid UTF-8")
	}
	start := SkipSpace(b, 0)
	if start == len(b) {
		return fmt.Errorf("it is empty")
	}
	if b[start] != '{' {
		return fmt.Errorf("it is not a JSON object")
	}
	end, err := CheckValue(b, start, MaxDepth)
	if err != nil {
		return err
	}
	if end = SkipSpace(b, end); end != len(b) {
		return fmt.Errorf("there is data after the JSON object, at byte %d", end)
	}
	return nil
}

// CheckValue checks the JSON value at b[i:] by the grammar of RFC 8259 and
// returns the index behind it. i is within b.
func CheckValue(b []byte, i, depth int) (int, error) {
	switch c := b[i]; {
	case c == '"':
		return CheckString(b, i)
	case c == '{' || c == '[':
		if depth == 0 {
			return 0, fmt.Errorf("it is nested deeper than %d levels, at byte %d", MaxDepth, i)
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
	return 0, Invalid(i)
}

// checkContainer checks the object or array that begins at b[i].
func checkContainer(b []byte, i, depth int) (int, error) {
	object := b[i] == '{'
	closing := b[i] + 2 // ']' and '}' follow their opening by two
	i = SkipSpace(b, i+1)
	if i < len(b) && b[i] == closing {
		return i + 1, nil
	}
	for {
		var err error
		if object {
			if i >= len(b) || b[i] != '"' {
				return 0, Invalid(i)
			}
			if i, err = CheckString(b, i); err != nil {
				return 0, err
			}
			if i = SkipSpace(b, i); i >= len(b) || b[i] != ':' {
				return 0, Invalid(i)
			}
			i = SkipSpace(b, i+1)
		}
		if i >= len(b) {
			return 0, Invalid(i)
		}
		if i, err = CheckValue(b, i, depth); err != nil {
			return 0, err
		}
		if i = SkipSpace(b, i); i >= len(b) {
			return 0, Invalid(i)
		}
		if b[i] == closing {
			return i + 1, nil
		}
		if b[i] != ',' {
			return 0, Invalid(i)
		}
		i = SkipSpace(b, i+1)
	}
}

// CheckString checks the string that begins with the quote at b[i].
func CheckString(b []byte, i int) (int, error) {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, nil
		case c < ' ':
			return 0, Invalid(i)
		case c == '\\':
			i++
			if i < len(b) && b[i] == 'u' {
				if len(b)-i < 5 || !isHex(b[i+1:i+5]) {
					return 0, Invalid(i)
				}
				i += 4
			} else if i >= len(b) || strings.IndexByte(`"\/bfnrt`, b[i]) < 0 {
				return 0, Invalid(i)
			}
		}
	}
	return 0, Invalid(i)
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
		return 0, Invalid(i)
	}
	if end < len(b) && b[end] == '.' {
		from := end + 1
		if end = digits(from); end == from {
			return 0, Invalid(end)
		}
	}
	if end < len(b) && b[end]|0x20 == 'e' {
		from := end + 1
		if from < len(b) && (b[from] == '+' || b[from] == '-') {
			from++
		}
		if end = digits(from); end == from {
			return 0, Invalid(end)
		}
	}
	return end, nil
}

func Invalid(i int) error { return fmt.Errorf("it is not valid JSON, at byte %d", i) }

// skipValue is the index behind the value at b[i:], which CheckValue
// accepted: it only looks for the end.
func skipValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return SkipString(b, i)
	case '{', '[':
		for depth := 0; ; i++ {
			switch b[i] {
			case '"':
				i = SkipString(b, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(b) && !IsDelimiter(b[i]) {
		i++
	}
	return i
}

func IsDelimiter(c byte) bool {
	switch c {
	case ',', ':', '}', ']', '{', '[', '"', ' ', '\n', '\r', '\t':
		return true
	}
	return false
}

// SkipString is the index behind the string that begins with the quote at
// b[i] and that CheckString accepted.
func SkipString(b []byte, i int) int {
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

// Cursor walks the members of one object or the elements of one array that
// CheckValue accepted.
type Cursor struct {
	b []byte
	i int
}

// Members is a cursor over the object v; over nothing when v is none.
func Members(v []byte) Cursor { return over(v, '{') }

// Elements is a cursor over the array v; over nothing when v is none.
func Elements(v []byte) Cursor { return over(v, '[') }

func over(v []byte, opening byte) Cursor {
	if len(v) == 0 || v[0] != opening {
		return Cursor{}
	}
	return Cursor{v, 1}
}

// More moves to the next element or key; false at the end.
func (c *Cursor) More() bool {
	if c.i == 0 {
		return false
	}
	c.i = SkipSpace(c.b, c.i)
	if c.b[c.i] == ',' {
		c.i = SkipSpace(c.b, c.i+1)
	}
	return c.b[c.i] != '}' && c.b[c.i] != ']'
}

// At is where the cursor is: the index of the next element or key, or of what stands
// before or behind it.
func (c *Cursor) At() int { return c.i }

// Since is what stands between the index start and the cursor.
func (c *Cursor) Since(start int) []byte { return c.b[start:c.i] }

// Value is the element of an array here, without the white space around it.
func (c *Cursor) Value() []byte {
	start := c.i
	c.i = skipValue(c.b, start)
	return c.b[start:c.i]
}

// Member is the member of an object here, its key unescaped.
func (c *Cursor) Member() (key, value []byte) {
	key = Unquote(c.Value())
	c.i = SkipSpace(c.b, SkipSpace(c.b, c.i)+1)
	return key, c.Value()
}

// Unquote is the text of a JSON string that CheckString accepted; it copies
// only where there are escapes. A lone surrogate becomes U+FFFD.
func Unquote(s []byte) []byte {
	if bytes.IndexByte(s, '\\') < 0 {
		return s[1 : len(s)-1]
	}
	var text string
	if json.Unmarshal(s, &text) != nil {
		return s[1 : len(s)-1]
	}
	return []byte(text)
}

// UnquoteAny is the text of a string, or any other value as it is.
func UnquoteAny(v []byte) []byte {
	if IsString(v) {
		return Unquote(v)
	}
	return v
}

// IsNull reports whether v is the literal null.
func IsNull(v []byte) bool { return len(v) == 4 && v[0] == 'n' }

// IsString reports whether v is a string.
func IsString(v []byte) bool { return len(v) > 0 && v[0] == '"' }

// IsScalar reports whether v is neither an object nor an array.
func IsScalar(v []byte) bool { return v[0] != '{' && v[0] != '[' }
