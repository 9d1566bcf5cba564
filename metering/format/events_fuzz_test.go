package format_test

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
)

func FuzzEvents(f *testing.F) {
	for _, s := range []string{"", "data: a\n\n", "data: a\r\n\r\ndata: b\r\r: c\n\n\n", "\r\n\r\r\n\n", "data: x"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		whole, rest, end := split(bytes.NewReader(stream), 0)
		if got := strings.Join(whole, "") + rest; got != string(stream) || end != io.EOF {
			t.Fatalf("%q split into %q, left %q, %v", stream, whole, rest, end)
		}
		parts, restOfParts, _ := split(&stepReader{stream, int(step)%7 + 1}, 0)
		if !reflect.DeepEqual(parts, whole) || restOfParts != rest {
			t.Fatalf("%q split into %q and %q, in steps into %q and %q", stream, whole, rest, parts, restOfParts)
		}
	})
}

// stepReader reads a few bytes at a time.
type stepReader struct {
	b []byte
	n int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b[:min(r.n, len(r.b))])
	r.b = r.b[n:]
	return n, nil
}
