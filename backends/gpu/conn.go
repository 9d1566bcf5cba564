package gpu

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is a connection to a backend. It knows what became of the last request that it was given:
// whether any of that request was written, or all that net/http wanted to write. Before the first byte
// of a request, conn looks whether the backend has closed the connection meanwhile. Without that look,
// net/http would write the request to a connection whose end is already in the receive buffer here, and
// nobody could tell any more whether the backend took the request.
type conn struct {
	net.Conn
	raw      syscall.RawConn
	keeping  *keeping // what is known of how long the backend keeps connections
	state    atomic.Int32
	answered atomic.Bool  // a byte of the answer came
	idle     atomic.Int64 // since when the connection is idle, in Unix ns; zero means in use
	promise  atomic.Int64 // ns for which the server says it keeps the idle connection; zero means it did not say
	scout    atomic.Bool  // the connection is watched, to see whether the server keeps it
}

// The states of the request that a connection was given.
const (
	written int32 = iota // the request was written, or no request was given
	fresh                // nothing was written, on a new connection
	// exclusive: nothing was written, on a kept HTTP/1 connection. Any data that the backend sent
	// unasked is wrong.
	exclusive
	// shared: the connection is HTTP/2. Other streams' data may come, and other streams write.
	shared
	// refused: nothing was written, because the backend had closed the connection or may be about to
	// close it.
	refused
	cut // not all was written, because a write failed
	// unread: all was written, and the backend's system answered that no process was there to read it.
	unread
)

var errClosedWhileIdle = errors.New("connection was closed while idle")

// dial returns a function that connects within the timeout. The timeout does not bound the connection's
// later use.
func dial(timeout time.Duration, k *keeping) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		sc, ok := c.(syscall.Conn)
		if !ok {
			return c, nil
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		return &conn{Conn: c, raw: raw, keeping: k}, nil
	}
}

// give notes that a request is about to be written to c. kept says that c served an earlier request,
// and h2c says that c speaks HTTP/2 without TLS. own is the conn inside c, or nil. multiplexed says
// that c speaks HTTP/2.
func give(c net.Conn, kept, h2c bool) (own *conn, multiplexed bool) {
	state := fresh
	if kept {
		state = exclusive
	}
	if t, ok := c.(*tls.Conn); ok {
		h2c = t.ConnectionState().NegotiatedProtocol == "h2"
		c = t.NetConn()
	}
	if h2c {
		state = shared
	}
	own, ok := c.(*conn)
	if ok {
		own.answered.Store(false)
		own.state.Store(state)
	}
	return own, h2c
}

// rest notes that the connection is idle from now on.
func (c *conn) rest(now time.Time) {
	c.idle.Store(now.UnixNano())
	if c.scout.Load() {
		time.AfterFunc(keepsFor, func() {
			if c.scout.Swap(false) && c.idle.Load() != 0 && !closedByPeer(c.raw, false) {
				c.keeping.trust()
			}
		})
	}
}

// untouched says that the backend cannot have got the whole request that the connection was given, and
// never will. It is called for a connection that failed. Requests state their length, so a backend
// never takes a part of a request for a whole request.
func (c *conn) untouched() bool {
	if c == nil {
		return false
	}
	switch c.state.Load() {
	case fresh, exclusive, refused, cut, unread:
		return true
	}
	return false
}

// overdue says whether the connection was idle for so long that the backend may be about to close it.
func (c *conn) overdue(now time.Time) bool {
	since := c.idle.Load()
	if since == 0 {
		return false
	}
	idle := now.Sub(time.Unix(0, since))
	promise := time.Duration(c.promise.Load())
	return idle > c.keeping.most(now) || promise > 0 && idle > within(promise)
}

// Write writes a part of a request. It writes the first part only if the backend has not closed the
// connection.
func (c *conn) Write(p []byte) (int, error) {
	s := c.state.Load()
	if s == written || s == cut {
		n, err := c.Conn.Write(p)
		if err != nil {
			c.state.CompareAndSwap(written, cut)
		}
		return n, err
	}
	if s == refused || s == unread || closedByPeer(c.raw, s == exclusive) || s == exclusive && c.overdue(time.Now()) {
		if s != shared {
			c.state.CompareAndSwap(s, refused)
		}
		return 0, errClosedWhileIdle
	}
	c.idle.Store(0)
	c.state.Store(written)
	n, err := c.Conn.Write(p)
	if err != nil && s != shared {
		c.state.CompareAndSwap(written, cut)
	}
	return n, err
}

// Read reads a part of an answer. It notes if the connection ends without an answer.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.answered.Load() {
		c.answered.Store(true)
	}
	if err != nil {
		c.ended(err)
	}
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	if c.scout.Swap(false) {
		c.keeping.unknown()
	}
	return c.Conn.Close()
}

// ended notes that the backend sends nothing more on the connection.
func (c *conn) ended(err error) {
	if errors.Is(err, net.ErrClosed) {
		if c.scout.Swap(false) { // this gateway closed the connection
			c.keeping.unknown()
		}
		return
	}
	now := time.Now()
	if since := c.idle.Load(); since != 0 {
		c.scout.Store(false)
		c.keeping.closed(now.Sub(time.Unix(0, since)), now)
		return
	}
	if c.scout.Swap(false) {
		c.keeping.unknown()
	}
	// A reset that follows the end of the stream shows that the backend closed in both directions
	// before it had read the whole request, because its system answers with a reset to what it cannot
	// deliver any more. A reset without that end does not show this, because it may come after the
	// request was read.
	if err == io.EOF && !c.answered.Load() && c.state.Load() == written && resetFollows(c.raw) {
		c.state.CompareAndSwap(written, unread)
	}
}
