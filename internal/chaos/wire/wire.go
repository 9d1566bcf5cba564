// Package wire is the way of connections through the test's process: it
// forwards a loopback port to a server, and can be cut, frozen and pointed at
// another server.
package wire

import (
	"io"
	"net"
	"sync"
)

// Wire forwards one loopback port. Safe for concurrent use.
type Wire struct {
	Address string // host:port to connect to

	listener net.Listener

	mu              sync.Mutex
	network, target string
	down            bool
	hung, mute      chan struct{} // closed when bytes flow; when answers do
	conns           map[net.Conn]struct{}
}

// New forwards a fresh loopback port to a server until Close.
func New(network, target string) (*Wire, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &Wire{Address: l.Addr().String(), network: network, target: target, listener: l, hung: make(chan struct{}),
		mute: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(w.hung)
	close(w.mute)
	go w.accept()
	return w, nil
}

// Close ends the wire with all of its connections.
func (w *Wire) Close() {
	w.listener.Close()
	w.Cut()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flow()
}

func (w *Wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		go w.join(near)
	}
}

func (w *Wire) join(near net.Conn) {
	defer near.Close()
	w.mu.Lock()
	network, target := w.network, w.target
	w.mu.Unlock()
	far, err := net.Dial(network, target)
	if err != nil {
		return
	}
	defer far.Close()
	if !w.admit(target, near, far) {
		return
	}
	defer w.dismiss(near, far)
	done := make(chan struct{}, 2)
	go func() {
		w.forward(near, far, false)
		done <- struct{}{}
	}()
	go func() {
		w.forward(far, near, true)
		done <- struct{}{}
	}()
	<-done
}

// admit takes note of a pair of connections, unless the wire was cut or pointed
// elsewhere while they were made.
func (w *Wire) admit(target string, conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down || target != w.target {
		return false
	}
	for _, c := range conns {
		w.conns[c] = struct{}{}
	}
	return true
}

func (w *Wire) dismiss(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		delete(w.conns, c)
	}
}

func (w *Wire) forward(from io.Reader, to io.Writer, answers bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		w.mu.Lock()
		flows, speaks := w.hung, w.mute
		w.mu.Unlock()
		<-flows
		if answers {
			<-speaks
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Cut ends all connections and lets no new one through.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	w.drop()
}

// drop ends all connections; w.mu is held.
func (w *Wire) drop() {
	for c := range w.conns {
		c.Close()
	}
}

// Hang keeps all connections and lets nothing through, as a network does that
// loses every packet.
func (w *Wire) Hang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	block(&w.hung)
}

// Mute lets through what is asked, and no answers. With a Cut after it, the
// server has done what nobody hears of.
func (w *Wire) Mute() {
	w.mu.Lock()
	defer w.mu.Unlock()
	block(&w.mute)
}

func block(flows *chan struct{}) {
	select {
	case <-*flows:
		*flows = make(chan struct{})
	default:
	}
}

// Heal ends all of them.
func (w *Wire) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
	w.flow()
}

// flow lets bytes through again; w.mu is held.
func (w *Wire) flow() {
	for _, c := range []chan struct{}{w.hung, w.mute} {
		select {
		case <-c:
		default:
			close(c)
		}
	}
}

// Point ends all connections and forwards new ones to another server.
func (w *Wire) Point(network, target string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.network, w.target = network, target
	w.drop()
}
