package gateway_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/metering/format"
)

// takesItsTime answers after half a second, unless its caller hangs up before.
func takesItsTime(w http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body)
	select {
	case <-time.After(500 * time.Millisecond):
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, served)
	case <-req.Context().Done():
	}
}

// overTLS serves the rig's gateway also under a certificate, and returns the address.
func overTLS(t *testing.T, play http.HandlerFunc, more ...func(*setup)) (r *rig, address string) {
	t.Helper()
	cert, key := selfSigned(t)
	r = playing(t, format.EngineGeneric, play, append([]func(*setup){func(s *setup) {
		s.server = func(c *intake.ServerConfig) {
			certs, err := intake.NewCertificates(cert, key, c.Log, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = certs
		}
	}}, more...)...)
	l := listen(t)
	go func() { _ = r.srv.ServeTLS(l, "", "") }()
	return r, l.Addr().String()
}

// dialTLS connects to a gateway under TLS.
func dialTLS(t *testing.T, address string) *raw {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &raw{c, t, bufio.NewReader(c)}
}

// TestHalfClosingClientGetsItsAnswerOrNone: a close_notify ends only what the client sends.
// HTTP/1.0 has no interim answers, so such a client cannot be asked. It gets no answer, and is
// never told that an empty answer is whole.
func TestHalfClosingClientGetsItsAnswerOrNone(t *testing.T) {
	t.Parallel()
	r, address := overTLS(t, takesItsTime)
	k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
	for _, c := range []struct {
		name, proto   string
		tls, fin      bool // the client ends with a close_notify; with a FIN
		paid, unasked bool // unasked: the client looks like a client that hung up
	}{
		{"1.1, close_notify", "HTTP/1.1", true, false, true, false},
		{"1.1, close_notify and FIN", "HTTP/1.1", true, true, true, false},
		{"1.0, close_notify", "HTTP/1.0", true, false, true, false},
		{"1.0, close_notify and FIN", "HTTP/1.0", true, true, true, true},
		{"1.0, FIN", "HTTP/1.0", false, true, true, true},
		{"a stranger, 1.1, close_notify", "HTTP/1.1", true, false, false, false},
		{"a stranger, 1.0, close_notify", "HTTP/1.0", true, false, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, want := header{"Connection": "close"}, http.StatusPaymentRequired
			r.node.takes = 300 * time.Millisecond
			if c.paid {
				h, want, r.node.takes = k.with("Connection", "close"), http.StatusOK, 0
			}
			conn := r.dial("")
			if c.tls {
				conn = dialTLS(t, address)
			}
			conn.send(strings.Replace(post(chatPath, h, request()), "HTTP/1.1", c.proto, 1))
			sending := conn.Conn
			if over, ok := sending.(*tls.Conn); ok {
				if err := over.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				sending = over.NetConn()
			}
			if c.fin {
				if err := sending.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			if c.unasked {
				if a, err := conn.answer(10 * time.Second); err == nil {
					t.Fatalf("status %d\n%s", a.status, a.body)
				} else if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				return
			}
			if a := conn.mustFinal(); a.status != want || c.paid && !strings.Contains(string(a.body), "choices") {
				t.Fatalf("status %d\n%s", a.status, a.body)
			}
		})
	}
	if log := r.log.String(); strings.Contains(log, "panic") {
		t.Errorf("the log speaks of a panic:\n%s", log)
	}
}

// TestLateHalfCloseIsAsked: the interim answer is sent even if the deadline of the last write has
// passed.
func TestLateHalfCloseIsAsked(t *testing.T) {
	t.Parallel()
	stall := func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.WriteStall = 100 * time.Millisecond }
	}
	r, address := overTLS(t, takesItsTime, stall)
	k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
	for _, over := range []bool{false, true} {
		conn := r.dial("")
		if over {
			conn = dialTLS(t, address)
		}
		conn.send(post(chatPath, k.with("Connection", "close"), request()))
		time.Sleep(250 * time.Millisecond)
		sending := conn.Conn
		if c, ok := sending.(*tls.Conn); ok {
			_ = c.CloseWrite()
			sending = c.NetConn()
		}
		if err := sending.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if a := conn.mustFinal(); a.status != http.StatusOK || !strings.Contains(string(a.body), "choices") {
			t.Errorf("TLS %v: status %d\n%s", over, a.status, a.body)
		}
	}
}

// TestClientThatHangsUpUnderTLSIsGone: a client that closes a connection under TLS counts as gone,
// and its backend stops.
func TestClientThatHangsUpUnderTLSIsGone(t *testing.T) {
	gone := make(chan struct{}, 2)
	works := make(chan struct{}, 2)
	r, address := overTLS(t, func(_ http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		works <- struct{}{}
		<-req.Context().Done()
		gone <- struct{}{}
	})
	k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
	for _, proto := range []string{"HTTP/1.1", "HTTP/1.0"} {
		conn := dialTLS(t, address)
		conn.send(strings.Replace(post(chatPath, k.with(), request()), "HTTP/1.1", proto, 1))
		<-works
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-gone:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: the backend works for nobody", proto)
		}
	}
}

// TestClientThatIsGoneGetsNoByte: a client that is gone is sent nothing, and the metrics count its
// answer as a 4xx.
func TestClientThatIsGoneGetsNoByte(t *testing.T) {
	r := playing(t, format.EngineGeneric, takesItsTime)
	k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
	conn := r.dial("")
	conn.send(strings.Replace(post(chatPath, k.with(), request()), "HTTP/1.1", "HTTP/1.0", 1))
	conn.halfClose()
	text, err := io.ReadAll(conn)
	if err != nil || len(text) > 0 {
		t.Errorf("%v %q", err, text)
	}
	r.until("it is counted", func() bool {
		return r.metric(`sluice_http_answers_total{class="4xx",route="chat"}`) == 1
	})
}
