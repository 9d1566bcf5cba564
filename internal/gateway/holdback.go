package gateway

import (
	"bytes"
	"io"
)

// holdBack reads the beginning of an answer into buf: at most limit bytes, or limit+1 bytes of a longer
// answer. If half of the limit is too small for the answer, the buffer grows to the limit at once.
// Growing by doubling would take twice the limit for a moment, and leave as much garbage, for each of
// the long answers that come at the same time.
func holdBack(buf *bytes.Buffer, answer io.Reader, limit int64) error {
	half := limit/2 - bytes.MinRead // the bytes that fill a buffer of half the limit
	if _, err := buf.ReadFrom(io.LimitReader(answer, half)); err != nil || int64(buf.Len()) < half {
		return err
	}
	if buf.Available() <= bytes.MinRead { // otherwise the length was known, and the buffer has room
		buf.Grow(int(limit) + 1 + bytes.MinRead - buf.Len())
	}
	_, err := buf.ReadFrom(io.LimitReader(answer, limit+1-int64(buf.Len())))
	return err
}
