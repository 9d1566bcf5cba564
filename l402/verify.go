package l402

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"slices"
	"time"
)

// ChainID names the chain of budgets that a token spends through. It is the SHA-256 of the
// macaroon's signature at the innermost budget caveat, and zero when the token has no budget
// caveat. The signature itself lets its holder spend. The ChainID does not.
type ChainID [32]byte

// String renders the id in lower-case hex.
func (c ChainID) String() string { return hex.EncodeToString(c[:]) }

// Budget is one sub-budget that a holder opened with a budget caveat.
type Budget struct {
	ID    [32]byte // SHA-256 of the macaroon's signature at the budget caveat
	Limit Msat     // the most that may ever be spent through the budget, in msat
	Label string   // free text of the holder, up to MaxLabelSize bytes
	// ValidUntil is the earliest of the expiry caveats before the budget caveat, in unix seconds; 0
	// means that there is no expiry. No token that names this budget is valid later, because a
	// holder can only make an expiry earlier.
	ValidUntil int64
}

// RateLimit is one limit on requests that a holder added.
type RateLimit struct {
	ID        [32]byte // SHA-256 of the macaroon's signature at the rate limit caveat
	PerMinute int64    // 1..MaxRequestsPerMinute
}

// Token is a credential that is proven genuine and paid. Verify reads its caveats, but only
// Authorize, AllowModel and AllowCapability enforce what they forbid. When Authorize returns a
// CaveatError, the fields that holders can set (budgets, rate limits, labels, a narrowed expiry)
// come only from the caveats before the caveat in the error.
type Token struct {
	ID          TokenID     // the account
	PaymentHash PaymentHash // the deposit that the preimage proves
	Service     string      // from the services caveat that Mint wrote
	Deposit     Msat        // credit of this payment in msat
	ValidUntil  time.Time   // the earliest of all expiry caveats
	RateLock    RateLock    // from Mint; zero when no price is locked
	Attenuated  bool        // a holder added a caveat other than preimage= after the deposit caveat
	Budgets     []Budget    // outermost first, at most MaxBudgets
	RateLimits  []RateLimit // outermost first
	Label       string      // the last label caveat
	Chain       ChainID
	Copy        [32]byte // SHA-256 of the macaroon's last signature: names the macaroon with all its caveats

	violation    *CaveatError // the first caveat that refuses every request; nil: no caveat does
	models       nameLimit
	capabilities nameLimit
}

// Verify proves a credential. It checks the signature under each key that may verify, then the
// preimage, both in constant time. When a credential has several macaroons, Verify uses the one
// that a key of the ring signed. It fails with ErrUnknownToken, with ErrPreimage, or with
// ErrConflictingCredentials when keys of the ring signed two of the macaroons. A nil credential is
// ErrUnknownToken. Verify enforces no caveats, so the caller calls Authorize next. Verify does no
// I/O, takes a few microseconds for each macaroon, and is safe for concurrent use.
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

// verify proves one macaroon with the preimage p. It fails with ErrUnknownToken or ErrPreimage.
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

// signed reports whether a key of the ring signed m. The signatures are then in c.
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

// Authorize reports whether the token may be used for a service at the time now. An empty service
// means any service. Authorize fails with ErrOtherService, with a *CaveatError when a caveat
// refuses every request (it widens the token, is unknown, or is a third-party caveat), or with
// ErrExpired, in this order. The order matters because an expired token may still be topped up, but
// a token with a CaveatError may do nothing.
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

// AllowModel fails with a *CaveatError when the token's models do not include model.
func (t *Token) AllowModel(model string) error {
	return t.models.allow(model, "this token is not for that model: use one of the named models or another token")
}

// AllowCapability fails with a *CaveatError when the token's capabilities do not include
// capability.
func (t *Token) AllowCapability(capability string) error {
	return t.capabilities.allow(capability, "this token is not for that kind of call: use another token")
}

// nameLimit is the list of names that a token's models or capabilities caveats allow. When set is
// false every name is allowed. When set is true and names is empty, no name is allowed.
type nameLimit struct {
	set       bool
	condition string   // the innermost caveat, repeated in errors
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

// nameAt returns the name of a caveat's place in a macaroon, made from the signature after that
// caveat.
func nameAt(signature [32]byte) [32]byte { return sha256.Sum256(signature[:]) }
