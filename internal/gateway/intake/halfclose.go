package intake

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// A client may close its sending side after its request, and still read the answer. To the
// connection this looks like a client that hung up, and net/http treats both alike. Two things show
// the difference.
//
// Under TLS, a client closes its sending side with a close_notify. A client that hung up also
// closes its socket, and the TCP connection shows that. As long as it does not, the client is
// there.
//
// A closed socket answers with a reset when something is sent to it. So if no part of the answer
// was sent yet, Presence sends an interim answer: 100 Continue, which every client of HTTP/1.1 must
// skip. The request ends if a reset comes. HTTP/1.0 has no interim answers, so there a client that
// closed its sending side counts as gone, and its connection is closed without an answer.

var interim = []byte("HTTP/1.1 100 Continue\r\n\r\n")

const (
	// resetFirst is the first wait for a reset. Each later wait is twice as long, up to resetLast.
	resetFirst, resetLast = time.Millisecond, 200 * time.Millisecond
)

// Presence tells a client that hung up from a client that only closed its sending side. Its mutex
// also keeps an interim answer from being sent once the answer begins.
type Presence struct {
	mu    sync.Mutex
	begun bool // the header of the answer is being sent, or was sent
	waits bool // the client closed its sending side, and was still there when that was noticed
	asked bool // an interim answer was sent
	over  bool // the request has been served
}

// Begin notes that the answer begins.
func (p *Presence) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = true
}

// Watch returns the request with a context that does not end merely because the client closed its
// sending side. stall is how long a write may take. The caller must call end when the request was
// served.
func (p *Presence) Watch(r *http.Request, stall time.Duration) (watched *http.Request, end func()) {
	conn, _ := r.Context().Value(connectionKey{}).(net.Conn)
	if tcpOf(conn) == nil || r.ProtoMajor > 1 {
		return r, func() {} // an HTTP/2 stream itself shows that its client reset it
	}
	base := r.Context()
	ctx, cancel := context.WithCancel(context.WithoutCancel(base))
	asks := r.ProtoAtLeast(1, 1)
	stop := context.AfterFunc(base, func() {
		defer cancel()
		for wait := resetFirst; p.stays(conn, asks, stall); wait = min(2*wait, resetLast) {
			time.Sleep(wait)
		}
	})
	return r.WithContext(ctx), func() {
		stop()
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
		cancel()
	}
}

// stays reports whether a client that closed its sending side still waits for its answer. If asks
// is true, stays may send the client an interim answer, once. stall is how long that write may
// take.
func (p *Presence) stays(conn net.Conn, asks bool, stall time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	tcp := tcpOf(conn)
	switch side := sendingSide(tcp); {
	case p.over || side == sideUnknown, p.begun && !p.waits:
		return false // within an answer, it is far likelier that the client hung up
	case side == sideOpen:
		p.waits = net.Conn(tcp) != conn // under TLS, only a close_notify came
		return p.waits
	case p.asked:
		return true // no reset came
	case p.begun || !asks:
		return false
	}
	// The deadline of the last write may have passed. Nothing else writes now, because the answer
	// has not begun, and cannot begin before mu is unlocked.
	_ = conn.SetWriteDeadline(time.Now().Add(stall))
	_, err := conn.Write(interim)
	p.asked, p.waits = err == nil, err == nil
	return p.asked
}

// side is the state of the direction in which a peer sends, as TCP shows it.
type side int

const (
	sideUnknown side = iota // reset, closed in both directions, or not known
	sideOpen
	sideClosed // closed by the peer, without a reset
)
