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
	Network bolt11.Network // of the wallet; invoices of any other are refused

	// MaxPerRequest is the largest invoice, in msat, that one request may pay.
	// Zero pays nothing: there is no default amount of somebody's money.
	MaxPerRequest l402.Msat
	// MaxTotal bounds all payments of the store together, fees included, in
	// msat and for as long as the store lives. Zero: no such bound.
	MaxTotal l402.Msat
	// MaxFee bounds the routing fee of one payment, on top of its amount. The
	// zero value takes free routes only.
	MaxFee Fee
	// PaymentTimeout bounds how long one payment is tried, and how long an
	// earlier one still in flight is waited for. Default 60 s.
	PaymentTimeout time.Duration
	// MaxBody is the largest request body, in bytes, that is kept in memory to
	// be sent again; bodies with GetBody are not kept. Default 16 MiB.
	MaxBody int64

	// BuyBeyondDelegation lets a 402 open an account of one's own where the
	// newest token is a delegated one (Token.Attenuated). The new token then
	// comes first; the delegated one stays in the store. By default such a 402
	// ends in a *BudgetError, and nothing is bought.
	BuyBeyondDelegation bool

	Base http.RoundTripper // default http.DefaultTransport
	Log  *slog.Logger      // default: nothing is logged
	Now  func() time.Time  // default time.Now
}

// Client is an http.RoundTripper that pays. It is safe for concurrent use.
type Client struct {
	cfg   Config
	nonce string

	calls calls

	mu      sync.Mutex
	origins map[string]*originState
}

// New returns a Client, or says what is wrong with cfg.
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

// RoundTrip implements http.RoundTripper. A request that already carries an
// L402 credential, and one that is not for http or https, passes through
// untouched. A 402 without an L402 challenge, and one that comes after this
// round trip has paid, is returned as it is. Errors of paying are *BudgetError,
// *InvoiceError, *PaymentError, *UnseenTokenError and ErrBodyTooLarge.
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

// trip is one RoundTrip. It is used by one goroutine.
type trip struct {
	c      *Client
	req    *http.Request
	body   func() (io.ReadCloser, error) // nil: no body; ErrBodyTooLarge on the second call if it was not kept
	size   int64                         // of the body, as http.Request.ContentLength
	origin string
	tried  map[[32]byte]bool // digests of the credentials sent so far
	both   bool              // the token goes into the header Macaroon as well

	fingerprint fingerprint // of the call; zero: not taken, or the body is too large
	key         string      // Idempotency-Key of the call; empty: none was chosen yet
	attempt     *attempt    // under that key; nil: the call is not followed
}

// retryGrace is how long the others that wait for a purchase let the payer go
// first, so that they do not spend its money before its own request is in.
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
			return resp, nil // not an L402 server
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
			t.both = true // perhaps only Authorization is lost on the way
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

// send sends the request, with the token if there is one.
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
		// Lets concurrent first requests of this process share one invoice.
		r.Header.Set("L402-Client-Nonce", t.c.nonce)
	}
	t.nameCall(r.Header, token, have)
	return t.c.cfg.Base.RoundTrip(r)
}

// maxProblem bounds how much of a 402's body is read to compare it.
const maxProblem = 64 << 10

// offer reads the challenge of a 402 and leaves the response readable. It
// returns nil where there is no challenge. After an error the response is
// closed.
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

// replayable says, before any money moves, whether the body can be sent again.
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

// keepBody makes body a source of fresh copies of the request's body. The
// original is closed here or, if it is too large to keep, by the transport.
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

// hasCredential reports whether the caller brings its own L402 credential.
func hasCredential(h http.Header) bool {
	c, err := l402.CredentialFromHeader(h)
	return c != nil || err != nil
}

// originOf returns scheme://host:port, the port always given.
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

// Origin returns the key under which a URL's tokens are stored.
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

// WithoutPaying returns a context under which requests use stored tokens but
// buy nothing: a 402 is returned as it is.
func WithoutPaying(ctx context.Context) context.Context {
	return context.WithValue(ctx, keyPaysNothing, true)
}

func paysNothing(ctx context.Context) bool { return ctx.Value(keyPaysNothing) != nil }

// Purchase tells of one payment that bought or topped up a token.
type Purchase struct {
	Token  Token
	Amount l402.Msat
	Fee    l402.Msat
}

// WithPurchases returns a context whose requests call f after each payment
// they made, before the request is sent again. f must be safe for concurrent
// use if the context is shared by requests.
func WithPurchases(ctx context.Context, f func(Purchase)) context.Context {
	return context.WithValue(ctx, keyOnPurchase, f)
}

// WithPurchaseCheck returns a context whose requests call f before each payment. An
// error of f is returned to the caller, and nothing is paid. f must be safe for
// concurrent use if the context is shared by requests.
func WithPurchaseCheck(ctx context.Context, f func(context.Context) error) context.Context {
	return context.WithValue(ctx, keyCheck, f)
}

// lastPurchase describes the newest deposit of a token that has one.
func (t Token) lastPurchase() Purchase {
	d := t.Deposits[len(t.Deposits)-1]
	return Purchase{Token: t, Amount: d.Amount, Fee: d.Fee}
}
