package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"sluice.example/sluice/l402"
)

// ErrNoToken reports that the store holds no token for a gateway. The client buys a token when it
// makes a paid request.
var ErrNoToken = errors.New("no token stored for this gateway: make a paid request first")

// ErrDelegated reports that the newest token of a gateway is a delegated part of an account. Only a
// holder of the whole account can top the account up.
var ErrDelegated = errors.New("the token for this gateway is a delegated part of an account: only who delegated it can top the account up, or delegate more")

// StatusError is a gateway's answer that is not the resource which the client asked for. The fields
// other than Status come from the answer's problem document. They are empty when the answer has no
// problem document.
type StatusError struct {
	Status int    `json:"status"`
	Type   string `json:"type"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

// Error returns the status and the gateway's own words.
func (e *StatusError) Error() string {
	text := e.Title
	if text == "" {
		text = http.StatusText(e.Status)
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return fmt.Sprintf("gateway answered %d %s", e.Status, text)
}

// Balance is the answer of GET /l402/balance. All amounts are in msat. A nil field means that the
// gateway does not tell this amount to the holder of a delegated token.
type Balance struct {
	Account   string     `json:"account"` // token id, hex
	Available l402.Msat  `json:"available_msat"`
	Held      *l402.Msat `json:"held_msat,omitempty"`
	Deposited *l402.Msat `json:"deposited_msat,omitempty"`
	Charged   *l402.Msat `json:"charged_msat,omitempty"`
	Refunded  *l402.Msat `json:"refunded_msat,omitempty"`
	Budgets   []Budget   `json:"budgets"`
}

// Budget is the state of one delegated budget of the token. Its amounts are in msat.
type Budget struct {
	Label     string    `json:"label"`
	Limit     l402.Msat `json:"limit_msat"`
	Available l402.Msat `json:"available_msat"`
}

// Balance asks the gateway at base for the balance of the newest token stored for that gateway.
// Balance pays nothing. It fails with ErrNoToken or *StatusError.
func (c *Client) Balance(ctx context.Context, base string) (Balance, error) {
	origin, err := Origin(base)
	if err != nil {
		return Balance{}, err
	}
	t, ok, err := c.current(ctx, origin, "")
	if err != nil {
		return Balance{}, err
	}
	if !ok {
		return Balance{}, ErrNoToken
	}
	return c.balanceOf(ctx, base, t)
}

func (c *Client) balanceOf(ctx context.Context, base string, t Token) (Balance, error) {
	var b Balance
	_, body, err := c.call(ctx, http.MethodGet, base, "/l402/balance", nil, &t)
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return b, fmt.Errorf("read balance: %w", err)
	}
	return b, nil
}

// Quote asks the gateway at base for the most that a request may cost, and returns the gateway's
// JSON. The values v are those of the gateway's endpoint: model, path, input_tokens, max_tokens,
// searches, documents. Quote needs no token and pays nothing. It fails with *StatusError when the
// gateway refuses.
func (c *Client) Quote(ctx context.Context, base string, v url.Values) (json.RawMessage, error) {
	if _, err := Origin(base); err != nil {
		return nil, err
	}
	_, body, err := c.call(ctx, http.MethodGet, base, "/l402/quote?"+v.Encode(), nil, nil)
	if err == nil && !json.Valid(body) {
		err = errors.New("read quote: the answer is not JSON")
	}
	return body, err
}

// TopUp buys more credit, in msat, for the account of the newest token stored for the gateway at
// base. It stores the new credential and sends it to the gateway. The account stays the same. The
// client pays the amount rounded up to whole satoshis.
//
// A gateway may ask for more than that, when its smallest purchase is larger. The client then
// refuses with an *InvoiceError that names the smallest purchase. If the outcome of an earlier
// purchase was unknown and TopUp finds that it succeeded, TopUp returns the earlier purchase and
// pays nothing, because a user who repeats a command would otherwise pay twice. TopUp fails with
// ErrNoToken, ErrDelegated, *StatusError or an error of RoundTrip.
func (c *Client) TopUp(ctx context.Context, base string, amount l402.Msat) (Purchase, Balance, error) {
	origin, err := Origin(base)
	if err != nil {
		return Purchase{}, Balance{}, err
	}
	unlock, err := c.cfg.Store.Lock(ctx, origin)
	if err != nil {
		return Purchase{}, Balance{}, err
	}
	t, err := c.topUp(ctx, base, origin, amount, &unlock)
	unlock()
	if err != nil {
		return Purchase{}, Balance{}, err
	}
	b, err := c.balanceOf(ctx, base, t)
	if err != nil {
		err = fmt.Errorf("paid and stored, but not presented yet (the next request does): %w", err)
	}
	return t.lastPurchase(), b, err
}

func (c *Client) topUp(ctx context.Context, base, origin string, amount l402.Msat, unlock *func()) (Token, error) {
	bought, err := c.resolveAll(ctx, origin, c.cfg.PaymentTimeout)
	if err != nil {
		return Token{}, err
	}
	tokens, err := c.reload(origin)
	if err != nil {
		return Token{}, err
	}
	t, ok := pick(tokens, origin, "")
	if !ok {
		return Token{}, ErrNoToken
	}
	if t.Attenuated {
		return Token{}, ErrDelegated
	}
	for _, b := range bought {
		if b.ID == t.ID {
			return b, nil
		}
	}
	h, body, err := c.call(ctx, http.MethodPost, base, "/l402/topup", fmt.Appendf(nil, `{"amount_msat":%d}`, amount), &t)
	if err != nil {
		return Token{}, err
	}
	o, err := readOffer(origin, h, body)
	if err != nil {
		return Token{}, err
	}
	if o.token.ID != t.ID {
		return Token{}, invoiceErrorf("it would pay for another account than %s", t.ID)
	}
	if asked := o.problem.Amount; asked != nil && *asked > amount.CeilSats() {
		return Token{}, invoiceErrorf("it asks for %s where %s were wanted: the gateway sells no less at a time", *asked, amount)
	}
	o.most = amount.CeilSats()
	return c.buy(ctx, o, unlock)
}

// maxAnswer is how many bytes of an answer of the gateway's own endpoints are read.
const maxAnswer = 1 << 20

// call sends one request to a gateway's own endpoint. An answer with 402 to a POST is not an error.
// The caller of call reads the challenge, which may come with 402 or with a success status.
func (c *Client) call(ctx context.Context, method, base, path string, body []byte, t *Token) (http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(base, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if t != nil {
		// The token goes into two headers, because a proxy on the way may drop the first.
		(&trip{both: true}).present(req.Header, *t)
	}
	resp, err := c.cfg.Base.RoundTrip(req)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", method, req.URL.Path, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w", method, req.URL.Path, err)
	}
	challenge := resp.StatusCode == http.StatusPaymentRequired && method == http.MethodPost
	if resp.StatusCode/100 != 2 && !challenge {
		return nil, nil, ReadStatusError(resp.StatusCode, answer)
	}
	return resp.Header, answer, nil
}

// ReadStatusError reads the body of a failed answer. When the body is not a problem document, only
// Status is set.
func ReadStatusError(status int, body []byte) *StatusError {
	var e StatusError
	if json.Unmarshal(body, &e) != nil {
		e = StatusError{}
	}
	e.Status = status
	return &e
}
