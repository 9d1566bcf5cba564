package gateway_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestBackendThatClosesKeptConnections: a backend closes a connection 3 ms after its answer,
// without having announced it. No request may fail by that, and no request may be sent twice.
func TestBackendThatClosesKeptConnections(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			mu.Lock()
			for n := range 300 {
				if bytes.Contains(body, fmt.Appendf(nil, "number %d.", n)) {
					seen[fmt.Sprint(n)]++
				}
			}
			mu.Unlock()
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(served), served)
			time.AfterFunc(3*time.Millisecond, func() { c.Close() })
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	r := newRig(t, func(s *setup) { s.backendURLs = []string{"http://" + l.Addr().String()} })
	k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
	failed := 0
	for n := range 300 {
		a := r.chat(k, request("messages", fmt.Sprintf(`[{"role":"user","content":"number %d."}]`, n)))
		if a.status != http.StatusOK {
			failed++
		}
	}
	if failed > 0 {
		t.Errorf("%d of 300 requests failed", failed)
	}
	mu.Lock()
	defer mu.Unlock()
	for n, times := range seen {
		if times != 1 {
			t.Errorf("request %s reached the backend %d times", n, times)
		}
	}
	if len(seen) != 300 {
		t.Errorf("%d requests reached the backend, want 300", len(seen))
	}
}
