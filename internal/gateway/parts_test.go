package gateway

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
)

func TestHeadersThatStayHere(t *testing.T) {
	client := http.Header{}
	var allowed []string
	for _, name := range []string{"Authorization", "macaroon", "Grpc-Metadata-Macaroon", "Cookie", "Connection", "Keep-Alive", "TE", "Trailer",
		"Transfer-Encoding", "Upgrade", "Proxy-Authorization", "Proxy-Connection", "HTTP2-Settings", "Accept-Encoding", "X-Forwarded-For",
		"Forwarded", "X-Real-IP", "L402-Deposit-Msat", "L402-Anything", "Idempotency-Key", "Content-Length", "X-Api-Key", "Grpc-Metadata-Token", "X-Request-Id", "User-Agent"} {
		client.Set(name, "x")
		if checkForwarded(name) == nil {
			t.Errorf("an owner can have %s forwarded", name)
		}
	}
	for _, name := range []string{"X-Data-Parallel-Rank", "OpenAI-Organization", "X-Conversation-Id", "X-Session-Id", "Traceparent", "X-OpenWebUI-User-Email"} {
		client.Set(name, "x") // no service forwards these headers
	}
	client["Connection"] = []string{"close, X-One", " x-two "}
	client.Set("X-One", "1")
	client.Set("X-Two", "2")
	client.Set("X-Three", "3")
	client["X-Four"] = []string{"4", "5"}
	for _, name := range []string{"X-One", "X-Two", "X-Three", "X-Four"} {
		if err := checkForwarded(name); err != nil {
			t.Error(err)
		}
		allowed = append(allowed, name)
	}
	got := forwardHeader(client, allowed, true, "id")
	if len(got) != 4 || got.Get("X-Three") != "3" || got.Get("Accept") == "" || got.Get("Content-Type") != "application/json" || got.Get("X-Request-Id") != "id" {
		t.Errorf("forwarded %v", got)
	}

	backend := http.Header{}
	for _, name := range []string{"WWW-Authenticate", "Set-Cookie", "L402-Cost-Msat", "Content-Length", "Content-Encoding", "Connection",
		"Proxy-Authenticate", "Strict-Transport-Security", "Alt-Svc", "Server", "Location", "Trailer", "Clear-Site-Data"} {
		backend.Set(name, "x")
	}
	for _, name := range []string{"X-Request-Id", "Openai-Organization", "X-Ratelimit-Remaining-Tokens", "Access-Control-Allow-Origin", "X-Powered-By", "Etag"} {
		backend.Set(name, "x")
	}
	backend["Content-Type"] = []string{"text/event-stream", "text/html"}
	to := http.Header{}
	passHeader(to, backend)
	if len(to) != 1 || len(to["Content-Type"]) != 1 || to.Get("Content-Type") != "text/event-stream" {
		t.Errorf("passed on %v", to)
	}
}

func TestHostName(t *testing.T) {
	for host, want := range map[string]string{"a.example": "a.example", "A.example:8080": "a.example", "[::1]": "[::1]", "[::1]:80": "[::1]", "": ""} {
		if got := hostName(host); got != want {
			t.Errorf("hostName(%q) = %q, want %q", host, got, want)
		}
	}
}

func TestRepeatsAreBounded(t *testing.T) {
	c := newRepeats(func(l402.PaymentHash) bool { return false })
	now := time.Unix(1_800_000_000, 0)
	key := func(i int) (k [sha256.Size]byte) {
		binary.BigEndian.PutUint64(k[:], uint64(i))
		return k
	}
	for i := range 3 * maxRepeats {
		c.put(key(i), minted{amount: l402.Msat(i)}, now)
	}
	if n := c.given.Len(); n > maxRepeats {
		t.Errorf("%d challenges are remembered", n)
	}
	if _, ok := c.get(key(0), now); ok {
		t.Error("the oldest entry is still there")
	}
	if m, ok := c.get(key(3*maxRepeats-1), now.Add(59*time.Second)); !ok || m.amount != 3*maxRepeats-1 {
		t.Error("the newest entry is gone")
	}
	c.put(key(1), minted{}, now.Add(2*repeatFor))
	if n := c.given.Len(); n != 1 {
		t.Errorf("%d challenges are left after the others expired", n)
	}
	// A replaced entry is not dropped when the entry that it replaced would have been dropped.
	c.put(key(1), minted{amount: 2}, now.Add(2*repeatFor+time.Second))
	c.put(key(2), minted{}, now.Add(3*repeatFor))
	if m, ok := c.get(key(1), now.Add(3*repeatFor)); !ok || m.amount != 2 {
		t.Error("a replaced entry was dropped")
	}
}

func TestDecode(t *testing.T) {
	var zipped, deflated bytes.Buffer
	z := gzip.NewWriter(&zipped)
	io.WriteString(z, "plain text")
	z.Close()
	d := zlib.NewWriter(&deflated)
	io.WriteString(d, "plain text")
	d.Close()
	for encoding, body := range map[string][]byte{"": []byte("plain text"), "identity": []byte("plain text"), "GZIP": zipped.Bytes(), "deflate": deflated.Bytes()} {
		resp := &http.Response{Header: http.Header{"Content-Encoding": {encoding}}, Body: io.NopCloser(bytes.NewReader(body))}
		if err := decode(resp); err != nil {
			t.Errorf("%s: %v", encoding, err)
			continue
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "plain text" {
			t.Errorf("%s: %q %v", encoding, got, err)
		}
	}
	for _, encoding := range []string{"br", "zstd", "gzip, gzip", "gzip, br"} {
		resp := &http.Response{Header: http.Header{"Content-Encoding": {encoding}}, Body: http.NoBody}
		if decode(resp) == nil {
			t.Errorf("%s was taken", encoding)
		}
	}
	resp := &http.Response{Header: http.Header{"Content-Encoding": {"gzip"}}, Body: io.NopCloser(strings.NewReader("not gzip"))}
	if err := decode(resp); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("garbage was decoded")
	}
}

func TestMemoFitsTheInvoice(t *testing.T) {
	sealed := strings.Repeat("s", 96)
	m := memo(strings.Repeat("p", 200), sealed)
	if len(m) > 639 || SealedMemo(m) != sealed {
		t.Errorf("memo of %d bytes gives %q", len(m), SealedMemo(m))
	}
	if SealedMemo(memo("", sealed)) != sealed || SealedMemo("") != "" {
		t.Error("memo without a product text")
	}
}

func FuzzPreferences(f *testing.F) {
	f.Add("L402-Deposit-Msat", "1000")
	f.Add("L402-Max-Cost-Msat", "-1")
	f.Add("L402-Allow-Truncate", "1")
	f.Add("L402-Client-Nonce", "0123456789abcdef")
	f.Add("Idempotency-Key", "a")
	f.Fuzz(func(t *testing.T, name, value string) {
		p, err := parsePreferences(http.Header{http.CanonicalHeaderKey(name): {value}})
		if err != nil {
			return
		}
		if !p.deposit.Valid() || p.maxCost < -1 || (p.nonce != "" && len(p.nonce) < minNonce) || len(p.idempotency) > maxIdempotency {
			t.Errorf("%s: %q gives %+v", name, value, p)
		}
	})
}

func FuzzQueryValues(f *testing.F) {
	f.Add("1700000000")
	f.Add("2026-01-02T03:04:05Z")
	f.Add("2026-01-02T03:04:05 01:00")
	f.Add("-7")
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := parseCount(s, 5); ok && n < 0 {
			t.Errorf("count %q is %d", s, n)
		}
		parseTime(s)
	})
}
