package l402

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"slices"
	"time"
)

// ChainID names the chain of budgets that a token spends through: the SHA-256
// of the macaroon's signature at its innermost budget caveat, zero when there
// is none. The signature itself is bearer material; this is not.
type ChainID [32]byte

// String renders the id in lower-case hex.
func (c ChainID) String() string { return hex.EncodeToString(c[:]) }

// Budget is one sub-budget that a holder opened with a budget caveat.
type Budget struct {
	ID    [32]byte // SHA-256 of the macaroon's signature at that caveat
	Limit Msat     // all that may ever be spent through it
	Label string   // free text of the holder, up to MaxLabelSize bytes
	// ValidUntil is the earliest expiry caveat before the budget's own caveat, in
	// unix seconds; 0: none. No token that names this budget is valid later, because
	// a holder can only make an expiry earlier.
	ValidUntil int64
}

// RateLimit is one limit on requests that a holder added.
type RateLimit struct {
	ID        [32]byte // SHA-256 of the macaroon's signature at that caveat
	PerMinute int64    // 1..MaxRequestsPerMinute
}

// Token is a credential proven genuine and paid. Its caveats are read, but
// what they forbid is enforced only by Authorize, AllowModel and
// AllowCapability. When Authorize answers with a CaveatError, the fields that
// holders can set (budgets, rate limits, labels, a narrowed expiry) are those
// before the offending caveat.
type Token struct {
	ID          TokenID     // the account
	PaymentHash PaymentHash // the deposit that the preimage proves
	Service     string      // named by the minted services caveat
	Deposit     Msat        // credit of this payment
	ValidUntil  time.Time   // effective: the earliest of all expiry caveats
	RateLock    RateLock    // minted; zero when no price is locked
	Attenuated  bool        // a holder added anything after the minted deposit except preimage=
	Budgets     []Budget    // outermost first, at most MaxBudgets
	RateLimits  []RateLimit // outermost first
	Label       string      // the last label, that of the innermost part
	Chain       ChainID
	Copy        [32]byte // SHA-256 of the macaroon's last signature: names this very copy, with all its caveats

	violation    *CaveatError // the first caveat that refuses every request
	models       nameLimit
	capabilities nameLimit
}

// Verify proves a credential: first the signature under each live key, then the
// preimage, both in constant time. Where a credential has several macaroons, the one
// that a key of ours signed counts. It fails with ErrUnknownToken, with ErrPreimage, or
// with ErrConflictingCredentials when two of them are ours. Caveats are not judged here:
// call Authorize next. It does no I/O, takes a few microseconds for each macaroon, and
// is safe for concurrent use. A nil credential is no token.
func (k *Keyring) Verify(unverified *Credential) (*Token, error) {
	if unverified == nil {
		return nil, ErrUnknownToken
	}
	t, err := k.verify(unverified.Macaroon, unverified.Preimage)
	for _, other := range unverified.Others {
		o, otherErr := k.verify(other, unverified.Preimage)
		switch {
		case errors.Is(otherErr, ErrUnknownToken):
		case errors.Is(err, ErrUnknownToken):
			t, err = o, otherErr
		default:
			return nil, ErrConflictingCredentials
		}
	}
	return t, err
}

// verify proves one macaroon. It fails with ErrUnknownToken or ErrPreimage.
func (k *Keyring) verify(unverified []byte, p Preimage) (*Token, error) {
	m, err := parseMacaroon(unverified)
	if err != nil {
		return nil, ErrUnknownToken
	}
	id, err := ParseIdentifier(m.id)
	if err != nil {
		return nil, ErrUnknownToken
	}
	c := newChain()
	if !k.signed(c, m) {
		return nil, ErrUnknownToken
	}
	hash := p.Hash()
	if subtle.ConstantTimeCompare(hash[:], id.PaymentHash[:]) != 1 {
		return nil, ErrPreimage
	}
	t := &Token{ID: id.TokenID, PaymentHash: id.PaymentHash, Copy: nameAt(c.sum)}
	r := reader{token: t, preimage: p, signatures: c.at}
	t.violation = r.read(m.caveats, len(unverified))
	return t, nil
}

// signed looks for the key that signed m and leaves the signatures in c.
func (k *Keyring) signed(c *chain, m rawMacaroon) bool {
	for i := range k.keys {
		k.rootKey(c, &k.keys[i], m.id)
		root := c.sum
		c.sign(root[:], m)
		if c.signed(m.signature) {
			return true
		}
	}
	return false
}

// Authorize says whether the token may be used for a service ("": any) at a
// time. It fails with ErrOtherService, with a *CaveatError when a caveat
// refuses every request (it widens, is not known, is a third party's), or with
// ErrExpired, in this order: an expired token may still be topped up, a
// refused one may do nothing.
func (t *Token) Authorize(service string, now time.Time) error {
	if service != "" && t.Service != "" && service != t.Service {
		return ErrOtherService
	}
	if t.violation != nil {
		return t.violation
	}
	if !now.Before(t.ValidUntil) {
		return ErrExpired
	}
	return nil
}

// AllowModel fails with a *CaveatError when the token is limited to other
// models.
func (t *Token) AllowModel(model string) error {
	return t.models.allow(model, "this token is not for that model: use one of the named models or another token")
}

// AllowCapability fails with a *CaveatError when the token is limited to other
// capabilities.
func (t *Token) AllowCapability(capability string) error {
	return t.capabilities.allow(capability, "this token is not for that kind of call: use another token")
}

// nameLimit is the effective list of a models or capabilities caveat. An empty
// list that is set refuses everything.
type nameLimit struct {
	set       bool
	condition string   // the innermost caveat, for errors
	names     []string // sorted
}

func (l nameLimit) allow(name, reason string) error {
	if !l.set {
		return nil
	}
	if _, ok := slices.BinarySearch(l.names, name); !ok {
		return refuse(l.condition, "%s", reason)
	}
	return nil
}

// nameAt names the place of a caveat in a macaroon.
func nameAt(signature [32]byte) [32]byte { return sha256.Sum256(signature[:]) }
