package gateway

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"sluice.example/sluice/l402"
)

// minted is one challenge that was given out. Its macaroon is secret until the invoice is paid.
type minted struct {
	macaroon []byte
	invoice  string
	hash     l402.PaymentHash
	amount   l402.Msat
	lock     l402.RateLock
}

// mint makes an invoice and its macaroon. It writes nothing to the store, because later the
// sealed memo and the derived root key are enough.
func (g *Gateway) mint(x *exchange, o *offer, amount l402.Msat, now time.Time) (minted, error) {
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
	// The client may hang up. The node makes the invoice nevertheless, so mint waits for it.
	ctx, cancel := x.detached(x.cat.InvoiceTimeout)
	defer cancel()
	m.invoice, err = g.cfg.Invoices.AddInvoice(ctx, Invoice{
		Preimage: preimage, Amount: amount, Expiry: x.cat.InvoiceExpiry,
		Memo: memo(x.cat.ProductText, x.cat.Keys.SealMemo(account, m.hash, amount)),
	})
	return m, err
}

// memo joins the product text, which a wallet shows, and the sealed token id.
func memo(product, sealed string) string {
	return strings.TrimSpace(product + " " + sealed)
}

// SealedMemo returns the sealed token id in the memo of an invoice that this package made: the
// last word. l402.Keyring.OpenMemo opens it, and rejects the memos of other invoices.
func SealedMemo(memo string) string {
	return memo[strings.LastIndexByte(memo, ' ')+1:]
}

// invoiceSlots bounds how many invoices are made at once, because every stranger can ask for an
// invoice. A quarter of the slots is only for callers with a token, so that a flood of strangers
// cannot stop the top-up of a client that pays.
type invoiceSlots struct {
	shared, reserved chan struct{}
	waiting          atomic.Int64
	maxWaiting       int64
}

// errInvoicesBusy reports that too many invoices are being made at once.
var errInvoicesBusy = errors.New("too many invoices are being made")

func newInvoiceSlots(limit int) *invoiceSlots {
	reserved := max(limit/4, 1)
	return &invoiceSlots{
		shared:     make(chan struct{}, max(limit-reserved, 1)),
		reserved:   make(chan struct{}, reserved),
		maxWaiting: int64(limit) * 16,
	}
}

// acquire takes a slot, for which it waits for limit at most, and until ctx ends. The caller must
// call release. holder says that the caller has a token.
func (s *invoiceSlots) acquire(ctx context.Context, holder bool, limit time.Duration) (release func(), err error) {
	select {
	case s.shared <- struct{}{}:
		return func() { <-s.shared }, nil
	default:
	}
	var reserved chan struct{} // a nil channel is never ready
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
