package gateway_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fullSize runs the tests of abuse with as many callers as the threat model names. To set it, run
// go test ./internal/gateway -abuse.
var fullSize = flag.Bool("abuse", false, "run the tests of abuse at full size")

// crowd returns how many callers a test has: full with the flag -abuse, otherwise few. Each caller
// takes this many file descriptors; if there are too few, crowd returns a lower number.
func crowd(t *testing.T, few, full, descriptors int) int {
	t.Helper()
	n := few
	if *fullSize {
		n = full
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if most := (int(limit.Cur) - 200) / descriptors; n > most {
		t.Logf("%d file descriptors allow %d callers, not %d", limit.Cur, most, n)
		n = most
	}
	return n
}

// raw is a connection on which a test can write anything.
type raw struct {
	net.Conn
	t      testing.TB
	reader *bufio.Reader
}

// dial connects to the gateway, from the address from unless from is "".
func (r *rig) dial(from string) *raw {
	r.t.Helper()
	c, err := r.dialFrom(from)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (r *rig) dialFrom(from string) (*raw, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		return nil, err
	}
	return &raw{c, r.t, bufio.NewReader(c)}, nil
}

func (c *raw) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one whole answer within the time limit.
func (c *raw) answer(limit time.Duration) (*answer, error) {
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return &answer{resp.StatusCode, resp.Header, resp.Trailer, body}, err
}

func (c *raw) mustAnswer(limit time.Duration) *answer {
	c.t.Helper()
	a, err := c.answer(limit)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	return a
}

// closed reports whether the gateway closes the connection within the time limit. It skips what the
// gateway still sends.
func (c *raw) closed(limit time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	_, err := io.Copy(io.Discard, c.reader)
	var timeout net.Error
	return !(errors.As(err, &timeout) && timeout.Timeout())
}

// post returns the text of a POST request.
func post(path string, headers header, body string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: gateway\r\n", path)
	for name, value := range headers {
		fmt.Fprintf(&b, "%s: %s\r\n", name, value)
	}
	if headers["Content-Length"] == "" && headers["Transfer-Encoding"] == "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return b.String()
}

// memory returns the bytes of heap and stacks that Go uses after a collection.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// metric returns one metric's value; 0 if the metric is absent.
func (r *rig) metric(name string) float64 {
	r.t.Helper()
	for line := range strings.SplitSeq(r.metrics(), "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// wantServed checks that a caller with a token still gets a stream, an answer and a top-up, each
// within a few seconds.
func (r *rig) wantServed(k token) {
	r.t.Helper()
	started := time.Now()
	if a := r.chat(k, request("stream", "true")); a.status != http.StatusOK || !strings.Contains(string(a.body), "data: [DONE]") {
		r.t.Errorf("a paid stream got %d\n%s", a.status, tail(a.body))
	}
	if a := r.chat(k, request()); a.status != http.StatusOK {
		r.t.Errorf("a paid request got %d\n%s", a.status, a.body)
	}
	wish := 60_000 + 1000*int(time.Since(r.born).Milliseconds()) // a new amount needs a new invoice
	a := r.do("POST", "/l402/topup", fmt.Sprintf(`{"amount_msat":%d}`, min(wish, maxPurchase)), k.with())
	a.wantProblem(r.t, http.StatusPaymentRequired, "payment-required")
	if more := r.pay(a); r.balance(more).status != http.StatusOK {
		r.t.Error("the top-up was not credited")
	}
	if took := time.Since(started); took > 5*time.Second {
		r.t.Errorf("a paying client waited %v", took)
	}
}
