package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/lab/proc"
)

const mib = 1 << 20

// hostileLength is how many bytes a hostile body has: 8 MiB, the most that the gateway reads. The race detector makes
// each byte some ten times slower and looks for other defects, so that 2 MiB are enough for it.
func hostileLength() int {
	if proc.RaceDetector {
		return 2 * mib
	}
	return 8 * mib
}

// allocated returns how many bytes f makes Go allocate.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// TestHostileBodiesAreAnsweredCheaply: each body is made to cost more to read than to send. The gateway
// answers it at once, with memory in proportion to its length, and charges the holder nothing.
func TestHostileBodiesAreAnsweredCheaply(t *testing.T) {
	r := newRig(t)
	k, length := r.buy(1_000_000), hostileLength()
	fill := func(head, piece, end string) string {
		return head + strings.Repeat(piece, (length-len(head)-len(end)-64)/len(piece)) + end
	}
	prefix := `{"model":"` + testModel + `","messages":[{"role":"user","content":"hi"}],`
	for name, c := range map[string]struct {
		body             string
		stranger, holder []int
	}{
		"nested arrays":      {fill(prefix+`"a":`, "[", ""), []int{402}, []int{400}},
		"nested objects":     {fill(prefix+`"a":`, `{"a":`, ""), []int{402}, []int{400}},
		"closed nesting":     {prefix + `"a":` + strings.Repeat("[", length/2-200) + strings.Repeat("]", length/2-200) + "}", []int{400, 402}, []int{400}},
		"white space":        {strings.Repeat(" ", length), []int{402}, []int{400}},
		"white space inside": {fill(prefix, "\n", `"max_tokens":8}`), []int{402}, []int{200}},
		"one key":            {fill(prefix+`"`, "k", `":1}`), []int{400}, []int{400}},
		"many keys":          {fill(prefix, `"k":1,`, `"k":1}`), []int{400}, []int{400}},
		"many messages":      {fill(`{"model":"`+testModel+`","messages":[`, "{},", "{}]}"), []int{400, 402}, []int{400, 402}},
		"messages in number": {fill(`{"model":"`+testModel+`","max_tokens":8,"messages":[`, `{"role":"user","content":""},`, `{"role":"user","content":"x"}]}`), []int{400, 402}, []int{200, 400, 402}},
		"a long number":      {fill(prefix+`"max_tokens":`, "9", "}"), []int{400, 402}, []int{200}}, // the model's own cap is lower
		"a long fraction":    {fill(prefix+`"temperature":0.`, "1", "}"), []int{402}, []int{200, 400, 402}},
		"escapes":            {fill(`{"model":"`+testModel+`","max_tokens":8,"messages":[{"role":"user","content":"`, `\u00e9`, `"}]}`), []int{400, 402}, []int{200, 400, 402}},
		"lone surrogates":    {fill(`{"model":"`+testModel+`","max_tokens":8,"messages":[{"role":"user","content":"`, `\ud800`, `"}]}`), []int{400, 402}, []int{200, 400, 402}},
		"invalid UTF-8":      {fill(prefix+`"user":"`, "\xff", `"}`), []int{400, 402}, []int{400}},
		"zero bytes":         {strings.Repeat("\x00", length), []int{402}, []int{400}},
	} {
		for who, h := range map[string]header{"stranger": {}, "holder": k.with()} {
			want := c.stranger
			if who == "holder" {
				want = c.holder
			}
			started, passedOn := time.Now(), len(r.backend.Requests())
			var a *answer
			cost := allocated(func() { a = r.do("POST", chatPath, c.body, h) })
			ok := false
			for _, status := range want {
				ok = ok || a.status == status
			}
			if !ok {
				t.Errorf("%s by a %s: status %d, want %v\n%.300s", name, who, a.status, want, a.body)
			}
			if took := time.Since(started); took > 20*time.Second { // under one second, except with the race detector on a busy machine
				t.Errorf("%s by a %s took %v", name, who, took)
			}
			// The factor covers a buffer that doubles, and the parser's copies. For a body that was
			// passed on, the test's backend makes copies too.
			if cost > int64(8*len(c.body)) && len(r.backend.Requests()) == passedOn {
				t.Errorf("%s by a %s: %d bytes were allocated for a body of %d", name, who, cost, len(c.body))
			}
		}
	}
	r.idle(k)
	if left := r.metric(`sluice_body_bytes{caller="holder"}`) + r.metric(`sluice_body_bytes{caller="stranger"}`); left != 0 {
		t.Errorf("%v bytes of bodies are still counted", left)
	}
}

func TestLengthsThatLie(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.MaxBody, c.BodyGrace = mib, 300*time.Millisecond }
	})
	for name, c := range map[string]struct {
		request string
		status  []int
	}{
		"claims more than is allowed":  {post(chatPath, header{"Content-Length": "99999999"}, "{}"), []int{413}},
		"claims much and sends little": {post(chatPath, header{"Content-Length": "1000000"}, "{}"), []int{408}},
		"a length beyond all numbers":  {post(chatPath, header{"Content-Length": "99999999999999999999999999"}, "{}"), []int{400}},
		"a negative length":            {post(chatPath, header{"Content-Length": "-1"}, "{}"), []int{400}},
		"a length in hex":              {post(chatPath, header{"Content-Length": "0x10"}, "{}"), []int{400}},
		"a length with a sign":         {post(chatPath, header{"Content-Length": "+2"}, "{}"), []int{400}},
		"chunks without end": {post(chatPath, header{"Transfer-Encoding": "chunked"},
			strings.Repeat("10000\r\n"+strings.Repeat(" ", 0x10000)+"\r\n", 17)), []int{413}},
		"a chunk beyond all numbers": {post(chatPath, header{"Transfer-Encoding": "chunked"}, "FFFFFFFFFFFFFFFFF\r\n{}"), []int{400, 408}},
		"a chunk that is not hex":    {post(chatPath, header{"Transfer-Encoding": "chunked"}, "zz\r\n{}"), []int{400, 408}},
		"chunk extensions": {post(chatPath, header{"Transfer-Encoding": "chunked"},
			strings.Repeat("1;"+strings.Repeat("e", 2000)+"\r\n \r\n", 100)), []int{400, 408}},
		"a compressed body": {post(chatPath, header{"Content-Encoding": "gzip"}, "\x1f\x8b"), []int{415}},
	} {
		conn := r.dial("")
		if _, err := io.WriteString(conn, c.request); err != nil && c.status[0] != 413 {
			t.Errorf("%s: %v", name, err)
		}
		a, err := conn.answer(5 * time.Second)
		if err != nil {
			t.Errorf("%s: no answer: %v", name, err)
			continue
		}
		ok := false
		for _, status := range c.status {
			ok = ok || a.status == status
		}
		if !ok {
			t.Errorf("%s: status %d, want %v\n%s", name, a.status, c.status, a.body)
		}
		if name != "a compressed body" && !conn.closed(5*time.Second) {
			t.Errorf("%s: the connection was kept", name)
		}
	}
	if r.node.count() != 0 {
		t.Errorf("%d invoices were made", r.node.count())
	}
	r.until("nothing is counted", func() bool { return r.metric(`sluice_body_bytes{caller="stranger"}`) == 0 })
}

// TestAmbiguousFramingIsNotPassedOn: framing that a proxy in front and the gateway could understand
// differently is refused, or understood as RFC 9112 says. It never reaches a backend as it is.
func TestAmbiguousFramingIsNotPassedOn(t *testing.T) {
	r := newRig(t)
	k := r.buy(1_000_000)
	body := request("max_tokens", "4")
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	cl := strconv.Itoa(len(body))
	lines := func(more ...string) string {
		return "POST " + chatPath + " HTTP/1.1\r\nHost: gateway\r\nAuthorization: " + k.String() + "\r\n" + strings.Join(more, "\r\n") + "\r\n\r\n"
	}
	for name, c := range map[string]struct {
		request string
		answers []int // in order; after them the connection is closed or waits
	}{
		"length and chunks: the chunks count": {lines("Content-Length: 4", "Transfer-Encoding: chunked") + chunked, []int{200}},
		"two lengths":                         {lines("Content-Length: "+cl, "Content-Length: 4") + body, []int{400}},
		"lengths in one line":                 {lines("Content-Length: "+cl+", 4") + body, []int{400}},
		"an unknown coding":                   {lines("Transfer-Encoding: xchunked") + chunked, []int{501}},
		"chunked twice":                       {lines("Transfer-Encoding: chunked, chunked") + chunked, []int{501}},
		"two codings":                         {lines("Transfer-Encoding: chunked", "Transfer-Encoding: identity") + chunked, []int{400, 501}},
		"a coding with a space":               {lines("Transfer-Encoding : chunked", "Content-Length: "+cl) + body, []int{400}},
		"a folded header":                     {lines("X-A: b\r\n c", "Content-Length: "+cl) + body, []int{200, 400}},
		"two hosts":                           {lines("Host: other", "Content-Length: "+cl) + body, []int{400}},
		"a zero byte in a header":             {lines("X-A: a\x00b", "Content-Length: "+cl) + body, []int{400}},
		"pipelined":                           {lines("Content-Length: "+cl) + body + lines("Content-Length: "+cl) + body, []int{200}},
		"two credentials":                     {lines("Authorization: L402 AA:bb", "Content-Length: "+cl) + body, []int{400}},
	} {
		before := len(r.backend.Requests())
		conn := r.dial("")
		conn.send(c.request)
		a, err := conn.answer(10 * time.Second)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ok := false
		for _, status := range c.answers {
			ok = ok || a.status == status
		}
		if !ok {
			t.Errorf("%s: status %d, want %v\n%s", name, a.status, c.answers, a.body)
		}
		most := 1
		if name == "pipelined" {
			most = 2
			if a := conn.mustAnswer(10 * time.Second); a.status != http.StatusOK {
				t.Errorf("%s: the second got %d", name, a.status)
			}
		}
		if a.status != http.StatusOK {
			most = 0
		}
		if got := len(r.backend.Requests()) - before; got != most {
			t.Errorf("%s: the backend got %d requests, want %d", name, got, most)
		}
		conn.Close()
	}
	r.idle(k)
	for _, rec := range r.backend.Requests() {
		if rec.Path != chatPath {
			t.Errorf("the backend was asked for %s", rec.Path)
		}
	}
}

func TestManyHeadersAreBounded(t *testing.T) {
	r := newRig(t)
	few := strings.Repeat("X-A: b\r\n", 5000)
	c := r.dial("")
	c.send("GET /healthz HTTP/1.1\r\nHost: gateway\r\n" + few + "\r\n")
	if a := c.mustAnswer(5 * time.Second); a.status != http.StatusOK {
		t.Errorf("many small headers: status %d", a.status)
	}
	c = r.dial("")
	endless := "GET /healthz HTTP/1.1\r\nHost: gateway\r\n" + strings.Repeat(few, 100)
	cost := allocated(func() {
		_, _ = io.WriteString(c, endless) // 4 MB; the gateway may close the connection before the end
		if a, err := c.answer(5 * time.Second); err == nil && a.status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("endless headers: status %d", a.status)
		}
	})
	if cost > 6*mib { // the test's own copy takes 4 MiB of this
		t.Errorf("%d bytes were allocated", cost)
	}
}

// TestLargeBodiesOfStrangersShareAPart: strangers who send large bodies share a part of the memory.
// Chats of usual size, and callers who pay, are still served.
func TestLargeBodiesOfStrangersShareAPart(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.MaxBodies = 16 * mib } // 2 MiB of these are for strangers
	})
	k := r.buy(1_000_000)
	large := request("user", `"`+repeat("y", 900<<10)+`"`)
	head := post(chatPath, header{"Content-Length": strconv.Itoa(len(large))}, "")
	var waiting []*raw
	refused := 0
	for range 8 { // everything except the last byte
		c := r.dial("")
		if _, err := io.WriteString(c, head+large[:len(large)-1]); err == nil {
			waiting = append(waiting, c)
		}
		if a, err := c.answer(300 * time.Millisecond); err == nil {
			a.wantProblem(t, http.StatusServiceUnavailable, "queue-full")
			if a.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			refused++
		}
	}
	if refused != 6 {
		t.Errorf("%d of 8 large bodies were refused, want 6", refused)
	}
	if used := r.metric(`sluice_body_bytes{caller="stranger"}`); used > 2*mib || used < mib {
		t.Errorf("%v bytes are counted", used)
	}
	r.do("POST", chatPath, request(), nil).wantProblem(t, http.StatusPaymentRequired, "payment-required")
	if a := r.chat(k, request("user", `"`+repeat("y", 900<<10)+`"`, "max_tokens", "4")); a.status != http.StatusOK && a.status != http.StatusPaymentRequired {
		t.Errorf("a holder's large body: %d\n%s", a.status, a.body)
	}
	for _, c := range waiting {
		c.Close()
	}
	r.until("the memory is free", func() bool { return r.metric(`sluice_body_bytes{caller="stranger"}`) == 0 })
	// A large body is priced again.
	a := r.do("POST", chatPath, large, nil)
	if a.status != http.StatusPaymentRequired && a.status != http.StatusBadRequest {
		t.Errorf("status %d\n%s", a.status, a.body)
	}
}

func TestRequestsAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.MaxRequests = 16 }
	})
	k := r.buy(1_000_000)
	served := 0
	for range 20 { // each waits for its body
		c := r.dial("")
		c.send(post(chatPath, header{"Content-Length": "10"}, "{"))
		if a, err := c.answer(200 * time.Millisecond); err == nil {
			a.wantProblem(t, http.StatusServiceUnavailable, "queue-full")
		} else {
			served++
		}
	}
	if served != 12 {
		t.Errorf("%d strangers were let in, want three quarters of 16", served)
	}
	r.wantServed(k)
	if a := r.do("GET", "/healthz", "", nil); a.status != http.StatusOK {
		t.Errorf("healthz: %d", a.status)
	}
}
