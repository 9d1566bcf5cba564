package gpu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// hastyServer answers each request and closes the connection a moment later, without announcing it. It
// counts how often it saw each body.
type hastyServer struct {
	net.Listener
	mu    sync.Mutex
	seen  map[string]int
	conns int
	after time.Duration
}

func newHastyServer(t *testing.T, after time.Duration) *hastyServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &hastyServer{Listener: l, seen: map[string]int{}, after: after}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

func (s *hastyServer) serve(c net.Conn) {
	s.mu.Lock()
	s.conns++
	s.mu.Unlock()
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.seen[string(body)]++
		s.mu.Unlock()
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
		time.AfterFunc(s.after, func() { c.Close() })
	}
}

// TestConnectionsClosedSoonAfterAnAnswer checks that none of 300 requests fails and that the server
// sees no request twice, at whatever moment after the last answer the next request is sent.
func TestConnectionsClosedSoonAfterAnAnswer(t *testing.T) {
	s := newHastyServer(t, 3*time.Millisecond)
	b := oneBackend(t, "http://"+s.Addr().String(), nil)
	pause := time.NewTimer(0)
	for i := range 300 {
		resp, err := post(b, fmt.Sprintf(`{"n":%d}`, i))
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		drain(t, resp, nil)
		pause.Reset(time.Duration(i%50) * 100 * time.Microsecond)
		<-pause.C
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for body, n := range s.seen {
		if n != 1 {
			t.Errorf("the backend saw %s %d times", body, n)
		}
	}
	if len(s.seen) != 300 {
		t.Errorf("the backend saw %d requests, want 300", len(s.seen))
	}
}

// Once a server has shown that it keeps connections, requests to it need no new handshake.
func TestKeptConnectionsAreUsedOnceTheyAreKept(t *testing.T) {
	s := newHastyServer(t, time.Hour)
	b := oneBackend(t, "http://"+s.Addr().String(), nil)
	trusted := func() bool {
		b.keeping.mu.Lock()
		defer b.keeping.mu.Unlock()
		return b.keeping.trusted
	}
	resp, err := post(b, "first")
	drain(t, resp, err)
	for deadline := time.Now().Add(10 * time.Second); !trusted(); {
		if time.Now().After(deadline) {
			t.Fatal("a connection that stays open is not trusted")
		}
		time.Sleep(5 * time.Millisecond)
	}
	for i := range 10 {
		resp, err := post(b, fmt.Sprint(i))
		drain(t, resp, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns > 1 {
		t.Errorf("11 requests made %d connections, want 1", s.conns)
	}
}

func TestWhatAServerPromisesIsHonoured(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"timeout=5, max=100": 5 * time.Second, "max=3, Timeout=2": 2 * time.Second, `timeout="7"`: 7 * time.Second,
		"timeout=0": 0, "timeout=-1": 0, "timeout=x": 0, "max=100": 0, "": 0,
	} {
		if got := promised(http.Header{"Keep-Alive": {header}}); got != want {
			t.Errorf("Keep-Alive: %s promises %v, want %v", header, got, want)
		}
	}
	now := time.Unix(1e9, 0)
	c := &conn{keeping: &keeping{}}
	overdue := func(idle time.Duration) bool {
		c.idle.Store(now.UnixNano())
		return c.overdue(now.Add(idle))
	}
	if overdue(idleConn-time.Millisecond) || !overdue(idleConn+time.Millisecond) {
		t.Error("without a promise the limit is not that of all")
	}
	c.promise.Store(int64(2 * time.Second))
	if overdue(900*time.Millisecond) || !overdue(1100*time.Millisecond) {
		t.Error("a promise of 2 s is not kept clear of by a second")
	}
	c.promise.Store(0)
	c.keeping.closed(3*time.Second, now)
	if overdue(1400*time.Millisecond) || !overdue(1600*time.Millisecond) {
		t.Error("a close after 3 s is not learnt from")
	}
	c.keeping.trust()
	c.keeping.closed(3*time.Millisecond, now)
	if kept, scout := c.keeping.use(now); kept || scout {
		t.Error("connections are used although the server has just closed one")
	}
	if _, scout := c.keeping.use(now.Add(2 * keepRetry)); !scout {
		t.Error("nobody looks whether the server keeps connections now")
	}
	if kept, scout := c.keeping.use(now.Add(3 * keepRetry)); kept || scout {
		t.Error("a second scout goes while the first is out")
	}
}

// pair is a connection to a server that the test controls.
func pair(t *testing.T) (*conn, *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := dial(time.Second, &keeping{})(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	c, _ := give(client, true, false)
	return c, server.(*net.TCPConn)
}

// A request that provably was not read may be sent again, and no other request.
func TestWhatProvesThatARequestWasNotTaken(t *testing.T) {
	request := []byte("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
	read := func(t *testing.T, c *conn, want error) {
		t.Helper()
		if _, err := c.Read(make([]byte, 1)); want != nil && !errors.Is(err, want) {
			t.Fatalf("read error is %v, want %v", err, want)
		}
	}
	t.Run("closed before it was sent", func(t *testing.T) {
		c, server := pair(t)
		server.Close()
		for !closedByPeer(c.raw, false) {
			time.Sleep(time.Millisecond)
		}
		if _, err := c.Write(request); !errors.Is(err, errClosedWhileIdle) || !c.untouched() {
			t.Errorf("written with %v, untouched %v", err, c.untouched())
		}
	})
	t.Run("the close crossed it", func(t *testing.T) {
		c, server := pair(t)
		server.Close()
		for !closedByPeer(c.raw, false) {
			time.Sleep(time.Millisecond)
		}
		c.state.Store(written) // the end had not come yet when the connection was looked at
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		read(t, c, io.EOF)
		if !c.untouched() {
			t.Error("a request that the server's system refused counts as taken")
		}
	})
	t.Run("read, then closed", func(t *testing.T) {
		c, server := pair(t)
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, make([]byte, len(request))); err != nil {
			t.Fatal(err)
		}
		server.Close()
		read(t, c, io.EOF)
		if c.untouched() {
			t.Error("a request that was read counts as not taken")
		}
	})
	t.Run("read, then reset", func(t *testing.T) {
		c, server := pair(t)
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, make([]byte, len(request))); err != nil {
			t.Fatal(err)
		}
		_ = server.SetLinger(0)
		server.Close()
		read(t, c, nil)
		if c.untouched() {
			t.Error("a reset alone counts as a proof")
		}
	})
	t.Run("only a part was sent", func(t *testing.T) {
		c, server := pair(t)
		big := []byte(strings.Repeat("x", 64<<20))
		go func() {
			_, _ = io.ReadFull(server, make([]byte, 1000))
			_ = server.SetLinger(0)
			server.Close()
		}()
		if _, err := c.Write(big); err == nil || !c.untouched() {
			t.Errorf("written with %v, untouched %v: a server that got a part cannot have served the whole", err, c.untouched())
		}
	})
}
