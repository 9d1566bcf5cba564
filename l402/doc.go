// Package l402 is the L402 protocol and nothing else: identifiers, macaroons,
// challenges, credentials, caveats and their verification. It does no I/O and
// keeps no state, so checking a credential costs microseconds and never a
// query.
//
// # The service's side
//
// A Keyring holds the master keys of one ledger. Root keys are derived from
// them, never stored, so making a challenge writes nothing:
//
//	ring, err := l402.NewKeyring(ledgerID, keys)
//	preimage := l402.NewPreimage() // make the invoice with it
//	macaroon, err := ring.Mint(l402.MintParams{
//		Service: "inference", PaymentHash: preimage.Hash(), TokenID: l402.NewTokenID(),
//		Deposit: 250_000, ValidUntil: now.AddDate(1, 0, 0),
//	})
//	w.Header().Set("WWW-Authenticate", l402.FormatChallenge(macaroon, invoice))
//
// When the caller comes back, the order is signature, preimage, caveats:
//
//	unverified, err := l402.CredentialFromHeader(r.Header) // nil, nil: there is none
//	token, err := ring.Verify(unverified)                  // genuine and paid
//	err = token.Authorize("inference", now)                // its caveats allow the service, now
//	err = token.AllowModel(model)                          // and this model
//
// Each error is a sentinel (or *CaveatError) with an answer of its own; see
// ErrMalformedCredential and those after it.
//
// # The token
//
// Token.ID names the account that pays; Token.PaymentHash names one deposit to
// it. A token carries what was minted, up to and including its deposit, and
// then what holders added, which may only narrow: a smaller budget, an earlier
// expiry, fewer models or capabilities, a rate limit. A caveat that is meant
// for the token's service and that this package does not understand is
// refused, because a misspelt limit must not be no limit. Every budget caveat
// opens a sub-budget named by the macaroon's signature at that place: its
// parent makes one offline with Attenuate, and copies of one sub-token share
// one budget.
//
// # The client's side
//
// ParseChallenge reads a 402, Inspect shows the payment hash to compare with
// the invoice's, FormatCredential writes the header once it is paid, and
// Attenuate hands a part of it on.
//
// # Secrets
//
// A MasterKey, Preimage or Credential prints nothing useful under any
// formatting verb, in logs or through an encoder. An unpaid macaroon is a
// secret as well: somebody who learns the preimage later owns the account.
package l402
