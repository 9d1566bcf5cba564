package intake

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
)

// These are the kernel's buffers for a connection to a client, in bytes. Linux takes twice as much.
// Without them the kernel lets its buffers grow to several MiB, and an answer in these buffers
// would count as delivered although nobody reads it.
const (
	sendBuffer    = 128 << 10
	receiveBuffer = 256 << 10
)

// Connections bounds the open connections of one server, in all and for each address, so that one
// caller cannot take the file descriptors of all callers. Its method state is the server's
// ConnState hook.
type Connections struct {
	refused atomic.Int64

	mu         sync.Mutex
	most, each int
	trusted    []netip.Prefix // not bounded by each, because a proxy serves many callers
	open       map[net.Conn]netip.Prefix
	counts     map[netip.Prefix]int // open connections by address; an entry is never 0
}

// NewConnections returns Connections with the bounds of Limit.
func NewConnections(most, each int, trusted []netip.Prefix) *Connections {
	c := &Connections{open: map[net.Conn]netip.Prefix{}, counts: map[netip.Prefix]int{}}
	c.Limit(most, each, trusted)
	return c
}

// Limit changes the bounds. most is how many connections may be open at once; 0 stands for 10,000.
// each is how many of them may come from one IPv4 address or IPv6 /64 that is not a trusted proxy;
// 0 stands for a quarter of most. Connections that are open stay open.
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

// state gets every new and every closed connection. It closes a connection beyond the bounds at
// once: otherwise the connection would wait in the kernel's backlog, and clients who pay would wait
// behind it.
func (c *Connections) state(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if !c.add(conn) {
			c.refused.Add(1)
			_ = conn.Close() // the server notices at its first read
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
		bits = 64 // a /64 is one customer
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

// limitBuffers bounds the kernel's buffers for a connection. If it fails, the kernel's own bounds
// apply.
func limitBuffers(conn net.Conn) {
	if tcp := tcpOf(conn); tcp != nil {
		_ = tcp.SetWriteBuffer(sendBuffer)
		_ = tcp.SetReadBuffer(receiveBuffer)
	}
}

// tcpOf returns the TCP connection below TLS; nil: there is no TCP connection.
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

// ConnectionOf returns the TCP connection of a request; nil: it is not known.
func ConnectionOf(r *http.Request) *net.TCPConn {
	conn, _ := r.Context().Value(connectionKey{}).(net.Conn)
	return tcpOf(conn)
}

// Places bounds how many requests are served at once, because one HTTP/2 connection may carry many
// requests. Callers without a token get three quarters of the places at most.
type Places struct {
	all, strangers         atomic.Int64
	most, mostForStrangers atomic.Int64
}

// NewPlaces returns Places for most requests.
func NewPlaces(most int) *Places {
	p := new(Places)
	p.Limit(most)
	return p
}

// Limit changes the bound. Requests that are being served continue.
func (p *Places) Limit(most int) {
	p.most.Store(int64(most))
	p.mostForStrangers.Store(int64(most) - int64(most)/4)
}

// Take takes a place, and reports whether it did. If it did, the caller must call Give with the
// same holder, which says whether the caller has a token.
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

// Taken returns how many places are taken.
func (p *Places) Taken() int64 { return p.all.Load() }

// Give gives a place back.
func (p *Places) Give(holder bool) {
	p.all.Add(-1)
	if !holder {
		p.strangers.Add(-1)
	}
}
