package l402

import (
	"errors"
	"fmt"
)

// The errors of a credential, from the outside in. The caller gets another
// answer for each; none of their texts contains a secret.
var (
	// ErrMalformedCredential: an L402 credential is there and cannot be read.
	// Answer: 402 with a fresh challenge.
	ErrMalformedCredential = errors.New("malformed L402 credential: want 'Authorization: L402 <base64 macaroon>:<64 hex digits>'")
	// ErrConflictingCredentials: one request carries two different
	// credentials, so it is not clear who pays. Answer: 400.
	ErrConflictingCredentials = errors.New("two different L402 credentials in one request: send one")
	// ErrUnknownToken: no macaroon of ours, or signed by no key that is still
	// valid. Answer: 402 with a fresh challenge.
	ErrUnknownToken = errors.New("token was not issued here")
	// ErrPreimage: a genuine macaroon whose preimage does not hash to its
	// payment hash. Answer: 401 without a challenge.
	ErrPreimage = errors.New("preimage does not prove the payment of this token")
	// ErrOtherService: a genuine token of another service. Answer: 402 with a
	// fresh challenge.
	ErrOtherService = errors.New("token is for another service")
	// ErrExpired: a genuine token past its time. Answer: 402.
	ErrExpired = errors.New("token has expired")
)

// Errors of the other formats.
var (
	// ErrMacaroon reports bytes that are no version 2 binary macaroon.
	ErrMacaroon = errors.New("not a version 2 binary macaroon")
	// ErrMemo reports a sealed memo that none of our keys made for this
	// payment hash and amount.
	ErrMemo = errors.New("memo was not sealed here for this invoice")
	// ErrNoChallenge reports headers without any L402 challenge.
	ErrNoChallenge = errors.New("no L402 challenge in WWW-Authenticate")
	// ErrMalformedChallenge reports an L402 challenge that cannot be read.
	ErrMalformedChallenge = errors.New("malformed L402 challenge")
)

// CaveatError says which caveat of a genuine token forbids a request, and
// why. Answer: 403.
type CaveatError struct {
	Condition string // the caveat as the holder wrote it, shortened; for a preimage only its name
	Reason    string // one clause that says what to do or what is not allowed
}

// Error renders the condition quoted, since a holder may have put anything
// into it.
func (e *CaveatError) Error() string {
	return fmt.Sprintf("caveat %q: %s", e.Condition, e.Reason)
}

// maxConditionShown bounds, in bytes, how much of a hostile caveat an error
// repeats.
const maxConditionShown = 128

// refuse makes a CaveatError about condition.
func refuse(condition, format string, args ...any) *CaveatError {
	if len(condition) > maxConditionShown {
		condition = condition[:maxConditionShown] + "…"
	}
	return &CaveatError{Condition: condition, Reason: fmt.Sprintf(format, args...)}
}
