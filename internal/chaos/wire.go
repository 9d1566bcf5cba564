package chaos

import (
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
)

// Wire is a connection's way through this process, which can be cut: it forwards
// a loopback port to a server.
type Wire struct {
	Address string // host:port to connect to

	network, target string
	listener        net.Listener

	mu    sync.Mutex
	down  bool
	hung  chan struct{} // closed when bytes flow
	conns map[net.Conn]struct{}
}

// NewWire forwards to a server until the test ends.
func NewWire(t testing.TB, network, target string) *Wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{Address: l.Addr().String(), network: network, target: target, listener: l, hung: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(w.hung)
	go w.accept()
	t.Cleanup(func() {
		l.Close()
		w.Cut()
		w.Heal()
	})
	return w
}

// PostgresWire forwards to a server that listens on a unix socket, and returns
// the database's URL by way of the wire.
func PostgresWire(t testing.TB, databaseURL string) (*Wire, string) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWire(t, "unix", filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432"))
	u.Host = w.Address
	u.RawQuery = url.Values{"user": {"postgres"}, "sslmode": {"disable"}}.Encode()
	return w, u.String()
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
	far, err := net.Dial(w.network, w.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !w.admit(near, far) {
		return
	}
	defer w.dismiss(near, far)
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			w.forward(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
}

func (w *Wire) admit(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
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

func (w *Wire) forward(from io.Reader, to io.Writer) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		w.mu.Lock()
		flows := w.hung
		w.mu.Unlock()
		<-flows
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
	for c := range w.conns {
		c.Close()
	}
}

// Hang keeps all connections and lets nothing through, as a network does that
// loses every packet.
func (w *Wire) Hang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.hung:
		w.hung = make(chan struct{})
	default:
	}
}

// Heal ends both.
func (w *Wire) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
	select {
	case <-w.hung:
	default:
		close(w.hung)
	}
}
