package intake

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Kernel buffers of a buyer's connection, in bytes; Linux takes twice as much.
// By itself the kernel lets them grow to some MiB, in which an answer that
// nobody reads would count as delivered.
const (
	sendBuffer    = 128 << 10
	receiveBuffer = 256 << 10
)

// Connections bounds the connections of one server, all together and for each
// address, so that one caller cannot take the file descriptors of all. Its method
// state is the server's ConnState hook.
type Connections struct {
	refused atomic.Int64

	mu         sync.Mutex
	most, each int
	trusted    []netip.Prefix // proxies stand for many callers: only most counts
	open       map[net.Conn]netip.Prefix
	counts     map[netip.Prefix]int // open connections by address; none are zero
}

// NewConnections bounds connections as Limit does.
func NewConnections(most, each int, trusted []netip.Prefix) *Connections {
	c := &Connections{open: map[net.Conn]netip.Prefix{}, counts: map[netip.Prefix]int{}}
	c.Limit(most, each, trusted)
	return c
}

// Limit sets the bounds: most are open at once (zero: 10,000), each of one IPv4 address
// or IPv6 /64 that is no trusted proxy (zero: a quarter). Those that are open stay.
func (c *Connections) Limit(most, each int, trusted []netip.Prefix) {
	if most <= 0 {
		most = 10_000
	}
	if each <= 0 {
		each = max(most/4, 1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most, c.each, c.trusted = most, each, trusted
}

// state is told of every new and closed connection. One beyond the limits is
// closed at once: left in the backlog, those who pay would wait behind it.
func (c *Connections) state(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if !c.add(conn) {
			c.refused.Add(1)
			_ = conn.Close() // the server finds out at its first read
			return
		}
		limitBuffers(conn)
	case http.StateClosed, http.StateHijacked:
		c.remove(conn)
	}
}

func (c *Connections) add(conn net.Conn) bool {
	peer := peerAddress(conn.RemoteAddr().String())
	bits := peer.BitLen()
	if peer.Is6() {
		bits = 64 // one customer
	}
	from, err := peer.Prefix(bits)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.most || (c.counts[from] >= c.each && !trusts(c.trusted, peer)) {
		return false
	}
	c.open[conn] = from
	c.counts[from]++
	return true
}

func (c *Connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, counted := c.open[conn]
	if !counted {
		return
	}
	delete(c.open, conn)
	if c.counts[from]--; c.counts[from] == 0 {
		delete(c.counts, from)
	}
}

// limitBuffers bounds what the kernel keeps for a connection. Where that is not
// possible, the kernel's own bounds stay.
func limitBuffers(conn net.Conn) {
	if tcp := tcpOf(conn); tcp != nil {
		_ = tcp.SetWriteBuffer(sendBuffer)
		_ = tcp.SetReadBuffer(receiveBuffer)
	}
}

// tcpOf finds the TCP connection below TLS; nil: there is none.
func tcpOf(conn net.Conn) *net.TCPConn {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	tcp, _ := conn.(*net.TCPConn)
	return tcp
}

type connectionKey struct{}

// withConnection is the server's ConnContext hook.
func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// ConnectionOf is the connection of a request; nil: it is not known.
func ConnectionOf(r *http.Request) *net.TCPConn {
	conn, _ := r.Context().Value(connectionKey{}).(net.Conn)
	return tcpOf(conn)
}

// Places bounds the requests being served at once: one HTTP/2 connection may
// carry many. Callers without a token get three quarters of it at most.
type Places struct {
	all, strangers         atomic.Int64
	most, mostForStrangers atomic.Int64
}

// NewPlaces bounds them to most.
func NewPlaces(most int) *Places {
	p := new(Places)
	p.Limit(most)
	return p
}

// Limit sets the bound; requests that are being served go on.
func (p *Places) Limit(most int) {
	p.most.Store(int64(most))
	p.mostForStrangers.Store(int64(most) - int64(most)/4)
}

// Take takes a place; give must follow if it did.
func (p *Places) Take(holder bool) bool {
	if !holder && p.strangers.Add(1) > p.mostForStrangers.Load() {
		p.strangers.Add(-1)
		return false
	}
	if p.all.Add(1) > p.most.Load() {
		p.Give(holder)
		return false
	}
	return true
}

// Taken is how many are.
func (p *Places) Taken() int64 { return p.all.Load() }

// Give gives a place back.
func (p *Places) Give(holder bool) {
	p.all.Add(-1)
	if !holder {
		p.strangers.Add(-1)
	}
}
