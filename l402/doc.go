// Package l402 implements the L402 protocol: identifiers, macaroons, challenges, credentials,
// caveats and their verification. It does no I/O and keeps no state, so checking a credential takes
// microseconds and needs no database query.
//
// # The service's side
//
// A Keyring holds the master keys of one ledger. The keyring derives the root key of each token
// from a master key and stores no root keys. Making a challenge therefore writes nothing:
//
//	ring, err := l402.NewKeyring(ledgerID, keys)
//	preimage := l402.NewPreimage() // make the invoice with it
//	macaroon, err := ring.Mint(l402.MintParams{
//		Service: "inference", PaymentHash: preimage.Hash(), TokenID: l402.NewTokenID(),
//		Deposit: 250_000, ValidUntil: now.AddDate(1, 0, 0),
//	})
//	w.Header().Set("WWW-Authenticate", l402.FormatChallenge(macaroon, invoice))
//
// When the client comes back with a credential, the service checks the signature, the preimage and
// the caveats, in this order:
//
//	unverified, err := l402.CredentialFromHeader(r.Header) // nil, nil: no credential
//	token, err := ring.Verify(unverified)                  // genuine and paid
//	err = token.Authorize("inference", now)                // its caveats allow the service, now
//	err = token.AllowModel(model)                          // and this model
//
// Each error is a sentinel error or a *CaveatError. The service answers each of them differently,
// see ErrMalformedCredential and the errors after it.
//
// # The token
//
// Token.ID names the account that pays. Token.PaymentHash names one deposit to that account. A
// token begins with the caveats that Mint wrote, and the deposit is the last of them. The caveats
// that holders added follow. They may only narrow the token: a smaller budget, an earlier expiry,
// fewer models or capabilities, a rate limit. A caveat that is meant for the token's service and
// that this package does not know is refused, because a misspelt limit must not be ignored.
//
// Every budget caveat opens a sub-budget. The sub-budget is named by the macaroon's signature at
// that caveat. A holder makes a sub-token offline with Attenuate, and all copies of one sub-token
// share one sub-budget.
//
// # The client's side
//
// ParseChallenge reads the challenge of a 402 response. Inspect returns the payment hash, which the
// client compares with the payment hash of the invoice. FormatCredential makes the Authorization
// header once the invoice is paid. Attenuate makes a narrower token for somebody else.
//
// # Secrets
//
// A MasterKey, Preimage or Credential is redacted under any formatting verb and in logs. A text
// encoder fails on each of them. An unpaid macaroon is a secret as well, because anybody who has it
// and learns the preimage later owns the account.
package l402
