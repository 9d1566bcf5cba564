package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	driver "sluice.example/sluice/internal/lab"
	"sluice.example/sluice/internal/lab/labtest"
)

// chatPath is the metered route.
const chatPath = "/v1/chat/completions"

// gateway is one running gateway as its clients and its operator reach it.
type gateway struct{ *driver.Gateway }

func newGateway(url, admin, token string) *gateway {
	return &gateway{driver.NewGateway(url, admin, token)}
}

// unauthorized reaches the operator's listener without the token.
func (g *gateway) unauthorized() *gateway {
	return &gateway{&driver.Gateway{URL: g.Admin, HTTP: g.HTTP}}
}

// answer is a whole answer.
type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    []byte
}

// header makes a header of names and values.
func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// requestLimit bounds every request of a test that reads its whole answer.
const requestLimit = 30 * time.Second

// do sends a request and reads the whole answer.
func (g *gateway) do(t testing.TB, method, path, body string, h http.Header) *answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	a, err := g.Do(ctx, method, path, body, h)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answerOf(a)
}

func answerOf(a *driver.Answer) *answer { return &answer{a.Status, a.Header, a.Trailer, a.Body} }

// post sends a chat request.
func (g *gateway) post(t testing.TB, body string, h http.Header) *answer {
	t.Helper()
	return g.do(t, http.MethodPost, chatPath, body, h)
}

// chat makes the body of a chat request. Members given as name and raw JSON
// replace the usual ones; an empty value leaves one out. The usual ones ask for
// exactly 24 tokens.
func chat(members ...string) string {
	body := map[string]json.RawMessage{
		"model":       json.RawMessage(`"demo"`),
		"messages":    json.RawMessage(`[{"role":"user","content":"Tell me about the mill and the river."}]`),
		"max_tokens":  json.RawMessage(`24`),
		"temperature": json.RawMessage(`0.7`),
		"ignore_eos":  json.RawMessage(`true`),
	}
	for i := 0; i+1 < len(members); i += 2 {
		if members[i+1] == "" {
			delete(body, members[i])
			continue
		}
		body[members[i]] = json.RawMessage(members[i+1])
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("a test's own JSON: %v", err))
	}
	return string(text)
}

// quoted is s as a JSON string.
func quoted(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("a test's own JSON: %v", err))
	}
	return string(text)
}

// want checks the status.
func (a *answer) want(t testing.TB, status int) *answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d\n%v\n%s", a.status, status, a.header, a.body)
	}
	return a
}

// wantProblem checks what all problems have in common, and the type's last part.
func (a *answer) wantProblem(t testing.TB, status int, kind string) map[string]any {
	t.Helper()
	a.want(t, status)
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q of a problem", got)
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("cache control %q of a problem", got)
	}
	p := a.json(t)
	if got, _ := p["type"].(string); !strings.HasSuffix(got, kind) {
		t.Errorf("problem type %q, want one that ends in %q", got, kind)
	}
	if p["status"] != float64(status) || p["title"] == "" || p["title"] == nil || p["detail"] == "" || p["detail"] == nil {
		t.Errorf("incomplete problem: %s", a.body)
	}
	if status != http.StatusPaymentRequired && a.header["Www-Authenticate"] != nil {
		t.Errorf("a challenge came with status %d", status)
	}
	return p
}

func (a *answer) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("the body is no JSON object: %v\n%s", err, a.body)
	}
	return v
}

// msat reads an amount from a header or, where the header lacks it, a trailer.
func (a *answer) msat(t testing.TB, name string) int64 {
	t.Helper()
	value := a.header.Get(name)
	if value == "" {
		value = a.trailer.Get(name)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q: %v", name, value, err)
	}
	return n
}

type (
	balance = driver.Balance
	charge  = driver.Charge
)

func (g *gateway) balance(t testing.TB, k credential) balance {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	b, err := g.Balance(ctx, k.header())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// idle waits until nothing is held on the account and returns its balance.
func (g *gateway) idle(t testing.TB, k credential) (b balance) {
	t.Helper()
	labtest.Eventually(t, 15*time.Second, "nothing is held", func() error {
		if b = g.balance(t, k); b.Held != 0 {
			return fmt.Errorf("%d msat are held", b.Held)
		}
		return nil
	})
	if b.Available != b.Deposited-b.Charged {
		t.Errorf("deposited %d − charged %d ≠ available %d msat", b.Deposited, b.Charged, b.Available)
	}
	return b
}

// charges are the account's charges, newest first.
func (g *gateway) charges(t testing.TB, k credential) []charge {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	list, err := g.Charges(ctx, k.header())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// entry waits for the charge of one request.
func (g *gateway) entry(t testing.TB, k credential, request string) (found charge) {
	t.Helper()
	labtest.Eventually(t, 15*time.Second, "request "+request+" is charged", func() error {
		for _, c := range g.charges(t, k) {
			if c.Request == request {
				found = c
				return nil
			}
		}
		return fmt.Errorf("no such charge")
	})
	return found
}

// wantFree checks that nothing was charged and nothing is held.
func (g *gateway) wantFree(t testing.TB, k credential) {
	t.Helper()
	if b := g.idle(t, k); b.Charged != 0 || b.Available != k.paid {
		t.Errorf("charged %d msat, available %d of %d: want nothing charged", b.Charged, b.Available, k.paid)
	}
}

// operator asks the operator's listener, with the token.
func (g *gateway) operator(t testing.TB, method, path string, body ...string) *answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	a, err := g.Operator(ctx, method, path, strings.Join(body, ""))
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answerOf(a)
}

// metric reads one sample of /metrics, 0 when it is not there yet.
func (g *gateway) metric(t testing.TB, sample string) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	samples, err := g.Metrics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return samples[sample]
}

func decode[T any](t testing.TB, body []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("read %T: %v\n%s", v, err, body)
	}
	return v
}

// cost is what tokens cost at the rate cards of the demo and of every gateway
// here, which is what they ask unless they are under pressure.
func cost(input, output int64) int64 { return input + 4*output }
