package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering/format/rawjson"
)

// reason says why a caller is asked to pay.
type reason int

const (
	forCredit    reason = iota // the request has no cost that could be bounded: a probe, or a page about an account
	forRequest                 // the caller has no token that counts for the service
	forShortfall               // the balance does not cover the request
	forRest                    // the balance ran out during the answer, which was cut
	forTopUp                   // the caller wants more credit
)

// wordings has the problem type of each reason's 402 and a text for a human. ofPart replaces
// detail if the token is a part of an account, because such a payment opens a new account.
var wordings = [...]struct{ kind, detail, ofPart string }{
	forCredit:  {problem.PaymentRequired, "buy prepaid credit by paying the invoice, then send a JSON body with the credential", ""},
	forRequest: {problem.PaymentRequired, "pay the invoice, then repeat the request with the macaroon and the preimage", ""},
	forShortfall: {problem.InsufficientBalance,
		"the balance does not cover this request; pay the invoice to top it up, then repeat the request with the new credential",
		"the token's budget does not cover this request; the invoice opens a new account"},
	forRest: {problem.InsufficientBalance,
		"the balance did not last for the GPU time of the answer, which was cut and charged; pay the invoice, then repeat the request with the new credential", ""},
	forTopUp: {problem.PaymentRequired,
		"pay the invoice; the new macaroon and its preimage spend from the same account",
		"pay the invoice; it opens a new account, because this token is only a part of its account"},
}

// offer is what a 402 asks the caller to pay for, and why.
type offer struct {
	service  *service
	kind     string            // the problem type: problem.PaymentRequired or problem.InsufficientBalance
	detail   string            // what to do, for a human
	order    *order            // the order to pay for; nil: not known
	account  *l402.TokenID     // the account that a payment tops up; nil: a new account
	balance  *l402.Msat        // what a valid token has left; nil: no such token, or not known
	required l402.Msat         // the bound on the request's cost, in msat; 0: not known
	wish     l402.Msat         // the header L402-Deposit-Msat, or the amount of a top-up; 0: no wish
	proof    [sha256.Size]byte // identifies a caller that proved itself; see proveBy
	proven   bool
	inBody   bool // the JSON of the problem has the macaroon too
}

// offer returns the problem that asks the caller to pay. It makes every 402 of the gateway. o is
// the order to pay for; nil if it is not known. balance is what the token has left; nil if there
// is no token, or the balance is not known.
//
//go:noinline
func (g *Gateway) offer(x *exchange, why reason, o *order, balance *l402.Msat) error {
	words := &wordings[why]
	of := offer{service: x.service, kind: words.kind, detail: words.detail, order: o, balance: balance, inBody: why == forTopUp}
	if o != nil {
		of.required = o.required
	}
	if why == forCredit {
		of.order = g.onlyModel(x)
	}
	topsUp := why >= forShortfall
	if !topsUp && x.who == expired {
		topsUp, of.detail = true, "the token has expired; "+of.detail
	}
	if topsUp && !x.token.Attenuated { // the holder of a part must not pay for the whole account
		of.account = &x.token.ID
	} else if topsUp && words.ofPart != "" {
		of.detail = words.ofPart
	}
	if topsUp && balance == nil && why != forRest {
		available, err := x.available()
		if err != nil {
			return err
		}
		of.balance = &available
	}
	if why != forRest { // after a cut answer each 402 asks anew for what is lacking
		of.wish = x.prefs.deposit
		of.proveBy(x)
	}
	return g.challenge(x, &of)
}

// onlyModel returns an order without a request for the only model of the service, so that the
// 402 shows the model's price. It returns nil if there are several models, or no price.
func (g *Gateway) onlyModel(x *exchange) *order {
	if len(x.service.models) != 1 {
		return nil
	}
	for _, m := range x.service.models {
		if epoch, ok := g.cfg.Board.Live(m.Name); ok {
			return &order{model: m, asked: m.Name, epoch: epoch, quoteExpiry: x.quoteExpiry()}
		}
	}
	return nil
}

// blank reports whether a body asks for nothing, like the body of a directory's probe: the body
// is not JSON, or is an empty value.
func blank(body []byte) bool {
	body = bytes.TrimSpace(rawjson.TrimBOM(body))
	switch string(body) {
	case "", "{}", "null", "[]", `""`:
		return true
	}
	return !json.Valid(body)
}

// proveBy makes the offer repeatable for a caller that proved itself by a token, or by a random
// nonce.
func (o *offer) proveBy(x *exchange) {
	switch nonce := x.prefs.nonce; {
	case x.token != nil:
		o.proof, o.proven = sha256.Sum256(append([]byte("token\x00"), x.token.Copy[:]...)), true
	case nonce != "":
		o.proof, o.proven = sha256.Sum256([]byte("nonce\x00"+nonce)), true
	}
}

// amount returns the amount of the invoice in msat, in whole satoshis, by the rule of the wire
// contract: the largest of the minimum purchase, the buyer's wish, and what the balance lacks
// for the bound.
func (o *offer) amount() (l402.Msat, error) {
	lacks := o.required
	if o.account != nil && o.balance != nil {
		lacks -= *o.balance
	}
	if lacks > o.service.MaxPurchase {
		p := problem.New(http.StatusBadRequest, problem.CostAboveMaximum,
			"this request may cost more than the largest purchase; lower max_tokens or shorten the prompt")
		p.Required, p.Maximum = &o.required, &o.service.MaxPurchase
		if o.order != nil {
			o.order.describe(p)
		}
		return 0, p
	}
	return max(o.service.MinPurchase, min(o.wish, o.service.MaxPurchase), lacks).CeilSats(), nil
}

// challenge returns the answer to an offer: a 402, or the reason why no 402 can be made. It
// returns errNotServed where nothing can be served, so that nobody pays for nothing.
func (g *Gateway) challenge(x *exchange, o *offer) error {
	if !g.sells(o) {
		return errNotServed
	}
	amount, err := o.amount()
	if err != nil {
		return err
	}
	now := g.now()
	key := o.repeatKey(amount)
	mint := func() (minted, error) { return g.mint(x, o, amount, now) }
	m, repeated := minted{}, false
	if o.proven {
		m, repeated, err = x.cat.repeats.once(x.r.Context(), key, now, mint)
	} else {
		m, err = mint()
	}
	if err != nil {
		return g.noChallenge(x, o, err)
	}
	result := observe.ChallengeMade
	if repeated {
		result = observe.ChallengeRepeated
	}
	g.observer.Challenged(x.r.Context(), observe.Challenge{Service: o.service.Name, Result: result})
	p := problem.New(http.StatusPaymentRequired, o.kind, o.detail)
	p.Challenge = l402.FormatChallenge(m.macaroon, m.invoice)
	p.Amount, p.Required, p.Balance = &m.amount, &o.required, o.balance
	p.Reusable, p.PaymentHash, p.Invoice = true, m.hash.String(), m.invoice
	if o.inBody {
		p.Macaroon = base64.StdEncoding.EncodeToString(m.macaroon)
	}
	if o.order != nil {
		o.order.describe(p)
		if repeated {
			p.QuoteExpiry = &m.lock.Until // the expiry that the repeated macaroon names
		}
	}
	return p
}

// noChallenge returns the answer if the challenge failed with err.
func (g *Gateway) noChallenge(x *exchange, o *offer, err error) error {
	failed := observe.Challenge{Service: o.service.Name, Result: observe.ChallengeRefused}
	defer func() { g.observer.Challenged(x.r.Context(), failed) }()
	if gone := x.r.Context().Err(); gone != nil {
		return gone
	}
	if limited, ok := err.(*problem.Problem); ok {
		own := *limited // a copy, because others who waited for the same challenge may get the same problem
		return &own
	}
	p := problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.LightningUnavailable,
		"no invoice can be made now; tokens with a balance go on working"), lightningRetry)
	if p.Expected = errors.Is(err, errInvoicesBusy); !p.Expected {
		failed.Err = err
	}
	return p
}

// lightningRetry is how long callers are told to wait for the Lightning node. The gateway notices
// a restart of the node in about this time.
const lightningRetry = 5 * time.Second

// repeatKey returns the key of a repeatable challenge, made of caller, service, amount and price.
func (o *offer) repeatKey(amount l402.Msat) [sha256.Size]byte {
	b := make([]byte, 0, 128)
	b = append(b, o.proof[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(amount))
	b = binary.BigEndian.AppendUint64(b, uint64(o.rateLock().Epoch)) // a challenge at another price is not repeated
	return sha256.Sum256(append(b, o.service.Name...))
}

// rateLock returns the rate lock that a challenge for this offer promises.
func (o *offer) rateLock() l402.RateLock {
	if o.order == nil {
		return l402.RateLock{}
	}
	return l402.RateLock{Epoch: o.order.epoch.ID, Until: o.order.quoteExpiry}
}
