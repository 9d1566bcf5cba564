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

// reason is why a caller is asked to pay.
type reason int

const (
	forCredit    reason = iota // nothing was asked for whose cost could be bounded: a probe, a page about an account
	forRequest                 // the caller holds no token that counts here
	forShortfall               // the balance does not cover the request
	forRest                    // the balance did not last for the answer, which was cut
	forTopUp                   // the caller wants more credit
)

// wordings say what a 402 is and, for a human, what to do. ofPart stands in place of
// detail where the token is a part of an account: its payment opens a new account.
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

// offer is what a 402 asks for and why.
type offer struct {
	service  *service
	kind     string            // typePaymentRequired or typeInsufficientBalance
	detail   string            // what to do, for a human
	order    *order            // what was asked for; nil: not known
	account  *l402.TokenID     // which account a payment tops up; nil: a new one
	balance  *l402.Msat        // of a valid token; nil: none came, or it is not known
	required l402.Msat         // upper bound of the request's cost; 0: not known
	wish     l402.Msat         // L402-Deposit-Msat or the amount of a top-up
	proof    [sha256.Size]byte // names a caller that proved itself
	proven   bool
	inBody   bool // the challenge is in the JSON as well
}

// offer asks the caller to pay. Every 402 of the gateway is made here. o is what was asked
// for, nil if that is not known; balance is what the token has left, nil if it is not
// known, or there is none.
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
	if topsUp && !x.token.Attenuated { // the holder of a part must not pay for the whole
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
	if why != forRest { // of an answer that was cut: what is lacking, each time anew
		of.wish = x.prefs.deposit
		of.proveBy(x)
	}
	return g.challenge(x, &of)
}

// onlyModel is the order for a service with one model: its price is shown. nil: there are
// several, or it has no price.
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

// blank says whether a body asks for nothing, as that of a directory's probe:
// no JSON, or an empty value.
func blank(body []byte) bool {
	body = bytes.TrimSpace(rawjson.TrimBOM(body))
	switch string(body) {
	case "", "{}", "null", "[]", `""`:
		return true
	}
	return !json.Valid(body)
}

// proveBy makes the offer repeatable for a caller that proved itself: by a
// token, or else by a random nonce.
func (o *offer) proveBy(x *exchange) {
	switch nonce := x.prefs.nonce; {
	case x.token != nil:
		o.proof, o.proven = sha256.Sum256(append([]byte("token\x00"), x.token.Copy[:]...)), true
	case nonce != "":
		o.proof, o.proven = sha256.Sum256([]byte("nonce\x00"+nonce)), true
	}
}

// amount applies the wire contract's rule: the largest of the minimum purchase,
// the buyer's wish and what the bound lacks, in whole satoshis.
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

// challenge turns an offer into the answer to the request: a 402, or the
// reason why there is none. Nobody is asked to pay for what nothing can serve.
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
			p.QuoteExpiry = &m.lock.Until // as its macaroon says
		}
	}
	return p
}

// noChallenge says why there is none.
func (g *Gateway) noChallenge(x *exchange, o *offer, err error) error {
	failed := observe.Challenge{Service: o.service.Name, Result: observe.ChallengeRefused}
	defer func() { g.observer.Challenged(x.r.Context(), failed) }()
	if gone := x.r.Context().Err(); gone != nil {
		return gone
	}
	if limited, ok := err.(*problem.Problem); ok {
		own := *limited // it may be shared with others who waited for the same challenge
		return &own
	}
	p := problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.LightningUnavailable,
		"no invoice can be made now; tokens with a balance go on working"), lightningRetry)
	if p.Expected = errors.Is(err, errInvoicesBusy); !p.Expected {
		failed.Err = err
	}
	return p
}

// lightningRetry is what callers are told to wait for the node: about what a
// restart takes to be noticed.
const lightningRetry = 5 * time.Second

// repeatKey names caller, service, amount and price.
func (o *offer) repeatKey(amount l402.Msat) [sha256.Size]byte {
	b := make([]byte, 0, 128)
	b = append(b, o.proof[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(amount))
	b = binary.BigEndian.AppendUint64(b, uint64(o.rateLock().Epoch)) // another price is another offer
	return sha256.Sum256(append(b, o.service.Name...))
}

// rateLock is what a challenge for this offer promises.
func (o *offer) rateLock() l402.RateLock {
	if o.order == nil {
		return l402.RateLock{}
	}
	return l402.RateLock{Epoch: o.order.epoch.ID, Until: o.order.quoteExpiry}
}
