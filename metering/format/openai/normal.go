package openai

import (
	"bytes"

	"golang.org/x/text/unicode/norm"

	"sluice.example/sluice/metering/format/rawjson"
)

// textSize is how long a text is, or both texts of a pair together.
type textSize struct {
	bytes int64 // in UTF-8: for estimates
	most  int64 // in UTF-8, after a tokenizer has normalised it: for bounds
}

// sizeOf is the size of the text of a JSON string. All APIs measure texts with it.
func sizeOf(v []byte) textSize {
	raw := v[1 : len(v)-1]
	n := rawjson.TextBytes(raw)
	if bytes.Contains(raw, []byte(`\u`)) { // the tokenizer reads what the escapes stand for
		raw = rawjson.Unquote(v)
	}
	return textSize{bytes: n, most: n + grows(raw)}
}

// grows bounds by how many bytes a text grows when a tokenizer normalises it, to form C as
// many do, or to form KC as those of most models for embeddings do. Form C has at most
// three times the bytes, and form KC eleven times. A text grows only behind the first
// character that is not in form KC already, and by no more than its characters have
// bytes when they are taken apart, because putting them together again adds none. Of
// the escapes of JSON, only those of one character may be in raw.
func grows(raw []byte) (n int64) {
	if isASCII(raw) {
		return 0
	}
	for i := norm.NFKC.QuickSpan(raw); i < len(raw); {
		if raw[i] < 0x80 {
			i++
			continue
		}
		p := norm.NFKC.Properties(raw[i:])
		size := max(1, p.Size())
		n += int64(max(0, len(p.Decomposition())-size))
		i += size
	}
	return n
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
