package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// A client may close its sending side once its request is out, and read on: to
// the connection that looks like a client that hung up. net/http takes both for
// the latter. The difference shows when something is sent: who hung up answers
// with a reset. So where nothing of the answer was sent yet, an interim answer
// (100 Continue, which every client of HTTP/1.1 has to skip) is; and the request
// ends when its reset comes.

var interim = []byte("HTTP/1.1 100 Continue\r\n\r\n")

const (
	// resetFirst and resetLast are how long the first and the later waits for a
	// reset are; they double in between.
	resetFirst, resetLast = time.Millisecond, 200 * time.Millisecond
)

// presence tells a client that hung up from one that only sends no more. It
// guards the moment at which an answer begins.
type presence struct {
	mu    sync.Mutex
	begun bool // the header of the answer is being sent, or was
	over  bool // the request has been served
}

// begin notes that the answer begins.
func (p *presence) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = true
}

// watch gives the request a context that does not end with the client's sending
// side alone. The returned function ends the watch.
func (x *exchange) watch() (end func()) {
	conn := connectionOf(x.r)
	if conn == nil || x.r.TLS != nil || !x.r.ProtoAtLeast(1, 1) || x.r.ProtoMajor > 1 {
		return func() {} // there is no way to ask
	}
	base := x.r.Context()
	ctx, cancel := context.WithCancel(context.WithoutCancel(base))
	x.r = x.r.WithContext(ctx)
	stop := context.AfterFunc(base, func() {
		defer cancel()
		x.presence.outlast(conn)
	})
	return func() {
		stop()
		x.presence.mu.Lock()
		x.presence.over = true
		x.presence.mu.Unlock()
		cancel()
	}
}

// outlast returns when the client is gone or the request was served.
func (p *presence) outlast(conn *net.TCPConn) {
	p.mu.Lock()
	gone := p.begun || p.over || !halfClosed(conn)
	if !gone {
		_, err := conn.Write(interim)
		gone = err != nil
	}
	p.mu.Unlock()
	for wait := resetFirst; !gone; wait = min(2*wait, resetLast) {
		time.Sleep(wait)
		p.mu.Lock()
		gone = p.over || !halfClosed(conn)
		p.mu.Unlock()
	}
}

// Bounds on reading, and throwing away, what a refused client is still sending.
// Closed at once, the connection would be reset, and the client never see why.
const (
	linger         = time.Second     // without a byte of it
	lingerTooLarge = 5 * time.Second // in all, for a body that is merely too large; for others linger
	lingerBytes    = 64 << 20
)

// dismiss sends a problem to a client whose connection is not kept, and waits a
// moment for what that client is still sending.
func (x *exchange) dismiss(p *problem) {
	_ = x.control.EnableFullDuplex() // the answer does not wait for the body
	p.writeAs(x, dialectOf(x.r))
	until := time.Now().Add(linger)
	if p.Status == http.StatusRequestEntityTooLarge {
		until = time.Now().Add(lingerTooLarge)
	}
	_ = x.control.SetReadDeadline(time.Now().Add(linger))
	if x.r.Body == nil || x.r.Header.Get("Expect") != "" || x.FlushError() != nil {
		return // a client that asks first has sent nothing
	}
	for left := int64(lingerBytes); left > 0 && time.Now().Before(until); {
		n, err := io.CopyN(io.Discard, x.r.Body, min(left, 1<<20))
		if err != nil {
			return
		}
		left -= n
		_ = x.control.SetReadDeadline(time.Now().Add(min(linger, time.Until(until))))
	}
}
