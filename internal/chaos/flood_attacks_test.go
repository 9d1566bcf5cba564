package chaos

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/l402"
)

// every runs do with 1, 2, … at most so many times a second, from so many
// goroutines, until ctx ends.
func every(ctx context.Context, perSecond, goroutines int, do func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range goroutines {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1))
				time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
				do(i)
			}
		})
	}
	all.Wait()
}

// tell counts what an attacker was told. A connection that was cut is one
// answer too many.
func (f *flood) tell(t *testing.T, status int, err error) {
	if err != nil {
		t.Error(err)
		return
	}
	f.answers[status].Add(1)
	f.told.Add(1)
}

// from is a client of its own at an address of the loopback.
func from(t *testing.T, address string) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// ask sends one request and reads the answer to its end.
func (f *flood) ask(t *testing.T, c *http.Client, method, path, body string, h http.Header) {
	req, err := http.NewRequest(method, f.g.URL+path, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	if h != nil {
		req.Header = h
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	f.tell(t, resp.StatusCode, err)
}

// floodFromOne asks for challenges from the payer's own address.
func floodFromOne(ctx context.Context, t *testing.T, f *flood) {
	c := from(t, "127.0.0.1")
	defer c.CloseIdleConnections()
	every(ctx, 2000, 48, func(int) { f.ask(t, c, "POST", ChatPath, Chat("demo", 16, false), nil) })
}

// floodFromMany asks from 10,000 addresses in turn, in 100 networks, on a new
// connection each time.
func floodFromMany(ctx context.Context, t *testing.T, f *flood) {
	every(ctx, 1500, 48, func(i int) {
		status, err := askOnce(fmt.Sprintf("127.%d.%d.1", 1+i%100, i/100%100), f.g, Chat("demo", 16, false))
		f.tell(t, status, err)
	})
}

func askOnce(address string, g *Gateway, body string) (status int, err error) {
	c, err := dial(address, g)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", ChatPath, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// dial connects from an address, for half a minute.
func dial(address string, g *Gateway) (*net.TCPConn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 30 * time.Second}
	c, err := dialer.Dial("tcp", g.listen)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(30 * time.Second))
}

// freshBudgets delegates anew for each request, none of which is served.
func freshBudgets(ctx context.Context, t *testing.T, f *flood) {
	c := from(t, "127.3.0.1")
	defer c.CloseIdleConnections()
	every(ctx, 2000, 48, func(i int) {
		body, conditions := Chat("demo", 16, false), []string{fmt.Sprintf("inference_budget_msat=%d", 1+i%20), "inference_rpm=10"}
		switch i % 3 {
		case 0:
			body, conditions[0] = `{"model":"demo","messages":`, "inference_budget_msat=4000"
		case 1:
			conditions = append(conditions, "inference_models=flat")
		}
		m, err := l402.Attenuate(f.sub.Macaroon, append(conditions, fmt.Sprintf("inference_label=%d", i))...)
		if err != nil {
			t.Error(err)
			return
		}
		f.ask(t, c, "POST", ChatPath, body, http.Header{"Authorization": {l402.FormatCredential(m, f.sub.Preimage)}})
	})
}

// manyCaveats presents tokens that are too long, and one that is as long as may
// be.
func manyCaveats(ctx context.Context, t *testing.T, f *flood) {
	c := from(t, "127.4.0.1")
	defer c.CloseIdleConnections()
	longest := "inference_label=%d"
	tokens := []http.Header{overlong(t, f.sub, 16, longest)}
	for i := range 8 {
		tokens = append(tokens, overlong(t, f.sub, 17, longest+strings.Repeat("x", i)),
			overlong(t, f.sub, 1000, longest+strings.Repeat("x", i)), overlong(t, f.sub, 1000, "inference_budget_msat=1%d"+strings.Repeat("0", i)),
			overlong(t, f.sub, 1000, "x%d"+strings.Repeat("y", i)))
	}
	every(ctx, 1000, 32, func(i int) {
		if k := tokens[i%len(tokens)]; i%2 == 0 {
			f.ask(t, c, "GET", "/l402/balance", "", k)
		} else {
			f.ask(t, c, "POST", ChatPath, `{"model":`, k)
		}
	})
}

// overlong is a token with any number of caveats, signed as it must be.
func overlong(t *testing.T, k Credential, n int, condition string) http.Header {
	m := new(macaroon.Macaroon)
	if err := m.UnmarshalBinary(k.Macaroon); err != nil {
		t.Error(err)
	}
	for i := range n {
		if err := m.AddFirstPartyCaveat(fmt.Appendf(nil, condition, i)); err != nil {
			t.Error(err)
		}
	}
	raw, err := m.MarshalBinary()
	if err != nil {
		t.Error(err)
	}
	return http.Header{"Authorization": {l402.FormatCredential(raw, k.Preimage)}}
}

// emptyAccounts ask, each time for another top-up, while one account with money
// keeps all slots taken and others waiting.
func emptyAccounts(ctx context.Context, t *testing.T, f *flood) {
	house := Start(Plan{Gateways: []*Gateway{f.g}, Accounts: []Credential{f.rich}, Asks: []string{Chat("narrow", 32, true)}, Callers: houseCallers})
	c := from(t, "127.5.0.1")
	defer c.CloseIdleConnections()
	every(ctx, 1000, 64, func(i int) {
		f.bought.Store(house.paid[0].Load() + houseCallers)
		h := f.poor[i%poorAccounts].Header()
		h.Set("L402-Deposit-Msat", strconv.Itoa(5000+1000*(i/poorAccounts)))
		f.ask(t, c, "POST", ChatPath, Chat("narrow", 1024, true), h)
	})
	for _, s := range house.Stop() {
		if !s.Paid() {
			t.Errorf("the account that keeps the slots taken was refused: %s", s)
			break
		}
	}
	f.bought.Store(house.paid[0].Load())
}

// slowReaders ask for streams of 2 MiB, do not read, and ask again when they are
// cut.
func slowReaders(ctx context.Context, t *testing.T, f *flood) {
	var all sync.WaitGroup
	var cuts atomic.Int64
	for range readers() {
		all.Go(func() {
			for ctx.Err() == nil {
				c, err := dial("127.6.0.1", f.g)
				if err != nil {
					t.Error(err)
					return
				}
				if f.stall(ctx, c); ctx.Err() == nil {
					cuts.Add(1)
				}
				c.Close()
			}
		})
	}
	all.Wait()
	if n := cuts.Load(); thorough() && n < int64(readers())/2 {
		t.Errorf("%d of %d readers were cut", n, readers())
	}
}

// stall asks for a stream and does not read it, until it is cut.
func (f *flood) stall(ctx context.Context, c *net.TCPConn) {
	body := Chat("padded", 256, true)
	f.bought.Add(1)
	_ = c.SetReadBuffer(4 << 10)
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s",
		ChatPath, f.rich.Header().Get("Authorization"), len(body), body)
	_ = c.SetDeadline(time.Time{})
	// The gateway's patience is 30 s. A full connection does not hear that the other
	// side is gone; who sends something does.
	for pause := 35 * time.Second; ; pause = 3 * time.Second {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if _, err := c.Write([]byte(" ")); err != nil {
			return
		}
	}
}

// padded is an inference server whose events are of 8 KiB each.
func padded(t *testing.T) string {
	inner, err := inference.New(inference.Config{TokensPerSecond: 15, Slots: readers() + 64, MaxModelLen: 4096})
	if err != nil {
		t.Fatal(err)
	}
	handler := inner.Handler()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(padding{w}, r)
	}))
	// What waits here costs the machine, and not the gateway.
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(32 << 10)
		return ctx
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

type padding struct{ http.ResponseWriter }

var padded8k = []byte(`data: {"padding":"` + strings.Repeat("x", 8<<10) + `",`)

func (p padding) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p padding) Write(b []byte) (int, error) {
	_, err := p.ResponseWriter.Write(bytes.ReplaceAll(b, []byte("data: {"), padded8k))
	return len(b), err
}
