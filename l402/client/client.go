package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
)

// Config says what a Client may do. Wallet, Store and Network are required.
type Config struct {
	Wallet  Wallet
	Store   Store
	Network bolt11.Network // network of the wallet; an invoice of another network is refused

	// MaxPerRequest is the largest invoice, in msat, that the client pays for one request. At zero
	// the client pays nothing, because there is no good default for somebody's money.
	MaxPerRequest l402.Msat
	// MaxTotal bounds the sum of all payments of the store, routing fees included, in msat. The sum
	// is never reset while the store exists. Zero means that there is no bound.
	MaxTotal l402.Msat
	// MaxFee bounds the routing fee of one payment, on top of the payment's amount. With the zero
	// value the client uses only routes without a fee.
	MaxFee Fee
	// PaymentTimeout bounds how long the wallet tries one payment. It also bounds how long the
	// client waits for an earlier payment that is still in flight. Zero means 60 s.
	PaymentTimeout time.Duration
	// MaxBody is the largest request body, in bytes, that the client keeps in memory to send it
	// again. A body with GetBody is not kept in memory. Zero means 16 MiB.
	MaxBody int64

	// BuyBeyondDelegation lets the client answer a 402 by buying an account of its own when the
	// newest token is a delegated token (Token.Attenuated). The client then uses the bought token
	// first. The delegated token remains in the store. When BuyBeyondDelegation is false, such a
	// 402 ends in a *BudgetError, and nothing is bought.
	BuyBeyondDelegation bool

	Base http.RoundTripper // nil: http.DefaultTransport
	Log  *slog.Logger      // nil: nothing is logged
	Now  func() time.Time  // nil: time.Now
}

// Client is an http.RoundTripper that pays for requests. It is safe for concurrent use.
type Client struct {
	cfg   Config
	nonce string

	calls calls

	mu      sync.Mutex
	origins map[string]*originState
}

// New returns a Client, or an error that says what is wrong with cfg.
func New(cfg Config) (*Client, error) {
	if cfg.Wallet == nil || cfg.Store == nil {
		return nil, errors.New("client: Wallet and Store are required")
	}
	if _, err := bolt11.ParseNetwork(string(cfg.Network)); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if !cfg.MaxPerRequest.Valid() || !cfg.MaxTotal.Valid() {
		return nil, fmt.Errorf("client: caps: %w", l402.ErrMsatRange)
	}
	if err := cfg.MaxFee.validate(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if cfg.PaymentTimeout <= 0 {
		cfg.PaymentTimeout = time.Minute
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 16 << 20
	}
	if cfg.Base == nil {
		cfg.Base = http.DefaultTransport
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	return &Client{cfg: cfg, nonce: hex.EncodeToString(nonce[:]), origins: map[string]*originState{}}, nil
}

// RoundTrip implements http.RoundTripper. It passes a request on unchanged when the request already
// carries an L402 credential, or is not for http or https. It returns a 402 as it is when the 402
// has no L402 challenge, or when this round trip has already paid. Errors of paying are
// *BudgetError, *InvoiceError, *PaymentError, *UnseenTokenError and ErrBodyTooLarge.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	if hasCredential(req.Header) || (req.URL.Scheme != "http" && req.URL.Scheme != "https") {
		return c.cfg.Base.RoundTrip(req)
	}
	t := &trip{c: c, req: req, size: req.ContentLength, origin: originOf(req.URL), tried: map[[32]byte]bool{}}
	t.both = c.origin(t.origin).needsBoth()
	if err := t.keepBody(); err != nil {
		return nil, err
	}
	resp, err := t.run()
	t.noteEnd(resp, err)
	return resp, err
}

// trip is the state of one RoundTrip. Only one goroutine uses it.
type trip struct {
	c      *Client
	req    *http.Request
	body   func() (io.ReadCloser, error) // returns a fresh body; nil: no body; ErrBodyTooLarge if not kept
	size   int64                         // of the body in bytes, as http.Request.ContentLength
	origin string
	tried  map[[32]byte]bool // digests of the credentials sent so far
	both   bool              // the token is also sent in the header Macaroon

	fingerprint fingerprint // of the call; zero: no fingerprint was taken, or the body is too large
	key         string      // Idempotency-Key of the call; "": no key was chosen yet
	attempt     *attempt    // the attempt under key; nil: the client does not follow the call
}

// retryGrace is how long the goroutine that paid keeps its origin's lock while its own request is
// under way. The goroutines that wait for the purchase then do not spend its credit before that
// request has reached the gateway.
const retryGrace = time.Second

func (t *trip) run() (*http.Response, error) {
	ctx := t.req.Context()
	token, have, err := t.c.current(ctx, t.origin, t.req.URL.Path)
	if err != nil {
		return nil, err
	}
	release := func() {}
	for paid := false; ; {
		resp, err := t.send(token, have)
		release()
		if err != nil || resp.StatusCode != http.StatusPaymentRequired || paysNothing(ctx) {
			t.learn(token, have, resp)
			return resp, err
		}
		o, err := t.offer(resp)
		if err != nil {
			return nil, err
		}
		if o == nil {
			return resp, nil // the server does not speak L402
		}
		unseen := have && t.unseen(o, token)
		if paid && !unseen {
			return resp, nil
		}
		resp.Body.Close()
		if err := t.replayable(); err != nil {
			return nil, err
		}
		if unseen {
			if t.both {
				return nil, &UnseenTokenError{Origin: t.origin, Token: token.Name()}
			}
			t.both = true // perhaps a proxy on the way drops only Authorization
			continue
		}
		t.c.origin(t.origin).learn(t.req.URL.Path, o.token.Service)
		var unlock func()
		token, paid, unlock, err = t.c.obtain(ctx, o, t.tried)
		if err != nil {
			return nil, err
		}
		have = true
		release = sync.OnceFunc(unlock)
		if !paid {
			release()
		}
		timer := time.AfterFunc(retryGrace, release)
		defer timer.Stop()
	}
}

// send sends the request once. If have is true, it sends the token too.
func (t *trip) send(token Token, have bool) (*http.Response, error) {
	r := t.req.Clone(t.req.Context())
	if t.body != nil {
		b, err := t.body()
		if err != nil {
			return nil, err
		}
		r.Body, r.ContentLength = b, t.size
	}
	if have {
		t.present(r.Header, token)
		t.tried[token.digest()] = true
	} else if r.Header.Get("L402-Client-Nonce") == "" {
		// With the nonce, concurrent first requests of this process can share one invoice.
		r.Header.Set("L402-Client-Nonce", t.c.nonce)
	}
	t.nameCall(r.Header, token, have)
	return t.c.cfg.Base.RoundTrip(r)
}

// maxProblem is how many bytes of a 402's body are read for the problem document.
const maxProblem = 64 << 10

// offer reads the challenge of a 402. The caller can still read the response. offer returns nil
// when the response has no L402 challenge. When offer returns an error, it has closed the response.
func (t *trip) offer(resp *http.Response) (*offer, error) {
	if _, err := l402.ParseChallenge(resp.Header.Values("WWW-Authenticate")); errors.Is(err, l402.ErrNoChallenge) {
		return nil, nil
	}
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		resp.Body.Close()
		return nil, fmt.Errorf("read the challenge of %s: %w", t.origin, err)
	}
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), rest), rest}
	o, err := readOffer(t.origin, resp.Header, head)
	if err != nil {
		resp.Body.Close()
	}
	return o, err
}

// replayable returns an error when the body cannot be sent again. It is called before the client
// pays anything.
func (t *trip) replayable() error {
	if t.body == nil {
		return nil
	}
	b, err := t.body()
	if err != nil {
		return err
	}
	return b.Close()
}

// keepBody sets t.body to a function that returns fresh copies of the request's body. keepBody
// closes the original body. If the original is too large to keep, the transport closes it.
func (t *trip) keepBody() error {
	req, limit := t.req, t.c.cfg.MaxBody
	if req.Body == nil || req.Body == http.NoBody {
		return nil
	}
	if req.GetBody != nil {
		t.body = req.GetBody
		return req.Body.Close()
	}
	head, err := io.ReadAll(io.LimitReader(req.Body, limit+1))
	if err != nil {
		req.Body.Close()
		return fmt.Errorf("read request body: %w", err)
	}
	if int64(len(head)) <= limit {
		t.size = int64(len(head))
		t.body = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(head)), nil }
		return req.Body.Close()
	}
	once := struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), req.Body), req.Body}
	used := false
	t.body = func() (io.ReadCloser, error) {
		if used {
			return nil, ErrBodyTooLarge
		}
		used = true
		return once, nil
	}
	return nil
}

// hasCredential reports whether the caller of the client has set an L402 credential.
func hasCredential(h http.Header) bool {
	c, err := l402.CredentialFromHeader(h)
	return c != nil || err != nil
}

// originOf returns scheme://host:port. The port is always present.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// Origin returns the key under which the tokens for a URL are stored. It is scheme://host:port.
func Origin(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", fmt.Errorf("%q is no http or https URL", rawURL)
	}
	return originOf(u), nil
}

type contextKey int

const (
	keyPaysNothing contextKey = iota
	keyOnPurchase
	keyNewAccount
	keyCheck
	keyCall
)

// WithoutPaying returns a context for requests that use stored tokens but buy nothing. The client
// returns a 402 to such a request as it is.
func WithoutPaying(ctx context.Context) context.Context {
	return context.WithValue(ctx, keyPaysNothing, true)
}

func paysNothing(ctx context.Context) bool { return ctx.Value(keyPaysNothing) != nil }

// Purchase describes one payment that bought or topped up a token.
type Purchase struct {
	Token  Token
	Amount l402.Msat
	Fee    l402.Msat
}

// WithPurchases returns a context for requests that call f after each payment they made, before the
// request is sent again. When several requests share the context, f must be safe for concurrent
// use.
func WithPurchases(ctx context.Context, f func(Purchase)) context.Context {
	return context.WithValue(ctx, keyOnPurchase, f)
}

// WithPurchaseCheck returns a context for requests that call f before each payment. When f returns
// an error, nothing is paid and the request fails with that error. When several requests share the
// context, f must be safe for concurrent use.
func WithPurchaseCheck(ctx context.Context, f func(context.Context) error) context.Context {
	return context.WithValue(ctx, keyCheck, f)
}

// lastPurchase describes the newest deposit of a token. The token must have a deposit.
func (t Token) lastPurchase() Purchase {
	d := t.Deposits[len(t.Deposits)-1]
	return Purchase{Token: t, Amount: d.Amount, Fee: d.Fee}
}
