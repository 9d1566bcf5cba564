package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// halfClose closes the sending side of the connection.
func (c *raw) halfClose() {
	c.t.Helper()
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// TestHalfClosingClientGetsItsAnswer: a client that closes only its sending side gets its answer.
func TestHalfClosingClientGetsItsAnswer(t *testing.T) {
	for _, stream := range []string{"false", "true"} {
		t.Run("stream "+stream, func(t *testing.T) {
			r := newRig(t, slow(200, ""))
			k := r.buy(minPurchase)
			c := r.dial("")
			c.send(post("/v1/chat/completions", k.with("Connection", "close"), request("stream", stream)))
			c.halfClose()
			a := c.mustFinal()
			if a.status != http.StatusOK || !strings.Contains(string(a.body), "choices") || stream == "true" && !strings.Contains(string(a.body), "[DONE]") {
				t.Fatalf("status %d\n%s", a.status, a.body)
			}
			r.wantSpent(k, r.trueCost())
		})
	}
	t.Run("a stranger", func(t *testing.T) {
		r := newRig(t)
		r.node.takes = 50 * time.Millisecond
		c := r.dial("")
		c.send(post("/v1/chat/completions", nil, request()))
		c.halfClose()
		c.mustFinal().wantProblem(t, http.StatusPaymentRequired, "payment-required")
	})
}

// mustFinal skips interim answers and reads the final answer.
func (c *raw) mustFinal() *answer {
	c.t.Helper()
	for {
		a := c.mustAnswer(10 * time.Second)
		if a.status >= 200 {
			return a
		}
		if a.status != http.StatusContinue {
			c.t.Fatalf("interim answer %d", a.status)
		}
	}
}

// TestClientThatHangsUpIsNotTakenForOneThatHalfCloses: a client that closes both directions counts as
// gone, and its backend stops at once.
func TestClientThatHangsUpIsNotTakenForOneThatHalfCloses(t *testing.T) {
	e := newScriptedEngine(t)
	gone := make(chan struct{})
	h := http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
		close(gone)
	})
	e.chat.Store(&h)
	r := newRig(t, func(s *setup) { s.backendURLs = []string{e.URL} })
	k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
	c := r.dial("")
	c.send(post("/v1/chat/completions", k.with(), request()))
	r.until("the backend works", func() bool { return e.chats.Load() == 1 })
	began := time.Now()
	c.Close()
	select {
	case <-gone:
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the backend worked for nobody for %v", took)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the backend works for nobody")
	}
	// Another client closes its sending side first, and hangs up later.
	again := make(chan struct{})
	h2 := http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
		close(again)
	})
	e.chat.Store(&h2)
	c = r.dial("")
	c.send(post("/v1/chat/completions", k.with(), request()))
	c.halfClose()
	r.until("the backend works again", func() bool { return e.chats.Load() == 2 })
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	select {
	case <-again:
	case <-time.After(10 * time.Second):
		t.Fatal("the backend works for one who hung up after half-closing")
	}
}

// TestTooLargeBodyIsAnsweredNotReset: a body that is too large is answered with 413, however the client
// sends it. A reset must not destroy the answer.
func TestTooLargeBodyIsAnsweredNotReset(t *testing.T) {
	r := newRig(t)
	k := r.buy(minPurchase)
	body := bytes.Repeat([]byte("x"), 20<<20)
	for _, chunked := range []bool{false, true} {
		for _, reads := range []bool{false, true} {
			t.Run(fmt.Sprintf("chunked %v, reads %v", chunked, reads), func(t *testing.T) {
				c := r.dial("")
				head := post("/v1/chat/completions", k.with("Content-Length", fmt.Sprint(len(body))), "")
				if chunked {
					head = post("/v1/chat/completions", k.with("Transfer-Encoding", "chunked"), "")
				}
				c.send(head)
				sent := make(chan error, 1)
				go func() {
					if chunked {
						fmt.Fprintf(c, "%x\r\n", len(body))
					}
					_, err := c.Conn.Write(body)
					if chunked && err == nil {
						_, err = io.WriteString(c, "\r\n0\r\n\r\n")
					}
					sent <- err
				}()
				if !reads { // like a client that reads only after it has sent everything
					if err := <-sent; err != nil {
						t.Fatalf("the connection broke before all was sent: %v", err)
					}
				}
				c.mustAnswer(10*time.Second).wantProblem(t, http.StatusRequestEntityTooLarge, "invalid-request")
				if !c.closed(10 * time.Second) {
					t.Error("the connection was kept")
				}
			})
		}
	}
}
