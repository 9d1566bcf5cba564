package gateway

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestHoldBackTakesNoMoreThanItsLimit: holdBack reads the beginning of an answer, and takes no more
// memory than the limit.
func TestHoldBackTakesNoMoreThanItsLimit(t *testing.T) {
	const limit = 1 << 20
	for _, size := range []int{0, 1, 100, limit/2 - 513, limit/2 - 512, limit/2 - 511, limit / 2, limit - 1, limit, limit + 1, limit + 2, 3 * limit} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "in halves": iotest.HalfReader, "with the error": iotest.DataErrReader} {
			for _, known := range []bool{false, true} {
				answer := strings.Repeat("0123456789", size/10+1)[:size]
				var buf bytes.Buffer
				if known && size > 0 && size <= limit {
					buf.Grow(size + bytes.MinRead)
				}
				if err := holdBack(&buf, wrap(strings.NewReader(answer)), limit); err != nil {
					t.Fatal(err)
				}
				if want := answer[:min(size, limit+1)]; buf.String() != want {
					t.Errorf("%d bytes, %s: %d were read", size, name, buf.Len())
				}
				if room := buf.Cap(); room > limit+16<<10 {
					t.Errorf("%d bytes, %s: the buffer has room for %d", size, name, room)
				}
			}
		}
	}
	var small bytes.Buffer
	if err := holdBack(&small, strings.NewReader("0123456789"), 4); err != nil || small.String() != "01234" {
		t.Errorf("%q, %v", small.String(), err)
	}
	if err := holdBack(new(bytes.Buffer), iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("01"))), limit); err != iotest.ErrTimeout {
		t.Errorf("a broken answer: %v", err)
	}
}
