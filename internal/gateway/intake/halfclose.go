package intake

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// A client may close its sending side once its request is out, and read on: to
// the connection that looks like a client that hung up. net/http takes both for
// the latter. Two things show the difference.
//
// Under TLS the sending side ends with a close_notify. A client that hung up closes
// its socket too, and the TCP connection says so; until it does, the client is there.
//
// A closed socket answers with a reset when something is sent to it. So where
// nothing of the answer was sent yet, an interim answer (100 Continue, which every
// client of HTTP/1.1 has to skip) is; and the request ends when its reset comes.
// HTTP/1.0 knows no interim answer. There a client that closed its sending side
// counts as gone: its connection is closed without an answer.

var interim = []byte("HTTP/1.1 100 Continue\r\n\r\n")

const (
	// resetFirst and resetLast are how long the first and the later waits for a
	// reset are; they double in between.
	resetFirst, resetLast = time.Millisecond, 200 * time.Millisecond
)

// Presence tells a client that hung up from one that only sends no more. It
// guards the moment at which an answer begins.
type Presence struct {
	mu    sync.Mutex
	begun bool // the header of the answer is being sent, or was
	waits bool // the client sends no more and was not gone when that was noticed
	asked bool // an interim answer was sent
	over  bool // the request has been served
}

// Begin notes that the answer begins.
func (p *Presence) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = true
}

// Watch gives the request a context that does not end with the client's sending
// side alone. stall is how long a write may take. end ends the watch.
func (p *Presence) Watch(r *http.Request, stall time.Duration) (watched *http.Request, end func()) {
	conn, _ := r.Context().Value(connectionKey{}).(net.Conn)
	if tcpOf(conn) == nil || r.ProtoMajor > 1 {
		return r, func() {} // of HTTP/2, a stream tells by itself that its client reset it
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

// stays says whether a client that sends no more still waits for its answer. It
// asks the client once, if asks allows it; stall is how long that may take.
func (p *Presence) stays(conn net.Conn, asks bool, stall time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	tcp := tcpOf(conn)
	switch side := sendingSide(tcp); {
	case p.over || side == sideUnknown, p.begun && !p.waits:
		return false // within an answer, a client that hangs up is far likelier
	case side == sideOpen:
		p.waits = net.Conn(tcp) != conn // TLS: a close_notify came, and nothing else
		return p.waits
	case p.asked:
		return true // no reset came
	case p.begun || !asks:
		return false
	}
	// The deadline of the last write may have passed. Nothing else writes now: the
	// answer has not begun, and cannot before mu is free.
	_ = conn.SetWriteDeadline(time.Now().Add(stall))
	_, err := conn.Write(interim)
	p.asked, p.waits = err == nil, err == nil
	return p.asked
}

// side is what a peer has done with the direction in which it sends, by TCP.
type side int

const (
	sideUnknown side = iota // reset, closed in both directions, or not to be known
	sideOpen
	sideClosed // and the connection was not reset
)
