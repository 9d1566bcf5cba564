package rawjson

import (
	"bytes"
	"unicode/utf8"
)

// TextBytes is the number of UTF-8 bytes that the inside of a JSON string stands
// for; of any other JSON, its length with the strings written in UTF-8.
func TextBytes(raw []byte) int64 {
	n := int64(len(raw))
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return n
		}
		if raw[i+1] != 'u' {
			n--
			raw = raw[i+2:]
			continue
		}
		r := HexRune(raw[i+2 : i+6])
		raw = raw[i+6:]
		if r >= 0xd800 && r < 0xdc00 && len(raw) >= 6 && raw[0] == '\\' && raw[1] == 'u' {
			if low := HexRune(raw[2:6]); low >= 0xdc00 && low < 0xe000 {
				raw = raw[6:]
				n -= 12 - 4
				continue
			}
		}
		size := utf8.RuneLen(r)
		if size < 0 {
			size = 3 // a lone surrogate becomes U+FFFD
		}
		n -= int64(6 - size)
	}
}

// HexRune is the number that four hexadecimal digits stand for.
func HexRune(b []byte) rune {
	var r rune
	for _, c := range b {
		switch {
		case c <= '9':
			r = r<<4 | rune(c-'0')
		default:
			r = r<<4 | rune(c|0x20-'a'+10)
		}
	}
	return r
}

// bom is the byte order mark of UTF-8, which some editors and shells put before
// a document.
var bom = []byte("\xef\xbb\xbf")

// TrimBOM is a body without the byte order mark that it may begin with.
func TrimBOM(body []byte) []byte { return bytes.TrimPrefix(body, bom) }
