package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
)

// ChatPath is the metered route.
const ChatPath = "/v1/chat/completions"

// Credential is a paid token.
type Credential struct {
	Macaroon []byte
	Preimage l402.Preimage
	ID       l402.Identifier
	Paid     int64 // msat
}

// Header pays with the credential.
func (k Credential) Header() http.Header {
	return http.Header{"Authorization": {l402.FormatCredential(k.Macaroon, k.Preimage)}}
}

// Attenuate adds caveats, offline.
func (k Credential) Attenuate(t testing.TB, conditions ...string) Credential {
	t.Helper()
	m, err := l402.Attenuate(k.Macaroon, conditions...)
	if err != nil {
		t.Fatal(err)
	}
	k.Macaroon = m
	return k
}

// Answer is a whole answer.
type Answer struct {
	Status  int
	Header  http.Header
	Trailer http.Header
	Body    []byte
}

// Open sends a request and returns the answer to be read.
func (g *Gateway) Open(ctx context.Context, method, path, body string, h http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, g.URL+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if h != nil {
		req.Header = h.Clone()
	}
	return g.http.Do(req)
}

// Do sends a request and reads the whole answer.
func (g *Gateway) Do(ctx context.Context, method, path, body string, h http.Header) (*Answer, error) {
	resp, err := g.Open(ctx, method, path, body, h)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return &Answer{resp.StatusCode, resp.Header, resp.Trailer, content}, nil
}

// Ask is Do within half a minute; no answer fails the test.
func (g *Gateway) Ask(t testing.TB, method, path, body string, h http.Header) *Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a, err := g.Do(ctx, method, path, body, h)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// Want checks the status.
func (a *Answer) Want(t testing.TB, status int) *Answer {
	t.Helper()
	if a.Status != status {
		t.Fatalf("status %d, want %d: %s", a.Status, status, a.Body)
	}
	return a
}

// Metrics are the operator's, by name and labels as they are written there.
func (g *Gateway) Metrics() (map[string]float64, error) {
	operator := &Gateway{URL: "http://" + g.admin, http: g.http}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := operator.Do(ctx, http.MethodGet, "/metrics", "", nil)
	if err != nil {
		return nil, err
	}
	samples := map[string]float64{}
	for line := range strings.Lines(string(a.Body)) {
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		if samples[line[:at]], err = strconv.ParseFloat(strings.TrimSpace(line[at:]), 64); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return samples, nil
}

// Chat is the body of a chat request for exactly that many tokens.
func Chat(model string, tokens int, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Tell me about the mill and the river."}],"max_tokens":%d,"ignore_eos":true,"stream":%t}`,
		model, tokens, stream)
}

// Balance is GET /l402/balance.
type Balance struct {
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

// TryBalance asks for the balance; the error names any status but 200.
func (g *Gateway) TryBalance(k Credential) (b Balance, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := g.Do(ctx, http.MethodGet, "/l402/balance", "", k.Header())
	if err != nil {
		return b, err
	}
	if a.Status != http.StatusOK {
		return b, fmt.Errorf("balance: status %d: %s", a.Status, a.Body)
	}
	return b, json.Unmarshal(a.Body, &b)
}

// Balance asks for the balance.
func (g *Gateway) Balance(t testing.TB, k Credential) Balance {
	t.Helper()
	b, err := g.TryBalance(k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Idle waits until nothing is held on the account and returns its balance.
func (g *Gateway) Idle(t testing.TB, k Credential, limit time.Duration) (b Balance) {
	t.Helper()
	Eventually(t, limit, "nothing is held", func() (err error) {
		if b, err = g.TryBalance(k); err == nil && b.Held != 0 {
			err = fmt.Errorf("%d msat are held", b.Held)
		}
		return err
	})
	return b
}

// Charge is one row of GET /l402/usage.
type Charge struct {
	Request string `json:"request_id"`
	Model   string `json:"model"`
	Usage   struct {
		Input  int64 `json:"input_tokens"`
		Output int64 `json:"output_tokens"`
	} `json:"usage"`
	Source      string `json:"source"`
	Outcome     string `json:"outcome"`
	Charged     int64  `json:"charged_msat"`
	Unbilled    int64  `json:"unbilled_msat"`
	Provisional bool   `json:"provisional"`
}

// Charges are all of the account's charges by request.
func (g *Gateway) Charges(t testing.TB, k Credential) map[string]Charge {
	t.Helper()
	all := map[string]Charge{}
	for next := ""; ; {
		a := g.Ask(t, http.MethodGet, "/l402/usage?limit=500&next="+url.QueryEscape(next), "", k.Header()).Want(t, http.StatusOK)
		var page struct {
			Charges []Charge
			Next    string
		}
		if err := json.Unmarshal(a.Body, &page); err != nil {
			t.Fatal(err)
		}
		for _, c := range page.Charges {
			all[c.Request] = c
		}
		if next = page.Next; next == "" {
			return all
		}
	}
}

// msat reads an amount from a header or a trailer, −1 when there is none.
func (a *Answer) msat(name string) int64 {
	for _, h := range []http.Header{a.Header, a.Trailer} {
		if n, err := strconv.ParseInt(h.Get(name), 10, 64); err == nil {
			return n
		}
	}
	return -1
}
