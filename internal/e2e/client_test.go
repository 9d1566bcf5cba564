package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/pricing"
)

// chatPath is the metered route.
const chatPath = "/v1/chat/completions"

// gateway is one running gateway as its clients and its operator reach it.
type gateway struct {
	url, admin, token string
	http              *http.Client
}

func newGateway(url, admin, token string) *gateway {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}
	return &gateway{url: url, admin: admin, token: token, http: &http.Client{Transport: transport}}
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

// open sends a request and returns the answer to be read.
func (g *gateway) open(ctx context.Context, method, path, body string, h http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, g.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = h.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if host := h.Get("Host"); host != "" {
		req.Host = host
	}
	return g.http.Do(req)
}

// requestLimit bounds every request of a test that reads its whole answer.
const requestLimit = 30 * time.Second

// do sends a request and reads the whole answer.
func (g *gateway) do(t testing.TB, method, path, body string, h http.Header) *answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	resp, err := g.open(ctx, method, path, body, h)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", method, path, err)
	}
	return &answer{resp.StatusCode, resp.Header, resp.Trailer, content}
}

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

// balance is GET /l402/balance.
type balance struct {
	Account   string `json:"account"`
	Available int64  `json:"available_msat"`
	Held      int64  `json:"held_msat"`
	Deposited int64  `json:"deposited_msat"`
	Charged   int64  `json:"charged_msat"`
	Refunded  int64  `json:"refunded_msat"`
	Budgets   []struct {
		Label     string `json:"label"`
		Limit     int64  `json:"limit_msat"`
		Available int64  `json:"available_msat"`
	} `json:"budgets"`
}

func (g *gateway) balance(t testing.TB, k credential) balance {
	t.Helper()
	a := g.do(t, http.MethodGet, "/l402/balance", "", k.header()).want(t, http.StatusOK)
	return decode[balance](t, a.body)
}

// idle waits until nothing is held on the account and returns its balance.
func (g *gateway) idle(t testing.TB, k credential) (b balance) {
	t.Helper()
	eventually(t, 15*time.Second, "nothing is held", func() error {
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

// charge is one row of GET /l402/usage.
type charge struct {
	Request string    `json:"request_id"`
	At      time.Time `json:"at"`
	Service string    `json:"service"`
	Model   string    `json:"model"`
	Usage   struct {
		Input  int64 `json:"input_tokens"`
		Cached int64 `json:"cached_input_tokens"`
		Output int64 `json:"output_tokens"`
		Calls  int64 `json:"calls"`
	} `json:"usage"`
	Source      string        `json:"source"`
	Outcome     string        `json:"outcome"`
	Charged     int64         `json:"charged_msat"`
	Unbilled    int64         `json:"unbilled_msat"`
	Epoch       int64         `json:"price_epoch"`
	Rates       pricing.Rates `json:"rates"`
	Provisional bool          `json:"provisional"`
}

// charges are the account's charges, newest first.
func (g *gateway) charges(t testing.TB, k credential) []charge {
	t.Helper()
	a := g.do(t, http.MethodGet, "/l402/usage", "", k.header()).want(t, http.StatusOK)
	return decode[struct{ Charges []charge }](t, a.body).Charges
}

// entry waits for the charge of one request.
func (g *gateway) entry(t testing.TB, k credential, request string) (found charge) {
	t.Helper()
	eventually(t, 15*time.Second, "request "+request+" is charged", func() error {
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
	side := &gateway{url: g.admin, http: g.http}
	return side.do(t, method, path, strings.Join(body, ""), header("Authorization", "Bearer "+g.token))
}

// metric reads one sample of /metrics, 0 when it is not there yet.
func (g *gateway) metric(t testing.TB, sample string) float64 {
	t.Helper()
	for line := range strings.Lines(string(g.operator(t, http.MethodGet, "/metrics").want(t, http.StatusOK).body)) {
		if value, ok := strings.CutPrefix(line, sample+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatalf("metric %s: %v", sample, err)
			}
			return n
		}
	}
	return 0
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
