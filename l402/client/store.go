package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"sluice.example/sluice/l402"
)

// Store keeps tokens and intents to pay. Whatever a method accepts must be durable when the method
// returns, because money depends on it. OpenDir returns a Store on disk. All methods are safe for
// concurrent use, also by several processes.
type Store interface {
	// Lock waits until no other user of the store may buy at this origin, and then lets only the
	// caller buy there. The lock of a process that has died is released.
	Lock(ctx context.Context, origin string) (unlock func(), err error)
	// Tokens returns every token. The token that was bought or topped up last comes first.
	Tokens() ([]Token, error)
	// Intents returns the payments whose outcome is not recorded yet.
	Intents() ([]Intent, error)
	// Begin records the intent. The client calls Begin before it asks the wallet to pay. Begin
	// fails with *BudgetError, and records nothing, when limit is not zero and the sum of
	// everything spent or promised would exceed limit.
	Begin(in Intent, limit l402.Msat) error
	// Commit records the token that the payment of in bought, in place of the token with the same
	// origin and name. Then it deletes the intent. A second Commit of the same payment changes
	// nothing.
	Commit(in Intent, t Token) error
	// Put records a token that no payment of this store bought. It replaces the token with the same
	// origin and name.
	Put(t Token) error
	// Drop deletes the intent of a payment that moved no money.
	Drop(in Intent) error
}

// Intent is a payment that the client has decided to make.
type Intent struct {
	Origin    string
	Macaroon  []byte // a secret together with the preimage
	Invoice   string
	Hash      l402.PaymentHash
	Amount    l402.Msat // of the invoice, in msat
	FeeLimit  l402.Msat
	At        time.Time
	ExpiresAt time.Time // of the invoice
}

// String returns a description without the macaroon.
func (in Intent) String() string {
	return fmt.Sprintf("payment %s of %s to %s", in.Hash, in.Amount, in.Origin)
}

// Format omits the macaroon under every verb.
func (in Intent) Format(f fmt.State, _ rune) { fmt.Fprint(f, in.String()) }

// LogValue omits the macaroon from logs.
func (in Intent) LogValue() slog.Value { return slog.StringValue(in.String()) }

// Token is a bought or imported credential and its history. Whoever has Macaroon and Preimage can
// spend the credit, so nothing that prints a Token prints them.
type Token struct {
	Origin      string // scheme://host:port of the seller
	Service     string // the service that the token pays for; "": the token does not say
	ID          l402.TokenID
	PaymentHash l402.PaymentHash // of the newest deposit
	Macaroon    []byte           // of the newest deposit
	Preimage    l402.Preimage    // of the newest deposit
	ValidUntil  time.Time        // zero: the token does not say
	CreatedAt   time.Time
	UpdatedAt   time.Time // time of the newest deposit or import
	Spent       l402.Msat // sum of all deposits and their routing fees, in msat
	Deposits    []Deposit // newest last, at most the last maxDeposits; empty for an imported token
	Served      bool      // its gateway has accepted it; only recorded for gateways that keep no balance, see topsUp
	Attenuated  bool      // a delegated part of an account: cannot be topped up, see Config.BuyBeyondDelegation
}

// Deposit is one payment to an account.
type Deposit struct {
	PaymentHash l402.PaymentHash
	Amount      l402.Msat
	Fee         l402.Msat // routing fee paid, in msat
	At          time.Time
}

// maxDeposits bounds the history in a token. Spent includes the older deposits too.
const maxDeposits = 100

// Name distinguishes the tokens of one origin. It is the account's id. An account may have many
// delegated tokens, so the name of a delegated token is the account's id, a slash and 16 hex
// digits.
func (t Token) Name() string {
	if !t.Attenuated {
		return t.ID.String()
	}
	d := t.digest()
	return t.ID.String() + "/" + hex.EncodeToString(d[:8])
}

// digest identifies the credential without revealing it.
func (t Token) digest() [32]byte { return sha256.Sum256(t.Macaroon) }

// Conditions returns the conditions of the token's caveats. The minted conditions come first.
// Conditions that carry the preimage are left out.
func (t Token) Conditions() ([]string, error) {
	_, conditions, err := l402.Inspect(t.Macaroon)
	return slices.DeleteFunc(conditions, func(c string) bool { return strings.HasPrefix(c, preimagePrefix) }), err
}

// Authorization returns the value of the Authorization header that spends the token.
func (t Token) Authorization() string { return l402.FormatCredential(t.Macaroon, t.Preimage) }

// String returns a description without the secrets.
func (t Token) String() string {
	return fmt.Sprintf("token %s of %s at %s", t.Name(), t.Service, t.Origin)
}

// Format omits the secrets under every verb.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// LogValue omits the secrets from logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON encodes everything but the secrets.
func (t Token) MarshalJSON() ([]byte, error) {
	type deposit struct {
		PaymentHash string    `json:"payment_hash"`
		Amount      l402.Msat `json:"amount_msat"`
		Fee         l402.Msat `json:"fee_msat"`
		At          time.Time `json:"at"`
	}
	v := struct {
		ID          string     `json:"token_id"`
		Name        string     `json:"name"`
		Attenuated  bool       `json:"attenuated"`
		Origin      string     `json:"origin"`
		Service     string     `json:"service"`
		PaymentHash string     `json:"payment_hash"`
		ValidUntil  *time.Time `json:"valid_until,omitempty"`
		CreatedAt   time.Time  `json:"created_at"`
		UpdatedAt   time.Time  `json:"updated_at"`
		Spent       l402.Msat  `json:"spent_msat"`
		Deposits    []deposit  `json:"deposits"`
	}{t.ID.String(), t.Name(), t.Attenuated, t.Origin, t.Service, t.PaymentHash.String(), nil, t.CreatedAt, t.UpdatedAt, t.Spent, []deposit{}}
	if !t.ValidUntil.IsZero() {
		v.ValidUntil = &t.ValidUntil
	}
	for _, d := range t.Deposits {
		v.Deposits = append(v.Deposits, deposit{d.PaymentHash.String(), d.Amount, d.Fee, d.At})
	}
	return json.Marshal(v)
}

// holds reports whether the payment is part of the token's history.
func (t Token) holds(h l402.PaymentHash) bool {
	return slices.ContainsFunc(t.Deposits, func(d Deposit) bool { return d.PaymentHash == h })
}

// with returns the token with one more deposit. It returns the token unchanged when the token has
// the deposit already.
func (t Token) with(d Deposit) Token {
	if t.holds(d.PaymentHash) {
		return t
	}
	t.Spent += d.Amount + d.Fee
	t.Deposits = append(slices.Clone(t.Deposits), d)
	if extra := len(t.Deposits) - maxDeposits; extra > 0 {
		t.Deposits = t.Deposits[extra:]
	}
	return t
}

// newestFirst orders tokens as Store.Tokens returns them.
func newestFirst(a, b Token) int {
	if c := b.UpdatedAt.Compare(a.UpdatedAt); c != 0 {
		return c
	}
	return strings.Compare(a.Name(), b.Name())
}

// committed returns the sum of what the tokens cost and what the open intents may cost, in msat.
func committed(tokens []Token, intents []Intent) l402.Msat {
	var sum l402.Msat
	paid := map[l402.PaymentHash]bool{}
	for _, t := range tokens {
		sum += t.Spent
		for _, d := range t.Deposits {
			paid[d.PaymentHash] = true
		}
	}
	for _, in := range intents {
		if !paid[in.Hash] { // else the payment was committed, and the process died before it deleted the intent
			sum += in.Amount + in.FeeLimit
		}
	}
	return sum
}
