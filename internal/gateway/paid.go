package gateway

import (
	"errors"
	"net/http"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// standing is what a caller's credential is worth on a route.
type standing int

const (
	stranger standing = iota // no credential, or none that counts here: a new account
	expired                  // genuine and paid, but past its time
	holder                   // may spend
)

// authorize judges the token's caveats for a service ("": any). An error is
// final: no payment would help.
func (x *exchange) authorize(service string) (standing, error) {
	switch {
	case x.token != nil:
	case x.tokenErr == nil, errors.Is(x.tokenErr, l402.ErrMalformedCredential), errors.Is(x.tokenErr, l402.ErrUnknownToken):
		return stranger, nil
	default:
		return stranger, x.tokenErr
	}
	err := x.token.Authorize(service, x.g.now())
	switch {
	case err == nil:
		return holder, nil
	case errors.Is(err, l402.ErrOtherService):
		return stranger, nil
	case errors.Is(err, l402.ErrExpired):
		return expired, nil
	}
	return stranger, err
}

// paid is a POST to a path of an API that is sold.
func (g *Gateway) paid(x *exchange, f format.Format) error {
	svc := x.cat.serviceFor(x.r.Host)
	if svc == nil {
		return unknownRoute()
	}
	prefs, err := parsePreferences(x.r.Header)
	if err != nil {
		return err
	}
	who, err := x.authorize(svc.Name)
	if err != nil && !g.servesAny(svc) {
		return errNotServed
	}
	if err != nil {
		return err
	}
	if err := x.admitStranger(); err != nil {
		return err
	}
	body, err := x.readBody(x.cat.MaxBody)
	if err != nil {
		return err
	}
	o, err := g.order(x, svc, f, body)
	if err != nil {
		if who == stranger && blank(body) {
			return g.challengeBlank(x, svc, prefs)
		}
		return err
	}
	x.model = o.model.Name
	defer o.releasePart(x)
	if !g.serves(o.model) && !(who == holder && o.model.pool.Tries()) {
		return errNotServed
	}
	if who == holder {
		if err := x.allow(o.model.Name, f); err != nil {
			return err
		}
		if err := g.applyLock(x, o); err != nil {
			return err
		}
	}
	if err := g.withinMaxCost(x, o, prefs, who); err != nil {
		return err
	}
	if who != holder {
		return g.challengeFor(x, svc, o, prefs, who)
	}
	return g.sell(x, o, prefs)
}

// showPrice is GET and HEAD on a paid POST route: directories and link checkers look
// for the 402 in this way. A holder is told the method.
func (g *Gateway) showPrice(x *exchange) error {
	svc := x.cat.serviceFor(x.r.Host)
	if svc == nil {
		return unknownRoute()
	}
	prefs, err := parsePreferences(x.r.Header)
	if err != nil {
		return err
	}
	who, err := x.authorize(svc.Name)
	if err != nil {
		return err
	}
	if err := x.admitStranger(); err != nil {
		return err
	}
	if who == holder {
		return wrongMethod(x)
	}
	of := g.blankOffer(x, svc, prefs)
	if who == expired {
		of.detail = "the token has expired; " + of.detail
		if err := x.sameAccount(&of); err != nil {
			return err
		}
	}
	return g.challenge(x, of)
}

// challengeBlank answers a probe. It and challengeFor keep their offers off the
// stack of requests that are paid.
//
//go:noinline
func (g *Gateway) challengeBlank(x *exchange, svc *service, prefs preferences) error {
	return g.challenge(x, g.blankOffer(x, svc, prefs))
}

// challengeFor answers a caller who holds no token that counts here.
//
//go:noinline
func (g *Gateway) challengeFor(x *exchange, svc *service, o *order, prefs preferences, who standing) error {
	offer, err := g.offerTo(x, svc, o, prefs, who)
	if err != nil {
		return err
	}
	return g.challenge(x, offer)
}

// allow enforces what a holder's caveats say about models and kinds of calls.
func (x *exchange) allow(model string, f format.Format) error {
	if err := x.token.AllowModel(model); err != nil {
		return err
	}
	return format.Permit(x.token, f)
}

// withinMaxCost refuses a request whose bound is above the client's own limit.
func (g *Gateway) withinMaxCost(x *exchange, o *order, prefs preferences, who standing) error {
	if prefs.maxCost < 0 || o.least() <= prefs.maxCost {
		return nil
	}
	if who == holder {
		available, err := x.available()
		if err == nil && g.tighten(x, o, prefs, available) && o.least() <= prefs.maxCost {
			return nil
		}
	}
	return g.aboveMaxCost(o, prefs, o.least())
}

// aboveMaxCost refuses with the quote, so that the client can decide.
func (g *Gateway) aboveMaxCost(o *order, prefs preferences, required l402.Msat) error {
	p := newProblem(http.StatusPreconditionFailed, typeCostAboveMaximum,
		"this request may cost more than "+headerMaxCost+" allows; nothing was charged")
	p.Required, p.Maximum = &required, &prefs.maxCost
	(&offer{order: o}).describe(p)
	return p
}

// blankOffer answers a probe: the smallest purchase of the service.
func (g *Gateway) blankOffer(x *exchange, svc *service, prefs preferences) offer {
	of := offer{service: svc, kind: typePaymentRequired, wish: prefs.deposit,
		detail: "buy prepaid credit by paying the invoice, then send a JSON body with the credential"}
	if len(svc.models) == 1 {
		for _, m := range svc.models {
			if epoch, ok := g.cfg.Board.Live(m.Name); ok {
				of.order = &order{model: m, epoch: epoch, quoteExpiry: x.quoteExpiry()}
			}
		}
	}
	of.proveBy(x, prefs.nonce)
	return of
}

// offerTo asks a caller without a usable token to pay: a stranger for a new
// account, the holder of an expired token for the same one.
func (g *Gateway) offerTo(x *exchange, svc *service, o *order, prefs preferences, who standing) (offer, error) {
	of := offer{service: svc, kind: typePaymentRequired, order: o, required: o.required, wish: prefs.deposit,
		detail: "pay the invoice, then repeat the request with the macaroon and the preimage"}
	of.proveBy(x, prefs.nonce)
	if who == expired {
		of.detail = "the token has expired; " + of.detail
		if err := x.sameAccount(&of); err != nil {
			return of, err
		}
	}
	return of, nil
}

// sameAccount makes the offer top up the token's own account, unless the token
// is attenuated: who holds only a part must not pay for the whole.
func (x *exchange) sameAccount(of *offer) error {
	available, err := x.available()
	if err != nil {
		return err
	}
	of.balance = &available
	if !x.token.Attenuated {
		of.account = &x.token.ID
	}
	return nil
}

// available is what the token may spend, its payment included.
func (x *exchange) available() (l402.Msat, error) {
	if err := x.credit(); err != nil {
		return 0, err
	}
	ctx, cancel := x.detached(x.g.cfg.SettleWait)
	defer cancel()
	balance, err := x.g.ledger.Balance(ctx, x.token.ID, x.token.Budgets)
	return balance.Available, err
}

// insufficient turns a refused hold into an offer.
func (g *Gateway) insufficient(x *exchange, o *order, prefs preferences, short *metering.InsufficientError) offer {
	of := offer{service: o.model.service, kind: typeInsufficientBalance, order: o, required: o.required, wish: prefs.deposit,
		balance: &short.Available, detail: "the balance does not cover this request; pay the invoice to top it up, then repeat the request with the new credential"}
	if x.token.Attenuated {
		of.detail = "the token's budget does not cover this request; the invoice opens a new account"
	} else {
		of.account = &x.token.ID
	}
	of.proveBy(x, "")
	return of
}
