package client

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// followBody ends the attempt when the body of its answer was read to its end, or
// will not be.
func (t *trip) followBody(resp *http.Response) {
	kind := resp.Header.Get("Content-Type")
	b := &followed{ReadCloser: resp.Body, t: t, left: resp.ContentLength,
		stream: strings.HasPrefix(kind, "text/event-stream"), object: strings.HasPrefix(kind, "application/json")}
	// Any other body ends where the connection does, and the connection may end for
	// any reason.
	b.delimited = resp.ContentLength >= 0 || resp.ProtoMajor >= 2 || resp.Uncompressed || slices.Contains(resp.TransferEncoding, "chunked")
	if resp.ContentLength == 0 {
		b.finish(true)
	}
	resp.Body = b
}

// followed is the body of an answer that may be charged.
type followed struct {
	io.ReadCloser
	t         *trip
	stream    bool // of events, known to be whole by the last of them
	object    bool // a document, known to be whole by its last byte
	delimited bool // the connection's end is told from the body's

	mu   sync.Mutex // a body may be closed while it is read
	over bool       // the end is noted
	left int64      // bytes to come; negative: not known
	last byte       // that is no space
	tail []byte     // of a stream: what may be the beginning of doneLine
	done bool       // a stream's last event came
}

// doneLine begins the last event of a stream. Within an event it cannot stand,
// because JSON writes a line end as an escape.
const doneLine = "\ndata: [DONE]"

func (b *followed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.see(p[:n])
	switch {
	case b.left == 0 || b.done:
		b.finish(true)
	case err == io.EOF:
		b.finish(b.left < 0 && (b.delimited || !b.stream && (!b.object || b.last == '}')))
	case err != nil:
		b.finish(false)
	}
	return n, err
}

// Close ends the attempt without its end. Readers of events stop at the last one,
// and readers of documents at the length: neither needs the end of the body.
func (b *followed) Close() error {
	b.mu.Lock()
	b.finish(false)
	b.mu.Unlock()
	return b.ReadCloser.Close()
}

// see notes what came.
func (b *followed) see(p []byte) {
	if b.left >= 0 {
		b.left = max(0, b.left-int64(len(p)))
	}
	if text := bytes.TrimRight(p, " \t\r\n"); len(text) > 0 {
		b.last = text[len(text)-1]
	}
	if !b.stream || b.done {
		return
	}
	if b.tail == nil {
		b.tail = []byte{'\n'} // before the first line
	}
	b.tail = append(b.tail, p...)
	b.done = bytes.Contains(b.tail, []byte(doneLine))
	b.tail = append(b.tail[:0], b.tail[max(0, len(b.tail)-len(doneLine)+1):]...)
}

// finish notes the end once.
func (b *followed) finish(well bool) {
	if b.over {
		return
	}
	b.over = true
	b.t.c.calls.end(b.t.attempt, well, b.t.c.cfg.Now())
}
