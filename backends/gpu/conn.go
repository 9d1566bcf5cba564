package gpu

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is a connection to a backend that knows whether the request it was given
// last has written anything, and that looks, before the first byte of a request,
// whether the backend has closed it meanwhile. Without that, a request is
// written to a connection whose end is already in our receive buffer, and nobody
// can tell any more whether it was taken.
type conn struct {
	net.Conn
	raw   syscall.RawConn
	state atomic.Int32
}

// What has become of the request a connection was given.
const (
	written   int32 = iota // or none was given
	fresh                  // nothing written, on a new connection
	exclusive              // nothing written, on a kept HTTP/1 connection: any data that came is wrong
	shared                 // HTTP/2: other streams' data may come, and others write
	refused                // nothing written: the backend had closed
)

var errClosedWhileIdle = errors.New("connection was closed while idle")

// dial connects within the timeout and bounds nothing else.
func dial(timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
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
		return &conn{Conn: c, raw: raw}, nil
	}
}

// give notes that a request is about to be written to c, kept says that it was
// used before and h2c that HTTP/2 is spoken there in the clear.
func give(c net.Conn, kept, h2c bool) *conn {
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
		own.state.Store(state)
	}
	return own
}

// untouched says that nothing of the request it was given has been written,
// and that nothing will be: it is for a connection that failed.
func (c *conn) untouched() bool {
	if c == nil {
		return false
	}
	s := c.state.Load()
	return s == fresh || s == exclusive || s == refused
}

func (c *conn) Write(p []byte) (int, error) {
	if s := c.state.Load(); s != written {
		if s == refused || closedByPeer(c.raw, s == exclusive) {
			if s != shared {
				c.state.Store(refused)
			}
			return 0, errClosedWhileIdle
		}
		c.state.Store(written)
	}
	return c.Conn.Write(p)
}
