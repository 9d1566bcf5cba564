package gpu

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// oneBackend returns the only backend of a fleet, at rawURL.
func oneBackend(t *testing.T, rawURL string, change func(*BackendConfig)) *Backend {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	cfg := BackendConfig{Name: "b", URL: u, Slots: 4}
	if change != nil {
		change(&cfg)
	}
	f, err := NewFleet(Config{Backends: []BackendConfig{cfg}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f.backends[0]
}

func post(b *Backend, body string) (*http.Response, error) {
	return b.Do(context.Background(), "POST", "/v1/chat/completions", []byte(body), nil)
}

func TestDoSendsTheBackendsKeyAndNothingOfTheCallers(t *testing.T) {
	var got *http.Request
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	defer srv.Close()
	b := oneBackend(t, srv.URL+"/prefix/", func(c *BackendConfig) { c.APIKey = "sk-backend" })
	h := http.Header{
		"Authorization": {"L402 aaaa:bbbb"}, "Macaroon": {"cc"}, "Grpc-Metadata-Macaroon": {"dd"},
		"Idempotency-Key": {"ee"}, "X-Thing": {"kept"},
	}
	resp, err := b.Do(context.Background(), "POST", "/v1/x?a=1", []byte("hello"), h)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		t.Errorf("status %d: the redirect was followed", resp.StatusCode)
	}
	if got.URL.String() != "/prefix/v1/x?a=1" || string(body) != "hello" || got.ContentLength != 5 {
		t.Errorf("backend saw %s with %q, length %d", got.URL, body, got.ContentLength)
	}
	want := http.Header{"Authorization": {"Bearer sk-backend"}, "X-Thing": {"kept"}, "User-Agent": {"sluice"}, "Content-Length": {"5"}}
	if fmt.Sprint(got.Header) != fmt.Sprint(want) {
		t.Errorf("backend saw header %v, want %v", got.Header, want)
	}
}

func TestNotTaken(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	defer untrusted.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, u := range map[string]string{
		"refused":                    "http://" + closed.Addr().String(),
		"no such host":               "http://host.invalid:1",
		"not TLS":                    strings.Replace(plain.URL, "http", "https", 1),
		"untrusted certificate":      untrusted.URL,
		"TLS handshake never starts": "https://" + silent.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			b := oneBackend(t, u, func(c *BackendConfig) { c.ConnectTimeout = 200 * time.Millisecond })
			if _, err := post(b, "{}"); !errors.Is(err, ErrNotTaken) {
				t.Errorf("error is %v, want ErrNotTaken", err)
			}
		})
	}
}

// TestCallerWhoLeavesBeforeThereIsAConnection checks that the error says both that the caller left and
// that the backend did not take the request, because a request that was not taken costs nothing.
func TestCallerWhoLeavesBeforeThereIsAConnection(t *testing.T) {
	b := oneBackend(t, "http://127.0.0.1:1", nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := b.Do(ctx, "GET", "/", nil, nil)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrNotTaken) {
		t.Errorf("error is %v, want context.Canceled and ErrNotTaken", err)
	}
}

func TestFirstByteTimeout(t *testing.T) {
	var requests atomic.Int32
	gone := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		close(gone)
	}))
	defer srv.Close()
	b := oneBackend(t, srv.URL, func(c *BackendConfig) { c.FirstByteTimeout = 50 * time.Millisecond })
	_, err := post(b, "{}")
	if !errors.Is(err, ErrFirstByteTimeout) || errors.Is(err, ErrNotTaken) {
		t.Errorf("error is %v, want ErrFirstByteTimeout", err)
	}
	<-gone
	if n := requests.Load(); n != 1 {
		t.Errorf("backend got %d requests", n)
	}
}

func TestIdleTimeout(t *testing.T) {
	gone := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	defer srv.Close()
	b := oneBackend(t, srv.URL, func(c *BackendConfig) { c.IdleTimeout = 50 * time.Millisecond })
	resp, err := b.Do(context.Background(), "GET", "/", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if string(got) != "data: 1\n\n" || !errors.Is(err, ErrIdleTimeout) {
		t.Errorf("read %q, %v; want the event and ErrIdleTimeout", got, err)
	}
	<-gone // before Close, because the stall itself ends the call
	resp.Body.Close()
}

func TestCancelReachesTheBackendAtOnce(t *testing.T) {
	gone := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	defer srv.Close()
	b := oneBackend(t, srv.URL, nil)
	ctx, cancel := context.WithCancel(context.Background())
	resp, err := b.Do(ctx, "GET", "/", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	<-gone
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("read error is %v, want context.Canceled", err)
	}
}

// script serves raw connections. Each entry of conns handles one connection.
func script(t *testing.T, conns ...func(net.Conn, *bufio.Reader, *atomic.Int32)) (addr string, requests *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	requests = new(atomic.Int32)
	go func() {
		for _, serve := range conns {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c, bufio.NewReader(c), requests)
			}()
		}
	}()
	return l.Addr().String(), requests
}

func answer(c net.Conn, r *bufio.Reader, n *atomic.Int32) bool {
	if !take(r, n) {
		return false
	}
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	return err == nil
}

func take(r *bufio.Reader, n *atomic.Int32) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, req.Body)
	n.Add(1)
	return true
}

func drain(t *testing.T, resp *http.Response, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

func TestConnectionClosedWhileIdleIsReplaced(t *testing.T) {
	closed := make(chan struct{})
	once := func(c net.Conn, r *bufio.Reader, requests *atomic.Int32) {
		answer(c, r, requests)
		c.Close()
		select {
		case <-closed:
		default:
			close(closed)
		}
	}
	addr, n := script(t, once, once)
	b := oneBackend(t, "http://"+addr, nil)
	b.keeping.trust()
	resp, err := post(b, "{}")
	drain(t, resp, err)
	<-closed
	resp, err = post(b, "{}")
	drain(t, resp, err)
	if n.Load() != 2 {
		t.Errorf("backend got %d requests, want 2", n.Load())
	}
}

func TestTLSConnectionClosedWhileIdleIsReplaced(t *testing.T) {
	closed := make(chan struct{}, 8)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	srv.StartTLS()
	defer srv.Close()
	b := oneBackend(t, srv.URL, nil)
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	b.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	b.keeping.trust()
	for range 20 {
		resp, err := post(b, "{}")
		drain(t, resp, err)
		srv.CloseClientConnections()
		<-closed
	}
}

// A kept connection that breaks after the request was written may have been broken by the work on the
// request. The request must not be repeated, and must not be reported as not taken, whatever the
// caller's headers promise.
func TestRequestWrittenToReusedConnectionIsNotRepeated(t *testing.T) {
	addr, n := script(t,
		func(c net.Conn, r *bufio.Reader, requests *atomic.Int32) {
			answer(c, r, requests)
			take(r, requests)
		},
		func(c net.Conn, r *bufio.Reader, requests *atomic.Int32) {
			for answer(c, r, requests) {
			}
		})
	b := oneBackend(t, "http://"+addr, nil)
	b.keeping.trust()
	resp, err := post(b, "{}")
	drain(t, resp, err)
	_, err = b.Do(context.Background(), "POST", "/", []byte("{}"), http.Header{"Idempotency-Key": {"k"}, "X-Idempotency-Key": {"k"}})
	if err == nil || errors.Is(err, ErrNotTaken) {
		t.Errorf("error is %v, want one that is not ErrNotTaken", err)
	}
	if n.Load() != 2 {
		t.Errorf("backend got %d requests, want 2", n.Load())
	}
}

func TestFreshConnectionClosedAfterTheRequestIsTaken(t *testing.T) {
	addr, _ := script(t, func(_ net.Conn, r *bufio.Reader, requests *atomic.Int32) { take(r, requests) })
	if _, err := post(oneBackend(t, "http://"+addr, nil), "{}"); err == nil || errors.Is(err, ErrNotTaken) {
		t.Errorf("error is %v, want one that is not ErrNotTaken", err)
	}
}

func TestHTTP2(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Proto, body)
		if r.URL.Path == "/stall" {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	})
	srv := httptest.NewUnstartedServer(handler)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	clear := httptest.NewUnstartedServer(handler)
	clear.Config.Protocols = new(http.Protocols)
	clear.Config.Protocols.SetUnencryptedHTTP2(true)
	clear.Start()
	defer clear.Close()
	for name, u := range map[string]string{"tls": srv.URL, "h2c": strings.Replace(clear.URL, "http", "h2c", 1)} {
		t.Run(name, func(t *testing.T) {
			b := oneBackend(t, u, func(c *BackendConfig) { c.IdleTimeout = 100 * time.Millisecond })
			pool := x509.NewCertPool()
			pool.AddCert(srv.Certificate())
			b.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
			for range 2 {
				resp, err := post(b, "body")
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(got) != "HTTP/2.0 body" || err != nil {
					t.Errorf("answer %q, %v", got, err)
				}
			}
			resp, err := b.Do(context.Background(), "GET", "/stall", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.ReadAll(resp.Body); !errors.Is(err, ErrIdleTimeout) {
				t.Errorf("read error is %v, want ErrIdleTimeout", err)
			}
		})
	}
}

func TestSecretPrintsNothing(t *testing.T) {
	cfg := BackendConfig{Name: "b", APIKey: "hunter2"}
	var out strings.Builder
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("x", "key", cfg.APIKey, "config", cfg)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&out, verb+verb, cfg, cfg.APIKey)
	}
	js, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(js)
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), "68756e74") {
		t.Errorf("the key shows in %s", out.String())
	}
}
