package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
	"sluice.example/sluice/metering"
)

// answer is an answer that was read to its end.
type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    []byte
}

func (a *answer) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("body is not JSON: %v\n%s", err, a.body)
	}
	return v
}

// msat reads an amount from the JSON body.
func (a *answer) msat(t testing.TB, name string) l402.Msat {
	t.Helper()
	n, ok := a.json(t)[name].(float64)
	if !ok {
		t.Fatalf("no number %q in %s", name, a.body)
	}
	return l402.Msat(n)
}

// wantProblem checks what all problems have in common, and returns the problem's members.
func (a *answer) wantProblem(t testing.TB, status int, kind string) map[string]any {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d\n%s", a.status, status, a.body)
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("cache control %q", got)
	}
	p := a.json(t)
	if got, _ := p["type"].(string); !strings.HasSuffix(got, kind) {
		t.Errorf("type %q, want one that ends in %q", got, kind)
	}
	if p["status"] != float64(status) || p["title"] == "" || p["detail"] == "" {
		t.Errorf("incomplete problem: %s", a.body)
	}
	if status != http.StatusPaymentRequired && a.header["Www-Authenticate"] != nil {
		t.Errorf("a challenge came with status %d", status)
	}
	return p
}

type header map[string]string

// do sends one request and reads the answer to its end.
func (r *rig) do(method, path, body string, headers header) *answer {
	r.t.Helper()
	resp := r.open(r.t.Context(), method, path, body, headers)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: read answer: %v", method, path, err)
	}
	a := &answer{resp.StatusCode, resp.Header, resp.Trailer, content}
	if method != http.MethodHead && strings.HasPrefix(path, "/v1/") && a.header.Get("Content-Type") == "application/problem+json" {
		a.wantErrorMember(r.t)
	}
	return a
}

// wantErrorMember checks that the SDKs of the route's API show the problem. None of these SDKs reads
// the member detail.
func (a *answer) wantErrorMember(t testing.TB) {
	t.Helper()
	var p struct {
		Type, Detail, Param string
		Error               struct {
			Message, Type string
			Param, Code   *string
		}
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("problem: %v\n%s", err, a.body)
	}
	named := p.Error.Param == nil && p.Param == "" || p.Error.Param != nil && *p.Error.Param == p.Param && p.Param != ""
	if p.Detail == "" || p.Error.Message != p.Detail || p.Error.Type == "" || !named && p.Type != "error" {
		t.Errorf("SDKs show nothing of this problem: %s", a.body)
	}
	if p.Type != "error" && (p.Error.Code == nil || strings.Contains(*p.Error.Code, "-")) {
		t.Errorf("the error has no code: %s", a.body)
	}
	id := a.header.Get("X-Request-Id")
	if id == "" || p.Type == "error" && a.header.Get("Request-Id") != id {
		t.Errorf("SDKs find no request id: %v", a.header)
	}
}

// open sends one request and returns the answer unread.
func (r *rig) open(ctx context.Context, method, path, body string, headers header) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

// token is a paid credential.
type token struct {
	macaroon []byte
	preimage l402.Preimage
	amount   l402.Msat
	id       l402.Identifier
}

func (k token) String() string { return l402.FormatCredential(k.macaroon, k.preimage) }

// with returns the headers of a request that pays with the token, and more headers.
func (k token) with(more ...string) header {
	h := header{"Authorization": k.String()}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return h
}

// attenuate returns the token with more caveats.
func (k token) attenuate(t testing.TB, conditions ...string) token {
	t.Helper()
	m, err := l402.Attenuate(k.macaroon, conditions...)
	if err != nil {
		t.Fatal(err)
	}
	k.macaroon = m
	return k
}

// pay pays the challenge in an answer and returns its token.
func (r *rig) pay(a *answer) token {
	r.t.Helper()
	c, err := l402.ParseChallenge(a.header["Www-Authenticate"])
	if err != nil {
		r.t.Fatalf("status %d, challenge: %v\n%s", a.status, err, a.body)
	}
	id, _, err := l402.Inspect(c.Macaroon)
	if err != nil {
		r.t.Fatal(err)
	}
	invoice := r.node.pay(r.t, c.Invoice)
	if invoice.Preimage.Hash() != id.PaymentHash {
		r.t.Fatal("the invoice is not for the macaroon's payment hash")
	}
	return token{c.Macaroon, invoice.Preimage, invoice.Amount, id}
}

// balance asks the gateway for the balance.
func (r *rig) balance(k token) *answer {
	r.t.Helper()
	a := r.do("GET", "/l402/balance", "", k.with())
	if a.status != http.StatusOK {
		r.t.Fatalf("balance: status %d\n%s", a.status, a.body)
	}
	return a
}

// wantSpent checks that the account was charged this much in all, and that nothing is held.
func (r *rig) wantSpent(k token, charged l402.Msat) {
	r.t.Helper()
	r.idle(k)
	a := r.balance(k)
	if got := a.msat(r.t, "charged_msat"); got != charged {
		r.t.Errorf("charged %d msat in all, want %d", got, charged)
	}
	if got, want := a.msat(r.t, "available_msat"), a.msat(r.t, "deposited_msat")-charged; got != want {
		r.t.Errorf("available %d msat, want %d", got, want)
	}
}

// idle waits until nothing is held on the account.
func (r *rig) idle(k token) {
	r.t.Helper()
	r.until("the hold ends", func() bool { return r.balance(k).msat(r.t, "held_msat") == 0 })
}

// usage returns the account's charges, newest first.
func (r *rig) usage(k token) []metering.Entry {
	r.t.Helper()
	a := r.do("GET", "/l402/usage", "", k.with())
	var page struct {
		Charges []metering.Entry `json:"charges"`
	}
	if err := json.Unmarshal(a.body, &page); err != nil || a.status != http.StatusOK {
		r.t.Fatalf("usage: status %d, %v\n%s", a.status, err, a.body)
	}
	return page.Charges
}

// lastCharge returns the newest charge. First it waits until nothing is held on the account.
func (r *rig) lastCharge(k token) metering.Entry {
	r.t.Helper()
	var list []metering.Entry
	r.until("the charge is recorded", func() bool { list = r.usage(k); return len(list) > 0 })
	r.idle(k)
	return r.usage(k)[0]
}

// request makes the body of a chat request. members replace the usual members; "" removes a member.
func request(members ...string) string {
	body := map[string]json.RawMessage{
		"model":       json.RawMessage(`"` + testModel + `"`),
		"messages":    json.RawMessage(`[{"role":"user","content":"Tell me about the river and its banks."}]`),
		"max_tokens":  json.RawMessage(`24`),
		"temperature": json.RawMessage(`0.7`),
		"ignore_eos":  json.RawMessage(`true`),
	}
	for i := 0; i < len(members); i += 2 {
		if members[i+1] == "" {
			delete(body, members[i])
			continue
		}
		body[members[i]] = json.RawMessage(members[i+1])
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(b)
}

const chatPath = "/v1/chat/completions"

// chat sends a chat request and reads the answer to its end.
func (r *rig) chat(k token, body string, more ...string) *answer {
	r.t.Helper()
	return r.do("POST", chatPath, body, k.with(more...))
}

// truth returns what the inference server really did for its newest request.
func (r *rig) truth() inference.Recorded {
	r.t.Helper()
	requests := r.backend.Requests()
	for _, rec := range slices.Backward(requests) {
		if rec.Path == chatPath || rec.Path == textPath {
			return rec
		}
	}
	r.t.Fatal("the backend got no request")
	return inference.Recorded{}
}

// cost returns the cost of tokens at the test's prices, in msat.
func cost(prompt, completion int) l402.Msat { return l402.Msat(prompt + 2*completion) }

// trueCost returns the cost of what the backend did for its newest request.
func (r *rig) trueCost() l402.Msat {
	rec := r.truth()
	return cost(rec.PromptTokens, rec.CompletionTokens)
}

// comment returns the cost and the balance in a stream's comment.
func comment(t testing.TB, stream []byte) (cost, balance l402.Msat) {
	t.Helper()
	for events := client.NewEventReader(bytes.NewReader(stream)); ; {
		event, err := events.Next()
		if err != nil {
			break
		}
		for _, comment := range event.Comments {
			if n, _ := fmt.Sscanf(comment, ": l402 cost_msat=%d balance_msat=%d", &cost, &balance); n == 2 {
				return cost, balance
			}
		}
	}
	t.Fatalf("no cost comment in the stream:\n%s", tail(stream))
	return 0, 0
}

func tail(b []byte) []byte { return b[max(0, len(b)-600):] }

// dataLines returns the data of a stream's events.
func dataLines(stream []byte) []string {
	var lines []string
	for events := client.NewEventReader(bytes.NewReader(stream)); ; {
		event, err := events.Next()
		if err != nil {
			return lines
		}
		if event.Data != nil {
			lines = append(lines, string(event.Data))
		}
	}
}

// readEvents reads until at least n events with data have come, and returns all bytes that it read.
func readEvents(t testing.TB, body io.Reader, n int) []byte {
	t.Helper()
	var got bytes.Buffer // may get more bytes with the last event
	for events := client.NewEventReader(io.TeeReader(body, &got)); n > 0; {
		event, err := events.Next()
		if err != nil {
			t.Fatalf("stream ended early: %v\n%s", err, tail(got.Bytes()))
		}
		if event.Data != nil {
			n--
		}
	}
	return got.Bytes()
}

func amountHeader(t testing.TB, h http.Header, name string) l402.Msat {
	t.Helper()
	n, err := strconv.ParseInt(h.Get(name), 10, 64)
	if err != nil {
		t.Fatalf("header %s is %q", name, h.Get(name))
	}
	return l402.Msat(n)
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func l402Msat(n int) l402.Msat { return l402.Msat(n) }

func amountText(m l402.Msat) string { return strconv.FormatInt(int64(m), 10) }

// contentEvents counts the events of a stream that carry text. The test's backend sends one token in
// each of them.
func contentEvents(stream []byte) (n int) {
	for _, data := range dataLines(stream) {
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
		}
		if json.Unmarshal([]byte(data), &chunk) == nil && len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			n++
		}
	}
	return n
}

// newRequest makes a request that may be used outside the test's goroutine.
func (r *rig) newRequest(method, path, body string, headers header) *http.Request {
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	return req
}

func drainBody(resp *http.Response) {
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

func repeat(s string, n int) string { return strings.Repeat(s, n) }

func newTokenID() l402.TokenID { return l402.NewTokenID() }
