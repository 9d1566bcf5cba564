package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"sluice.example/sluice/metering/format"
)

// pieceSize is how much of a long answer is in memory at once, in bytes.
const pieceSize = 64 << 10

// unaryPieces passes on an answer that is too long to be held back, for a meter that
// reads it on the way: beyond UnaryHoldBack, which came already, no copy of it is kept.
// A client that hangs up within it pays for all of it, because the backend had made all
// of it before it sent the first byte. The rest is read for its usage, as long as it
// comes within unaryGrace.
func (c *call) unaryPieces(resp *http.Response, m format.Pieces, came *bytes.Buffer) *ending {
	first := m.Piece(came.Bytes())
	if m.Failed() {
		return c.noAnswer(errNoAnswer, resp.StatusCode)
	}
	c.hold.Progress(m.Running()) // what the backend did is not lost with this gateway
	c.beginLong(resp)
	*came = bytes.Buffer{} // first has its memory, until it was passed on
	end, blame := c.passPieces(resp.Body, m, first)
	if end != format.Complete {
		c.cancel(context.Canceled)
	}
	return c.endLong(end, blame, resp.StatusCode)
}

// passPieces writes what came already and the rest, and says how it ended. What comes
// after the client hung up is only read.
func (c *call) passPieces(body io.Reader, m format.Pieces, first []byte) (format.End, error) {
	gone := c.passPiece(m, first)
	room := make([]byte, pieceSize)
	for {
		n, err := body.Read(room)
		c.engine.hear()
		if n > 0 {
			piece := m.Piece(room[:n])
			gone = gone || c.passPiece(m, piece)
		}
		switch {
		case m.Failed():
			return format.BackendCut, errNoAnswer
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			if err := m.PiecesEnd(); err != nil {
				return format.BackendCut, err
			}
		}
		return c.longEnd(err, gone)
	}
}

// passPiece writes a piece that was metered, and reports whether the client is gone.
func (c *call) passPiece(m format.Pieces, piece []byte) (gone bool) {
	n, err := c.x.Write(piece)
	c.delivered += int64(n)
	if err != nil {
		c.left() // an HTTP/1 server notices only after its handler has read
		return true
	}
	m.Delivered()
	return false
}
