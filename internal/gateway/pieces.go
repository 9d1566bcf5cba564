package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"sluice.example/sluice/metering/format"
)

// pieceSize is how many bytes of a long answer are in memory at once.
const pieceSize = 64 << 10

// unaryPieces passes on an answer that is too long to be held back, for a meter that reads the
// answer piece by piece. came is the beginning of the answer, which was held back; the gateway
// keeps no copy of the rest. A client that hangs up within the answer pays for the whole answer,
// because the backend had generated it before it sent the first byte. The gateway reads the rest
// for its usage, as far as it comes within unaryGrace.
func (c *call) unaryPieces(resp *http.Response, m format.Pieces, came *bytes.Buffer) *ending {
	first := m.Piece(came.Bytes())
	if m.Failed() {
		return c.noAnswer(errNoAnswer, resp.StatusCode)
	}
	c.hold.Progress(m.Running()) // a sweep can charge this if the gateway dies
	c.beginLong(resp)
	*came = bytes.Buffer{} // frees came; first has the bytes until they are written
	end, blame := c.passPieces(resp.Body, m, first)
	if end != format.Complete {
		c.cancel(context.Canceled)
	}
	return c.endLong(end, blame, resp.StatusCode)
}

// passPieces writes first and then the rest of body, and returns how and why the answer ended.
// After the client hung up, passPieces reads on and writes no more.
func (c *call) passPieces(body io.Reader, m format.Pieces, first []byte) (format.End, error) {
	gone := c.passPiece(m, first)
	room := make([]byte, pieceSize)
	for {
		n, err := body.Read(room)
		c.engine.hear()
		if n > 0 {
			piece := m.Piece(room[:n])
			if m.Failed() { // the client gets nothing of this piece, and pays for nothing in it
				return format.BackendCut, errNoAnswer
			}
			gone = gone || c.passPiece(m, piece)
		}
		switch {
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

// passPiece writes a metered piece to the client, and reports whether the client has hung up.
func (c *call) passPiece(m format.Pieces, piece []byte) (gone bool) {
	n, err := c.x.Write(piece)
	c.delivered += int64(n)
	if err != nil {
		c.left() // an HTTP/1 server learns of the hang-up only later
		return true
	}
	m.Delivered()
	return false
}
