package client

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// followBody ends the attempt once the body of its answer was read to its end, or once it is
// certain that nobody will read it to its end.
func (t *trip) followBody(resp *http.Response) {
	kind := resp.Header.Get("Content-Type")
	b := &followed{ReadCloser: resp.Body, t: t, left: resp.ContentLength,
		stream: strings.HasPrefix(kind, "text/event-stream"), object: strings.HasPrefix(kind, "application/json")}
	// A body without a length or chunks ends when the connection ends. A connection may also end
	// because of a failure, so its end does not prove that the body is complete.
	b.delimited = resp.ContentLength >= 0 || resp.ProtoMajor >= 2 || resp.Uncompressed || slices.Contains(resp.TransferEncoding, "chunked")
	if resp.ContentLength == 0 {
		b.finish(true)
	}
	resp.Body = b
}

// followed is the body of an answer that the gateway may have charged.
type followed struct {
	io.ReadCloser
	t         *trip
	stream    bool // an event stream; it is complete after its last event
	object    bool // a JSON document; it is complete after its last byte
	delimited bool // the protocol marks the end of the body

	mu   sync.Mutex // needed because a body may be closed while it is read
	over bool       // the end was noted
	left int64      // bytes still to come; negative: not known
	last byte       // last byte that is not white space
	tail []byte     // only of a stream: bytes that may be the beginning of doneLine
	done bool       // the last event of the stream came
}

// doneLine begins the last event of a stream. It cannot occur within an event, because JSON writes
// a line end as an escape.
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

// Close ends the attempt as not read to its end, unless Read has noted the end before. A reader of
// events stops at the last event, and a reader of documents stops at the length, so Read notes the
// end in these cases.
func (b *followed) Close() error {
	b.mu.Lock()
	b.finish(false)
	b.mu.Unlock()
	return b.ReadCloser.Close()
}

// see records the bytes that came.
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
		b.tail = []byte{'\n'} // so that doneLine also matches the first line
	}
	b.tail = append(b.tail, p...)
	b.done = bytes.Contains(b.tail, []byte(doneLine))
	b.tail = append(b.tail[:0], b.tail[max(0, len(b.tail)-len(doneLine)+1):]...)
}

// finish ends the attempt. Only the first call has an effect.
func (b *followed) finish(well bool) {
	if b.over {
		return
	}
	b.over = true
	b.t.c.calls.end(b.t.attempt, well, b.t.c.cfg.Now())
}
