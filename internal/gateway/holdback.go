package gateway

import (
	"bytes"
	"io"
)

// holdBack reads the beginning of an answer into buf: up to limit bytes, and one more
// where it is longer. Where half of the limit does not hold it, the buffer grows to the
// limit at once. Doubling would take twice the limit for a moment, and leave as much to
// be collected, for each of the long answers that come at the same time.
func holdBack(buf *bytes.Buffer, answer io.Reader, limit int64) error {
	half := limit/2 - bytes.MinRead // what a buffer of half the limit can be filled with
	if _, err := buf.ReadFrom(io.LimitReader(answer, half)); err != nil || int64(buf.Len()) < half {
		return err
	}
	if buf.Available() <= bytes.MinRead { // else its length was known, and it has the room
		buf.Grow(int(limit) + 1 + bytes.MinRead - buf.Len())
	}
	_, err := buf.ReadFrom(io.LimitReader(answer, limit+1-int64(buf.Len())))
	return err
}
