package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

// maxJSONBody bounds the answer's body in the object that --json prints, in bytes.
const maxJSONBody = 64 << 20

// requestFlags holds the flags of request.
type requestFlags struct {
	method, data string
	hasData      bool
	headers      http.Header
	include      bool
	newAccount   bool
	url          string
	model        string // member "model" of the request's JSON body; set by build
}

func (a *app) request(fs *pflag.FlagSet) cli.Run {
	f := flagsOfRequest(fs)
	return func(ctx context.Context, args []string) error {
		if _, err := client.Origin(args[0]); err != nil {
			return &cli.UsageError{Err: err}
		}
		f.url = args[0]
		cfg, err := a.config()
		if err != nil {
			return err
		}
		req, err := f.build(ctx, a.stdin)
		if err != nil {
			return err
		}
		ctx = buying(req.Context(), f.url, f.model, f.newAccount)
		trade, resp, err := a.do(cfg, req.WithContext(ctx))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if a.json {
			return a.requestJSON(resp, trade)
		}
		if f.include {
			if err := a.say("%s %s", resp.Proto, resp.Status); err != nil {
				return err
			}
			if err := resp.Header.Write(a.stdout); err != nil {
				return fmt.Errorf("write the result: %w", err)
			}
			if err := a.say(""); err != nil {
				return err
			}
		}
		var head headKeeper
		if _, err := io.Copy(io.MultiWriter(a.stdout, &head), trade.watch(resp)); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		fmt.Fprintf(a.stderr, "agent-client: %s: %s\n", resp.Status, trade.summary(resp))
		if resp.StatusCode >= 400 {
			return client.ReadStatusError(resp.StatusCode, head.b)
		}
		return nil
	}
}

func flagsOfRequest(fs *pflag.FlagSet) *requestFlags {
	f := &requestFlags{headers: http.Header{}}
	fs.StringVarP(&f.method, "method", "X", "", "`METHOD`; default GET, with -d POST")
	fs.FuncP("data", "d", "`BODY`, @FILE or @- for standard input; JSON unless -H says otherwise", func(s string) error {
		f.data, f.hasData = s, true
		return nil
	})
	fs.FuncP("header", "H", "`'Name: value'`, may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return fmt.Errorf("want 'Name: value'")
		}
		f.headers.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	fs.BoolVarP(&f.include, "include", "i", false, "print status and headers before the body")
	fs.BoolVar(&f.newAccount, "new-account", false, newAccountUsage)
	msatFlag := func(flag, header, usage string) {
		fs.Func(flag, usage, func(s string) error {
			n, err := l402.ParseMsat(s)
			f.headers.Set(header, strconv.FormatInt(int64(n), 10))
			return err
		})
	}
	msatFlag("max-cost-msat", "L402-Max-Cost-Msat", "have the gateway refuse, with exit code 3, if the request may cost more than `N` msat")
	msatFlag("deposit-msat", "L402-Deposit-Msat", "if something must be paid, buy credit for at least `N` msat")
	return f
}

// build returns the HTTP request. It checks the body first, because the buyer would pay a deposit
// for a body that the gateway can only refuse. Every fault of the body is a usage error. After a
// 402 the body is sent again. A body from a file is read again from the file, so it need not fit
// into memory. A body from standard input must fit into memory.
func (f *requestFlags) build(ctx context.Context, stdin io.Reader) (*http.Request, error) {
	method := f.method
	if method == "" {
		method = http.MethodGet
		if f.hasData {
			method = http.MethodPost
		}
	}
	var body io.Reader
	var b *requestBody
	if f.hasData {
		var err error
		if b, err = openBody(f.data, stdin); err != nil {
			return nil, usagef("-d: %w", err)
		}
		if err := b.check(f.contentType()); err != nil {
			return nil, usagef("-d: %w", err)
		}
		if body, err = b.open(); err != nil { // the transport closes the body
			return nil, usagef("-d: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, f.url, body)
	if err != nil {
		return nil, &cli.UsageError{Err: err}
	}
	if f.hasData {
		req.ContentLength, req.GetBody = b.size, b.open
		req.Header.Set("Content-Type", "application/json")
		f.model = b.model
	}
	for name, values := range f.headers {
		req.Header[name] = values
	}
	return req, nil
}

// contentType returns the Content-Type of the request.
func (f *requestFlags) contentType() string {
	if own := f.headers.Get("Content-Type"); own != "" {
		return own
	}
	return "application/json"
}

func (a *app) requestJSON(resp *http.Response, t *trade) error {
	body, err := io.ReadAll(io.LimitReader(t.watch(resp), maxJSONBody+1))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > maxJSONBody {
		return fmt.Errorf("the answer is larger than %d bytes: leave --json out to stream it", maxJSONBody)
	}
	result := struct {
		Status int `json:"status"`
		client.Charge
		Paid       l402.Msat `json:"paid_msat"`
		Fee        l402.Msat `json:"fee_msat"`
		RequestID  string    `json:"request_id,omitempty"`
		Body       string    `json:"body"`
		BodyBase64 []byte    `json:"body_base64,omitempty"` // set instead of Body when the body is not UTF-8
	}{Status: resp.StatusCode, Charge: t.charge(resp), RequestID: resp.Header.Get("L402-Request-Id"), Body: string(body)}
	result.Paid, result.Fee = t.paid()
	if !utf8.Valid(body) {
		result.Body, result.BodyBase64 = "", body
	}
	if err := a.print(result); err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		return &answered{client.ReadStatusError(resp.StatusCode, body)}
	}
	return nil
}

// trade records what one request pays and what the gateway charges for it.
type trade struct {
	scan client.CostScanner

	mu        sync.Mutex
	purchases []client.Purchase
}

// do sends a request that may pay. It does not follow redirects and returns them as answers, as
// curl does.
func (a *app) do(cfg *config, req *http.Request) (*trade, *http.Response, error) {
	buyer, err := a.buyer(cfg)
	if err != nil {
		return nil, nil, err
	}
	t := &trade{}
	ctx := client.WithPurchases(req.Context(), func(p client.Purchase) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.purchases = append(t.purchases, p)
	})
	hc := &http.Client{
		Transport:     buyer,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := hc.Do(req.WithContext(ctx))
	return t, resp, err
}

// watch returns the body of resp. Reading it also finds the cost in a stream.
func (t *trade) watch(resp *http.Response) io.Reader { return io.TeeReader(resp.Body, &t.scan) }

// charge returns what the gateway charged. It is complete once the body was read to its end.
func (t *trade) charge(resp *http.Response) client.Charge {
	return client.Cost(resp).Merge(t.scan.Charge())
}

func (t *trade) paid() (amount, fee l402.Msat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.purchases {
		amount += p.Amount
		fee += p.Fee
	}
	return amount, fee
}

func (t *trade) summary(resp *http.Response) string {
	known := func(m *l402.Msat) string {
		if m == nil {
			return "unknown"
		}
		return m.String()
	}
	c := t.charge(resp)
	s := fmt.Sprintf("cost %s, balance %s", known(c.Cost), known(c.Balance))
	if amount, fee := t.paid(); amount > 0 {
		s += fmt.Sprintf(", paid %s + %s fee", amount, fee)
	}
	return s
}

// headKeeper keeps the beginning of what is written to it. It keeps enough for a problem document.
type headKeeper struct{ b []byte }

func (h *headKeeper) Write(p []byte) (int, error) {
	const enough = 64 << 10
	h.b = append(h.b, p[:min(len(p), enough-len(h.b))]...)
	return len(p), nil
}
