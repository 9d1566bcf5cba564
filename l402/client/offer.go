package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
)

// offer is one challenge, taken apart. It is checked, by accept, only when it
// is about to be paid.
type offer struct {
	origin  string
	invoice string          // BOLT11, undecoded
	token   Token           // what paying would buy; the preimage is still missing
	deposit string          // value of the deposit caveat, "" when there is none
	problem problem         // the server's own words about the challenge
	decoded *bolt11.Invoice // set by accept
	most    l402.Msat       // the buyer asked for so much; 0: the seller says how much
}

// problem holds the members of the problem document that must agree with the
// invoice.
type problem struct {
	Amount *l402.Msat `json:"amount_msat"`
	Hash   string     `json:"payment_hash"`

	// Why nothing was served; told to the buyer only.
	Type     string     `json:"type"`
	Required *l402.Msat `json:"required_msat"`
	Balance  *l402.Msat `json:"balance_msat"`
}

// readOffer returns the offer in a response, or an *InvoiceError.
func readOffer(origin string, h http.Header, body []byte) (*offer, error) {
	ch, err := l402.ParseChallenge(h.Values("WWW-Authenticate"))
	if err != nil {
		return nil, invoiceErrorf("%v", err)
	}
	o := &offer{origin: origin, invoice: ch.Invoice}
	if o.token, err = describe(origin, ch.Macaroon); err != nil {
		return nil, invoiceErrorf("macaroon of the challenge: %v", err)
	}
	conditions, err := o.token.Conditions()
	if err != nil {
		return nil, invoiceErrorf("macaroon of the challenge: %v", err)
	}
	if o.token.Service != "" {
		o.deposit, _ = condition(conditions, o.token.Service+"_deposit_msat")
	}
	// A server of another make has another body, or none: not an error.
	if json.Unmarshal(body, &o.problem) != nil {
		o.problem = problem{}
	}
	return o, nil
}

// describe reads from a macaroon, unverified, what a Token says about itself.
func describe(origin string, macaroon []byte) (Token, error) {
	id, conditions, err := l402.Inspect(macaroon)
	if err != nil {
		return Token{}, err
	}
	t := Token{Origin: origin, ID: id.TokenID, PaymentHash: id.PaymentHash, Macaroon: macaroon}
	if services, ok := condition(conditions, "services"); ok {
		first, _, _ := strings.Cut(services, ",")
		t.Service, _, _ = strings.Cut(first, ":") // the tier follows the colon
	}
	t.Attenuated = attenuated(conditions, t.Service)
	for _, c := range conditions { // the earliest expiry counts
		value, ok := strings.CutPrefix(c, t.Service+"_valid_until=")
		unix, err := strconv.ParseInt(value, 10, 64)
		if !ok || err != nil {
			continue
		}
		if until := time.Unix(unix, 0).UTC(); t.ValidUntil.IsZero() || until.Before(t.ValidUntil) {
			t.ValidUntil = until
		}
	}
	return t, nil
}

// attenuated reports whether a holder added anything after the deposit, which
// ends what was minted, except the preimage. Tokens of gateways of another make
// have no deposit and never count as attenuated.
func attenuated(conditions []string, service string) bool {
	minted := slices.IndexFunc(conditions, func(c string) bool { return strings.HasPrefix(c, service+"_deposit_msat=") })
	return minted >= 0 && slices.ContainsFunc(conditions[minted+1:], func(c string) bool { return !strings.HasPrefix(c, preimagePrefix) })
}

// preimagePrefix begins a caveat that carries the preimage, and so a secret.
const preimagePrefix = "preimage="

// condition returns the value of the first caveat with this name.
func condition(conditions []string, name string) (string, bool) {
	for _, c := range conditions {
		if value, ok := strings.CutPrefix(c, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// accept decodes the invoice and refuses it unless all that the challenge says
// about it agrees and the cap per request allows it. Errors: *InvoiceError,
// *BudgetError.
func (o *offer) accept(network bolt11.Network, limit l402.Msat, now time.Time) error {
	inv, err := DecodeInvoice(o.invoice, network)
	if err != nil {
		return err
	}
	switch {
	case inv.Hash != o.token.PaymentHash:
		// Paying would buy the preimage of another token, or of nobody's.
		return invoiceErrorf("its payment hash is not the macaroon's")
	case inv.Amount <= 0:
		return invoiceErrorf("it names no amount")
	case o.token.Attenuated:
		return invoiceErrorf("it would buy a part of an account, which cannot be topped up")
	case !now.Before(inv.ExpiresAt):
		return invoiceErrorf("it expired at %s", inv.ExpiresAt.UTC().Format(time.RFC3339))
	case o.problem.Amount != nil && *o.problem.Amount != inv.Amount:
		return invoiceErrorf("it asks for %s, the server's description says %s", inv.Amount, *o.problem.Amount)
	case o.problem.Hash != "" && !strings.EqualFold(o.problem.Hash, inv.Hash.String()):
		return invoiceErrorf("its payment hash is not the one in the server's description")
	}
	if o.deposit != "" {
		credit, err := l402.ParseMsat(o.deposit)
		if err != nil || credit < inv.Amount {
			return invoiceErrorf("it asks for %s, but the token credits only %q msat", inv.Amount, o.deposit)
		}
	}
	if o.most > 0 && inv.Amount > o.most {
		return invoiceErrorf("it asks for %s where %s were wanted", inv.Amount, o.most)
	}
	if inv.Amount > limit {
		return &BudgetError{Cap: capRequest, Origin: o.origin, Asked: inv.Amount, Limit: limit}
	}
	o.decoded = &inv
	return nil
}

// intent returns the record to keep before paying. accept must have passed.
func (o *offer) intent(fee Fee, now time.Time) Intent {
	return Intent{
		Origin: o.origin, Macaroon: o.token.Macaroon, Invoice: o.invoice, Hash: o.decoded.Hash,
		Amount: o.decoded.Amount, FeeLimit: fee.Limit(o.decoded.Amount), At: now, ExpiresAt: o.decoded.ExpiresAt,
	}
}

// Fee bounds what routing one payment may cost.
type Fee struct {
	Base l402.Msat // allowed for any payment
	PPM  int64     // allowed on top, in millionths of the amount
}

// Limit returns the bound for one payment, rounded down. Amounts are below 2^61 msat: the division comes first
// where the product could overflow.
func (f Fee) Limit(amount l402.Msat) l402.Msat {
	const million = 1_000_000
	whole, part := amount/million, amount%million
	return f.Base + whole*l402.Msat(f.PPM) + part*l402.Msat(f.PPM)/million
}

func (f Fee) validate() error {
	if !f.Base.Valid() || f.PPM < 0 || f.PPM > 1_000_000 {
		return fmt.Errorf("max fee: want a base of 0 or more msat and 0 to 1000000 ppm, got %s and %d ppm", f.Base, f.PPM)
	}
	return nil
}
