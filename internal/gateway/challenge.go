package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"sluice.example/sluice/l402"
)

// offer is what a 402 asks for and why.
type offer struct {
	service  *service
	kind     string            // typePaymentRequired or typeInsufficientBalance
	detail   string            // what to do, for a human
	order    *order            // what was asked for; nil: not known
	account  *l402.TokenID     // which account a payment tops up; nil: a new one
	balance  *l402.Msat        // of a valid token; nil: none came
	required l402.Msat         // upper bound of the request's cost; 0: not known
	wish     l402.Msat         // L402-Deposit-Msat or the amount of a top-up
	proof    [sha256.Size]byte // names a caller that proved itself
	proven   bool
	inBody   bool // the challenge is in the JSON as well
}

// minted is one challenge as it was given out. The macaroon is a secret until
// it is paid.
type minted struct {
	macaroon []byte
	invoice  string
	hash     l402.PaymentHash
	amount   l402.Msat
	lock     l402.RateLock
}

// amount applies the wire contract's rule: the largest of the minimum purchase,
// the buyer's wish and what the bound lacks, in whole satoshis.
func (o *offer) amount() (l402.Msat, error) {
	lacks := o.required
	if o.account != nil && o.balance != nil {
		lacks -= *o.balance
	}
	if lacks > o.service.MaxPurchase {
		p := newProblem(http.StatusBadRequest, typeCostAboveMaximum,
			"this request may cost more than the largest purchase; lower max_tokens or shorten the prompt")
		p.Required, p.Maximum = &o.required, &o.service.MaxPurchase
		o.describe(p)
		return 0, p
	}
	return max(o.service.MinPurchase, min(o.wish, o.service.MaxPurchase), lacks).CeilSats(), nil
}

// describe adds the price in force to a problem.
func (o *offer) describe(p *problem) {
	if o.order == nil {
		return
	}
	e, expiry := &o.order.epoch, o.order.quoteExpiry
	p.Model, p.Rates, p.Epoch, p.QuoteExpiry = o.order.asked, &e.Rates, &e.ID, &expiry
	p.Multiplier, p.Signal, p.BoundBy = &e.Multiplier, &e.Signal, e.BoundBy
}

// challenge turns an offer into the answer to the request: a 402, or the
// reason why there is none. Nobody is asked to pay for what nothing can serve.
func (g *Gateway) challenge(x *exchange, o offer) error {
	if !g.sells(&o) {
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
	g.metrics.challenged(repeated)
	p := newProblem(http.StatusPaymentRequired, o.kind, o.detail)
	p.challenge = l402.FormatChallenge(m.macaroon, m.invoice)
	p.Amount, p.Required, p.Balance = &m.amount, &o.required, o.balance
	p.Reusable, p.PaymentHash, p.Invoice = true, m.hash.String(), m.invoice
	if o.inBody {
		p.Macaroon = base64.StdEncoding.EncodeToString(m.macaroon)
	}
	o.describe(p)
	if repeated && p.QuoteExpiry != nil {
		p.QuoteExpiry = &m.lock.Until // as its macaroon says
	}
	return p
}

// noChallenge says why there is none.
func (g *Gateway) noChallenge(x *exchange, o offer, err error) error {
	g.metrics.challenges.WithLabelValues("refused").Inc()
	if gone := x.r.Context().Err(); gone != nil {
		return gone
	}
	if limited, ok := err.(*problem); ok {
		own := *limited // it may be shared with others who waited for the same challenge
		return &own
	}
	p := retryable(newProblem(http.StatusServiceUnavailable, typeLightningUnavailable,
		"no invoice can be made now; tokens with a balance go on working"), lightningRetry)
	if p.expected = errors.Is(err, errInvoicesBusy); !p.expected {
		g.log.Warn("no challenge", "service", o.service.Name, "error", err)
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

// proveBy makes the offer repeatable for a caller that proved itself: by a
// token, or else by a random nonce.
func (o *offer) proveBy(x *exchange, nonce string) {
	switch {
	case x.token != nil:
		o.proof, o.proven = sha256.Sum256(append([]byte("token\x00"), x.token.Copy[:]...)), true
	case nonce != "":
		o.proof, o.proven = sha256.Sum256([]byte("nonce\x00"+nonce)), true
	}
}

// mint makes the invoice and its macaroon. Nothing is written to the store: the
// sealed memo and the derived root key are all that is needed later.
func (g *Gateway) mint(x *exchange, o offer, amount l402.Msat, now time.Time) (minted, error) {
	if err := x.admitChallenge(); err != nil {
		return minted{}, err
	}
	release, err := x.cat.slots.acquire(x.r.Context(), x.token != nil, x.cat.InvoiceTimeout)
	if err != nil {
		return minted{}, err
	}
	defer release()
	account := l402.NewTokenID()
	if o.account != nil {
		account = *o.account
	}
	preimage := l402.NewPreimage()
	m := minted{hash: preimage.Hash(), amount: amount, lock: o.rateLock()}
	m.macaroon, err = x.cat.Keys.Mint(l402.MintParams{
		Service: o.service.Name, PaymentHash: m.hash, TokenID: account,
		Deposit: amount, ValidUntil: now.Add(o.service.TokenLifetime), RateLock: m.lock,
	})
	if err != nil {
		return m, err
	}
	// The client may hang up; the node's work is done all the same.
	ctx, cancel := x.detached(x.cat.InvoiceTimeout)
	defer cancel()
	m.invoice, err = g.cfg.Invoices.AddInvoice(ctx, Invoice{
		Preimage: preimage, Amount: amount, Expiry: x.cat.InvoiceExpiry,
		Memo: memo(x.cat.ProductText, x.cat.Keys.SealMemo(account, m.hash, amount)),
	})
	return m, err
}

// memo joins the product text that a wallet shows and the sealed token id.
func memo(product, sealed string) string {
	return strings.TrimSpace(product + " " + sealed)
}

// SealedMemo finds the sealed token id in an invoice's memo as this package
// wrote it: the last word. It is for l402.Keyring.OpenMemo, which tells an
// invoice of ours from any other.
func SealedMemo(memo string) string {
	return memo[strings.LastIndexByte(memo, ' ')+1:]
}

// invoiceSlots bounds the invoices being made at once, since every stranger can
// ask for one. A share is kept for callers who hold a token, so that a flood
// cannot stop a paying client's top-up.
type invoiceSlots struct {
	shared, reserved chan struct{}
	waiting          atomic.Int64
	maxWaiting       int64
}

// errInvoicesBusy reports that too many invoices are being made.
var errInvoicesBusy = errors.New("too many invoices are being made")

func newInvoiceSlots(limit int) *invoiceSlots {
	reserved := max(limit/4, 1)
	return &invoiceSlots{
		shared:     make(chan struct{}, max(limit-reserved, 1)),
		reserved:   make(chan struct{}, reserved),
		maxWaiting: int64(limit) * 16,
	}
}

// acquire takes a slot, waiting at most limit and while ctx lasts.
func (s *invoiceSlots) acquire(ctx context.Context, holder bool, limit time.Duration) (release func(), err error) {
	select {
	case s.shared <- struct{}{}:
		return func() { <-s.shared }, nil
	default:
	}
	var reserved chan struct{} // nil: never ready
	if holder {
		reserved = s.reserved
	} else if s.waiting.Add(1) > s.maxWaiting {
		s.waiting.Add(-1)
		return nil, errInvoicesBusy
	} else {
		defer s.waiting.Add(-1)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case s.shared <- struct{}{}:
		return func() { <-s.shared }, nil
	case reserved <- struct{}{}:
		return func() { <-s.reserved }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
		return nil, errInvoicesBusy
	}
}
