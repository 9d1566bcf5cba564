package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// start runs the role of a server in this process until the test ends.
func start(t *testing.T, r role, plan any) server {
	t.Helper()
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan server, 1), make(chan error, 1)
	go func() { ended <- r(ctx, text, func(answer any) error { told <- answer.(server); return nil }) }()
	select {
	case s := <-told:
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		return s
	case err := <-ended:
		t.Fatal(err)
		return server{}
	}
}

func TestPaidRequestsAndStreams(t *testing.T) {
	dir := t.TempDir()
	backend := start(t, serveBackend, backendPlan{Events: 1000, Every: 20 * time.Millisecond})
	credentials := filepath.Join(dir, "credentials")
	gateway := start(t, serveGateway, gatewayPlan{Store: filepath.Join(dir, "ledger.db"), Backend: backend.Addr, Accounts: 3, Credentials: credentials})
	proxy := start(t, serveProxy, proxyPlan{Backend: backend.Addr})
	for name, addr := range map[string]string{"backend": backend.Addr, "proxy": proxy.Addr, "gateway": gateway.Addr} {
		t.Run(name, func(t *testing.T) {
			p := loadPlan{Addr: addr, Body: unaryBody, Credentials: credentials, Conns: 4, For: 100 * time.Millisecond,
				Status: http.StatusOK, Processes: []int{os.Getpid()}}
			requests, err := p.requests()
			if err != nil || len(requests) != 3 {
				t.Fatal(len(requests), err)
			}
			r, err := p.run(t.Context(), requests)
			if err != nil || r.Requests == 0 || r.P50 <= 0 || r.P99 < r.P50 {
				t.Errorf("%+v, %v", r, err)
			}
			s, err := (&streamsPlan{Addr: addr, Streams: 5, For: 2 * eventEvery, Processes: p.Processes}).run(t.Context(), streamsOf(t, addr, credentials))
			if err != nil || s.Events < 10 || s.P50 <= 0 || s.During == 0 {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

func streamsOf(t *testing.T, addr, credentials string) [][]byte {
	t.Helper()
	requests, err := loadPlan{Addr: addr, Body: streamBody, Credentials: credentials}.requests()
	if err != nil {
		t.Fatal(err)
	}
	return requests
}

// TestLoadReportsRefusals checks that an answer with another status than expected is an error.
func TestLoadReportsRefusals(t *testing.T) {
	dir := t.TempDir()
	backend := start(t, serveBackend, backendPlan{Events: 1, Every: time.Second})
	gateway := start(t, serveGateway, gatewayPlan{Store: filepath.Join(dir, "ledger.db"), Backend: backend.Addr})
	p := loadPlan{Addr: gateway.Addr, Body: unaryBody, Conns: 2, For: 10 * time.Millisecond, Status: http.StatusOK}
	requests, err := p.requests()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.run(t.Context(), requests); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("got %v", err)
	}
}

func TestCheckHeader(t *testing.T) {
	if n, err := checkHeader([]byte("HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 12\r\nZ: a"), 200); n != 12 || err != nil {
		t.Error(n, err)
	}
	for _, bad := range []string{"", "HTTP/1.1 2", "HTTP/1.1 402 Payment Required\r\nContent-Length: 1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
		"HTTP/1.1 200 OK\r\nContent-Length: x"} {
		if _, err := checkHeader([]byte(bad), 200); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestMarkdownTellsWhatWasMissed(t *testing.T) {
	r := report{
		Paid: []paidRow{{Target: nameProxy, Connections: 1, P50: time.Millisecond, Ratio: 1}, {Target: "gateway, SQLite, 1 account", Connections: 1, P50: 3 * time.Millisecond},
			{Target: "gateway, SQLite, 1 account", Connections: 256, PerSecond: 12345.6, Ratio: 0.61}, {Target: "gateway, PostgreSQL, 1 account", Connections: 256, Ratio: 0.39}},
		Streams: []streamsRow{{Target: nameDirect}, {Target: "gateway, SQLite", Ratio: 1.2, PerStream: 50 << 10}},
	}
	var out strings.Builder
	if err := r.markdown(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| 12,346 |", "at p50 | 2.00 ms | **missed** |", "0.6 × ReverseProxy | 0.610 | met |", "0.4 × ReverseProxy | 0.390 | **missed** |", "| 1.200 | met |", "50.0 KiB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-short", "-parts", "paid,ledger", "-conns", "2,64"}, io.Discard)
	if err != nil || len(o.parts) != 2 || o.conns[1] != 64 || o.rounds != 2 || len(o.accounts) != 2 {
		t.Errorf("%+v, %v", o, err)
	}
	if o.stops != 3 || o.pairs != 100_000 || o.charges != 200_000 {
		t.Errorf("%+v", o)
	}
	for _, bad := range []string{"-parts=all", "-conns=0", "-accounts=x", "-rounds=-1", "-stops=-1",
		"-pairs=-1", "-charges=1500", "-charges=-1000", "more"} {
		if _, err := parseOptions([]string{bad}, io.Discard); err == nil {
			t.Errorf("%s passed", bad)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 ns", 999: "999 ns", 1500: "1.50 µs", 123456 * time.Microsecond: "123 ms", -25 * time.Millisecond: "−25.0 ms"} {
		if got := short(d); got != want {
			t.Errorf("%d: got %q, want %q", d, got, want)
		}
	}
}
