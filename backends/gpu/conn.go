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

// conn is a connection to a backend that knows what has become of the request
// it was given last: whether anything of it was written, or all that net/http
// wanted to write. It looks, before the first byte of a request, whether the
// backend has closed it meanwhile. Without that, a request is written to a
// connection whose end is already in our receive buffer, and nobody can tell any
// more whether it was taken.
type conn struct {
	net.Conn
	raw      syscall.RawConn
	keeping  *keeping // of the backend
	state    atomic.Int32
	answered atomic.Bool  // a byte of the answer came
	idle     atomic.Int64 // unix ns since when it is idle; zero: in use
	promise  atomic.Int64 // ns for which the server keeps it once idle; zero: it did not say
	scout    atomic.Bool  // watched, to see whether the server keeps it
}

// The fates of a request that a connection was given.
const (
	written   int32 = iota // or none was given
	fresh                  // nothing written, on a new connection
	exclusive              // nothing written, on a kept HTTP/1 connection: any data that came is wrong
	shared                 // HTTP/2: other streams' data may come, and others write
	refused                // nothing written: the backend had closed, or may be about to
	cut                    // not all was written: a write failed
	unread                 // all was written, and the backend's system answered that nobody was there to read it
)

var errClosedWhileIdle = errors.New("connection was closed while idle")

// dial connects within the timeout and bounds nothing else.
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

// give notes that a request is about to be written to c, kept says that it was
// used before and h2c that HTTP/2 is spoken there in the clear. multiplexed: the
// connection is HTTP/2.
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

// rest notes that the connection is idle now.
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

// untouched says that the backend cannot have got the whole request that the
// connection was given, and never will: it is for a connection that failed.
// Requests have a length, so a backend never takes a part of one for a whole
// request.
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

// overdue says whether the connection was idle for so long that the backend may
// be about to close it.
func (c *conn) overdue(now time.Time) bool {
	since := c.idle.Load()
	if since == 0 {
		return false
	}
	idle := now.Sub(time.Unix(0, since))
	promise := time.Duration(c.promise.Load())
	return idle > c.keeping.most(now) || promise > 0 && idle > within(promise)
}

// Write writes a part of a request; the first one only where the backend is
// there to read it.
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

// Read reads a part of an answer, and learns from an end that comes without one.
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

// ended takes in that nothing more comes from the backend.
func (c *conn) ended(err error) {
	if errors.Is(err, net.ErrClosed) {
		if c.scout.Swap(false) { // closed here
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
	// The backend closed in both directions before it had read the request to its
	// end, because its system answers with a reset to what it cannot deliver any
	// more. A reset alone does not show that: it may come after the request was
	// read.
	if err == io.EOF && !c.answered.Load() && c.state.Load() == written && resetFollows(c.raw) {
		c.state.CompareAndSwap(written, unread)
	}
}
