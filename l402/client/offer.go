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

// offer is one challenge, split into its parts. accept checks the offer just before the client pays
// it.
type offer struct {
	origin  string
	invoice string          // BOLT11, not decoded
	token   Token           // the token that paying would buy, without its preimage
	deposit string          // value of the deposit caveat; "": there is no such caveat
	problem problem         // the problem document of the answer
	decoded *bolt11.Invoice // set by accept, nil before
	most    l402.Msat       // the amount in msat that the buyer asked for; 0: the seller sets the amount
}

// problem holds members of the problem document. Amount and Hash must agree with the invoice.
type problem struct {
	Amount *l402.Msat `json:"amount_msat"`
	Hash   string     `json:"payment_hash"`

	// Type, Required and Balance say why the request was not served. They are only shown to the
	// buyer.
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
	// A server with other software may send another body or no body, which is not an error.
	if json.Unmarshal(body, &o.problem) != nil {
		o.problem = problem{}
	}
	return o, nil
}

// describe returns a Token with everything that can be read from a macaroon. The macaroon is not
// verified.
func describe(origin string, macaroon []byte) (Token, error) {
	id, conditions, err := l402.Inspect(macaroon)
	if err != nil {
		return Token{}, err
	}
	t := Token{Origin: origin, ID: id.TokenID, PaymentHash: id.PaymentHash, Macaroon: macaroon}
	if services, ok := condition(conditions, "services"); ok {
		first, _, _ := strings.Cut(services, ",")
		t.Service, _, _ = strings.Cut(first, ":") // the text after the colon is the tier
	}
	t.Attenuated = attenuated(conditions, t.Service)
	for _, c := range conditions { // the earliest expiry is in force
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

// attenuated reports whether a holder added a condition other than the preimage after the deposit
// condition, which is the last one that the gateway minted. Tokens of gateways with other software
// have no deposit condition and never count as attenuated.
func attenuated(conditions []string, service string) bool {
	minted := slices.IndexFunc(conditions, func(c string) bool { return strings.HasPrefix(c, service+"_deposit_msat=") })
	return minted >= 0 && slices.ContainsFunc(conditions[minted+1:], func(c string) bool { return !strings.HasPrefix(c, preimagePrefix) })
}

// preimagePrefix begins a condition that carries the preimage, which is a secret.
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

// accept decodes the invoice. It refuses the invoice unless everything that the challenge says
// about the invoice agrees and the cap per request allows the amount. It fails with *InvoiceError
// or *BudgetError.
func (o *offer) accept(network bolt11.Network, limit l402.Msat, now time.Time) error {
	inv, err := DecodeInvoice(o.invoice, network)
	if err != nil {
		return err
	}
	switch {
	case inv.Hash != o.token.PaymentHash:
		// Paying would buy the preimage of another token, or a preimage that belongs to no token.
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

// intent returns the record that the store keeps before the client pays. accept must have succeeded
// before.
func (o *offer) intent(fee Fee, now time.Time) Intent {
	return Intent{
		Origin: o.origin, Macaroon: o.token.Macaroon, Invoice: o.invoice, Hash: o.decoded.Hash,
		Amount: o.decoded.Amount, FeeLimit: fee.Limit(o.decoded.Amount), At: now, ExpiresAt: o.decoded.ExpiresAt,
	}
}

// Fee bounds the routing fee of one payment.
type Fee struct {
	Base l402.Msat // allowed for any payment, in msat
	PPM  int64     // allowed in addition, in millionths of the payment's amount
}

// Limit returns the largest routing fee for one payment, in msat, rounded down. Amounts are below
// 2^61 msat. The division comes before the multiplication where the product could overflow.
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
