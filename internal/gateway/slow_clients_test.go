package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
)

// wordy is a backend whose streams have as many events as the request says in "user". Each event
// has 2 KiB and one token.
func wordy(t *testing.T) string {
	padding := strings.Repeat("x", 2<<10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, rest, _ := strings.Cut(string(body), `"user":"`)
		digits, _, _ := strings.Cut(rest, `"`)
		n, err := strconv.Atoi(digits)
		if err != nil {
			n = 1
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range n {
			if _, err := fmt.Fprintf(w, `data: {"id":"x","choices":[{"index":0,"delta":{"content":"a"}}],"padding":"%s","usage":{"prompt_tokens":20,"completion_tokens":%d}}`+"\n\n",
				padding, i+1); err != nil {
				return
			}
			if w.(http.Flusher).Flush(); r.Context().Err() != nil {
				return
			}
		}
		io.WriteString(w, finishEvent+doneEvent)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestSlowReadersAreCutAndCostLittle: callers pay and do not read their answers; at full size 2,000
// callers.
func TestSlowReadersAreCutAndCostLittle(t *testing.T) {
	n := crowd(t, 200, 2_000, 6)
	stall := 1500*time.Millisecond + time.Duration(n)*4*time.Millisecond // long enough for all to be connected at once
	r := newRig(t, func(s *setup) {
		s.backendURLs = []string{wordy(t)}
		s.profile, s.backend = does(false, true), func(b *gpuBackend) { b.Slots = n + 64 }
		s.pool = func(p *gpuPool) { p.QueueLimit = n }
		s.gateway = func(c *gateway.Config) { c.WriteStall = stall }
	})
	k, slow := r.buy(1_000_000), r.buy(maxPurchase)
	r.balance(slow)
	before := memory()
	conns := make([]*raw, n)
	for i := range conns {
		conns[i] = r.dial("")
		_ = conns[i].Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		conns[i].send(post(chatPath, slow.with(), request("stream", "true", "max_tokens", "256", "user", `"250"`)))
	}
	r.until("all are being answered", func() bool {
		return r.metric(`sluice_first_byte_seconds_count{model="demo"}`) >= float64(n)
	})
	grown := memory() - before
	if per := grown / int64(n); per > 160<<10 { // includes the test's own client and backend
		t.Errorf("%d bytes for each slow reader", per)
	}
	r.wantServed(k)
	r.until("they are all cut", func() bool { return r.metric("sluice_http_in_flight") == 0 })
	r.idle(slow)
	r.until("the backend is free", func() bool { return r.fleet.Status()[0].InFlight == 0 })
	for _, c := range conns {
		r.until("the connection is reset", func() bool {
			_, err := io.WriteString(c, "x")
			return err != nil
		})
	}
	if left := memory() - before; left > int64(16<<20+n*8<<10) { // the test's own buffers remain
		t.Errorf("%d bytes are left", left)
	}
	t.Logf("%d slow readers: %d bytes each", n, grown/int64(n))
}

// TestSlowHeadersAreCut: clients never end their header; at full size 2,000 clients.
func TestSlowHeadersAreCut(t *testing.T) {
	n := crowd(t, 300, 2_000, 2)
	r := newRig(t, func(s *setup) {
		s.server = func(c *intake.ServerConfig) { c.ReadHeaderTimeout = 2 * time.Second }
	})
	k := r.buy(1_000_000)
	before := memory()
	conns := make([]*raw, n)
	for i := range conns {
		conns[i] = r.dial("")
		conns[i].send("POST " + chatPath + " HTTP/1.1\r\nHost: gateway\r\nX-A: ")
	}
	grown := memory() - before
	if per := grown / int64(n); per > 64<<10 {
		t.Errorf("%d bytes for each", per)
	}
	r.wantServed(k)
	for i := range 20 { // sending a little now and then does not help
		for _, c := range conns[:min(n, 50)] {
			_, _ = io.WriteString(c, strconv.Itoa(i)) // the gateway may have closed it by now
		}
		if conns[0].closed(100 * time.Millisecond) {
			break
		}
	}
	for _, c := range conns {
		if !c.closed(5 * time.Second) {
			t.Fatal("a connection without a header is still open")
		}
	}
	r.wantServed(k)
	t.Logf("%d slow headers: %d bytes each", n, grown/int64(n))
}

func TestDrippingBodyIsCutByItsRate(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) {
			c.BodyTimeout, c.BodyGrace, c.BodyRate = 20*time.Second, 400*time.Millisecond, 100<<10
		}
	})
	k := r.buy(minPurchase)
	drip := func(c *raw, piece string, every time.Duration) (took time.Duration) {
		started := time.Now()
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for range 200 {
			if _, err := io.WriteString(c, piece); err != nil {
				break
			}
			if <-ticker.C; time.Since(started) > 3*time.Second {
				break
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.reader.Peek(1); err == nil {
				break // the gateway has answered
			}
		}
		return time.Since(started)
	}
	for who, h := range map[string]header{"stranger": {}, "holder": k.with()} {
		h["Content-Length"] = "2000000"
		c := r.dial("")
		c.send(post(chatPath, h, ""))
		took := drip(c, " ", 20*time.Millisecond)
		if took > 1500*time.Millisecond {
			t.Errorf("%s: a dripping body went on for %v", who, took)
		}
		c.mustAnswer(2*time.Second).wantProblem(t, http.StatusRequestTimeout, "invalid-request")
		if !c.closed(3 * time.Second) {
			t.Errorf("%s: the connection is still open", who)
		}
	}
	// A body of the same length that comes at twice the required rate is read to its end.
	body := request("user", `"`+repeat("y", 300<<10)+`"`)
	c := r.dial("")
	c.send(post(chatPath, header{"Content-Length": strconv.Itoa(len(body))}, ""))
	for len(body) > 0 {
		piece := body[:min(len(body), 10<<10)]
		c.send(piece)
		body = body[len(piece):]
		time.Sleep(50 * time.Millisecond) // the pace of a slow line, which is what is tested
	}
	c.mustAnswer(2*time.Second).wantProblem(t, http.StatusPaymentRequired, "payment-required")
	r.wantSpent(k, 0)
}

func TestConnectionsPerAddress(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.server = func(c *intake.ServerConfig) { c.MaxConnections, c.MaxPerAddress = 12, 4 }
	})
	alive := func(c *raw) bool {
		_, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n")
		a, readErr := c.answer(5 * time.Second)
		return err == nil && readErr == nil && a.status == http.StatusOK
	}
	// The test's own client has no connection open yet.
	var first []*raw
	for range 4 {
		c := r.dial("127.0.0.2")
		if !alive(c) {
			t.Fatal("a connection within the limit is not served")
		}
		first = append(first, c)
	}
	for range 3 {
		if alive(r.dial("127.0.0.2")) {
			t.Error("a fifth connection of one address was served")
		}
	}
	if !alive(r.dial("127.0.0.3")) {
		t.Error("another address was refused")
	}
	first[0].Close()
	r.until("the place is free", func() bool {
		c, err := r.dialFrom("127.0.0.2")
		if err != nil {
			return false
		}
		if !alive(c) {
			c.Close()
			return false
		}
		t.Cleanup(func() { c.Close() })
		return true
	})
	open := 5
	for i := range 20 {
		if alive(r.dial(fmt.Sprintf("127.0.1.%d", 1+i))) {
			open++
		}
	}
	if open != 12 {
		t.Errorf("%d connections are served, want 12", open)
	}
}
