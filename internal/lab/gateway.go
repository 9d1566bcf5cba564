package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/pricing"
)

// Gateway is how a client and an operator reach a running gateway.
type Gateway struct {
	URL   string // of the listener for clients, without a path
	Admin string // of the operator's listener, without a path
	Token string // the operator's token; "": no token is needed
	HTTP  *http.Client
}

// NewGateway returns a Gateway with its own HTTP connections.
func NewGateway(url, admin, token string) *Gateway {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256}
	return &Gateway{URL: url, Admin: admin, Token: token, HTTP: &http.Client{Transport: transport}}
}

// Answer is a complete HTTP answer.
type Answer struct {
	Status  int
	Header  http.Header
	Trailer http.Header
	Body    []byte
}

// Msat reads an amount in msat from a header. When the answer has no such header, Msat reads the
// trailer of that name.
func (a *Answer) Msat(name string) (int64, error) {
	value := a.Header.Get(name)
	if value == "" {
		value = a.Trailer.Get(name)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is %q: %w", name, value, err)
	}
	return n, nil
}

// Open sends a request and returns the answer, whose body the caller reads. A header Host in h
// becomes the host of the request.
func (g *Gateway) Open(ctx context.Context, method, path, body string, h http.Header) (*http.Response, error) {
	return g.open(ctx, method, g.URL+path, body, h)
}

func (g *Gateway) open(ctx context.Context, method, url, body string, h http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if h != nil {
		req.Header = h.Clone()
	}
	if host := h.Get("Host"); host != "" {
		req.Host = host
	}
	return g.HTTP.Do(req)
}

// Do sends a request and reads the complete answer.
func (g *Gateway) Do(ctx context.Context, method, path, body string, h http.Header) (*Answer, error) {
	return readAnswer(g.Open(ctx, method, path, body, h))
}

// Operator sends a request to the operator's listener, with the token if there is one.
func (g *Gateway) Operator(ctx context.Context, method, path, body string) (*Answer, error) {
	var h http.Header
	if g.Token != "" {
		h = http.Header{"Authorization": {"Bearer " + g.Token}}
	}
	return readAnswer(g.open(ctx, method, g.Admin+path, body, h))
}

func readAnswer(resp *http.Response, err error) (*Answer, error) {
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

// into decodes the JSON of an answer. A status other than 200 is an error.
func (a *Answer) into(v any) error {
	if a.Status != http.StatusOK {
		return fmt.Errorf("status %d: %s", a.Status, a.Body)
	}
	return json.Unmarshal(a.Body, v)
}

// Ready returns nil when /readyz answers 200, and otherwise an error that says why not.
func (g *Gateway) Ready(ctx context.Context) error {
	a, err := g.Do(ctx, http.MethodGet, "/readyz", "", nil)
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("/readyz: status %d: %s", a.Status, a.Body)
	}
	return err
}

// Balance is the answer of GET /l402/balance. Its amounts are in msat.
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

// Balance returns the balance of the account whose credential is in h. A status other than 200 is
// an error.
func (g *Gateway) Balance(ctx context.Context, h http.Header) (b Balance, err error) {
	a, err := g.Do(ctx, http.MethodGet, "/l402/balance", "", h)
	if err == nil {
		err = a.into(&b)
	}
	if err != nil {
		return b, fmt.Errorf("ask for the balance: %w", err)
	}
	return b, nil
}

// Charge is one row of GET /l402/usage. Its amounts are in msat.
type Charge struct {
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

// Charges returns all charges of the account whose credential is in h, newest first.
func (g *Gateway) Charges(ctx context.Context, h http.Header) (all []Charge, err error) {
	for next := ""; ; {
		a, err := g.Do(ctx, http.MethodGet, "/l402/usage?limit=500&next="+url.QueryEscape(next), "", h)
		var page struct {
			Charges []Charge
			Next    string
		}
		if err == nil {
			err = a.into(&page)
		}
		if err != nil {
			return nil, fmt.Errorf("ask for the charges: %w", err)
		}
		all = append(all, page.Charges...)
		if next = page.Next; next == "" {
			return all, nil
		}
	}
}

// Metrics returns the operator's metrics. The key is the name with the labels, as the gateway
// writes them.
func (g *Gateway) Metrics(ctx context.Context) (map[string]float64, error) {
	a, err := g.Operator(ctx, http.MethodGet, "/metrics", "")
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", a.Status, a.Body)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the metrics: %w", err)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(string(a.Body)) {
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		if samples[line[:at]], err = strconv.ParseFloat(strings.TrimSpace(line[at:]), 64); err != nil {
			return nil, fmt.Errorf("read the metrics: %w", err)
		}
	}
	return samples, nil
}
