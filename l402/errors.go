package l402

import (
	"errors"
	"fmt"
)

// These are the errors of a credential, in the order in which they are checked. The service gives
// the client a different answer for each of them. No error text contains a secret.
var (
	// ErrMalformedCredential means that the request has an L402 credential that cannot be read. The
	// service answers 402 with a new challenge.
	ErrMalformedCredential = errors.New("malformed L402 credential: want 'Authorization: L402 <base64 macaroon>:<64 hex digits>'")
	// ErrConflictingCredentials means that one request carries two different credentials, so it is
	// not clear which account pays. The service answers 400.
	ErrConflictingCredentials = errors.New("two different L402 credentials in one request: send one")
	// ErrUnknownToken means that the credential has no L402 macaroon, or that no key which still
	// verifies signed the macaroon. The service answers 402 with a new challenge.
	ErrUnknownToken = errors.New("token was not issued here")
	// ErrPreimage means that the macaroon is genuine, but the preimage does not hash to the payment
	// hash of the macaroon. The service answers 401 without a challenge.
	ErrPreimage = errors.New("preimage does not prove the payment of this token")
	// ErrOtherService means that the token is genuine but was issued for another service. The
	// service answers 402 with a new challenge.
	ErrOtherService = errors.New("token is for another service")
	// ErrExpired means that the token is genuine but has expired. The service answers 402.
	ErrExpired = errors.New("token has expired")
)

// These are the errors of macaroons, memos and challenges.
var (
	// ErrMacaroon reports bytes that are not a version 2 binary macaroon.
	ErrMacaroon = errors.New("not a version 2 binary macaroon")
	// ErrMemo reports a sealed memo that no key of the ring made for this payment hash and amount.
	ErrMemo = errors.New("memo was not sealed here for this invoice")
	// ErrNoChallenge reports headers without any L402 challenge.
	ErrNoChallenge = errors.New("no L402 challenge in WWW-Authenticate")
	// ErrMalformedChallenge reports an L402 challenge that cannot be read.
	ErrMalformedChallenge = errors.New("malformed L402 challenge")
)

// CaveatError says which caveat of a genuine token forbids a request, and why. The service answers
// 403.
type CaveatError struct {
	Condition string // the caveat as the holder wrote it, shortened; for a preimage only the caveat's name
	Reason    string // one clause that says what to do or what is not allowed
}

// Error quotes the condition, because a holder may have put control characters into it.
func (e *CaveatError) Error() string {
	return fmt.Sprintf("caveat %q: %s", e.Condition, e.Reason)
}

// maxConditionShown is how many bytes of a caveat an error repeats at most, because a holder may
// write anything into a caveat.
const maxConditionShown = 128

// refuse returns a CaveatError about condition.
func refuse(condition, format string, args ...any) *CaveatError {
	if len(condition) > maxConditionShown {
		condition = condition[:maxConditionShown] + "…"
	}
	return &CaveatError{Condition: condition, Reason: fmt.Sprintf(format, args...)}
}
