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

// Store keeps tokens and intents to pay. Everything it accepts must be durable
// when the call returns: money depends on it. OpenDir is the implementation on
// disk. All methods are safe for concurrent use, by several processes as well.
type Store interface {
	// Lock waits until the caller alone, among all users of the store, may buy
	// at this origin. A dead holder's lock is free.
	Lock(ctx context.Context, origin string) (unlock func(), err error)
	// Tokens returns every token, the one bought or topped up last first.
	Tokens() ([]Token, error)
	// Intents returns the payments whose outcome is not recorded yet.
	Intents() ([]Intent, error)
	// Begin records the intent, before the wallet is asked to pay. It fails
	// with *BudgetError, and records nothing, when limit is not zero and
	// everything spent or promised would exceed it.
	Begin(in Intent, limit l402.Msat) error
	// Commit records the token that the payment of in bought, replacing the
	// token of the same origin and name, and then forgets the intent.
	// Committing the same payment again changes nothing.
	Commit(in Intent, t Token) error
	// Put records a token that was not bought here, replacing the one of the
	// same origin and name.
	Put(t Token) error
	// Drop forgets the intent of a payment that moved no money.
	Drop(in Intent) error
}

// Intent is a payment that was decided on.
type Intent struct {
	Origin    string
	Macaroon  []byte // secret together with the preimage
	Invoice   string
	Hash      l402.PaymentHash
	Amount    l402.Msat // of the invoice
	FeeLimit  l402.Msat
	At        time.Time
	ExpiresAt time.Time // of the invoice
}

// String leaves the macaroon out.
func (in Intent) String() string {
	return fmt.Sprintf("payment %s of %s to %s", in.Hash, in.Amount, in.Origin)
}

// Format keeps the macaroon out of every verb.
func (in Intent) Format(f fmt.State, _ rune) { fmt.Fprint(f, in.String()) }

// LogValue keeps the macaroon out of logs.
func (in Intent) LogValue() slog.Value { return slog.StringValue(in.String()) }

// Token is a bought or imported credential and its history. Macaroon and Preimage together
// are money; everything that prints a Token leaves them out.
type Token struct {
	Origin      string // scheme://host:port that sold it
	Service     string // what it may buy there; "": the token does not say
	ID          l402.TokenID
	PaymentHash l402.PaymentHash // of the newest deposit
	Macaroon    []byte           // of the newest deposit
	Preimage    l402.Preimage    // of the newest deposit
	ValidUntil  time.Time        // zero: the token does not say
	CreatedAt   time.Time
	UpdatedAt   time.Time // of the newest deposit or import
	Spent       l402.Msat // all deposits and their routing fees
	Deposits    []Deposit // newest last, at most the last maxDeposits; none of an imported token
	Served      bool      // its gateway has taken it; kept only for gateways that keep no balance, see topsUp
	Attenuated  bool      // a delegated part of an account: not topped up, see Config.BuyBeyondDelegation
}

// Deposit is one payment to an account.
type Deposit struct {
	PaymentHash l402.PaymentHash
	Amount      l402.Msat
	Fee         l402.Msat // routing fee paid
	At          time.Time
}

// maxDeposits bounds the history in a token. Spent counts the older ones too.
const maxDeposits = 100

// Name tells the tokens of one origin apart. It is the account's id, and for a
// delegated token, of which an account may have many, that and 16 hex digits.
func (t Token) Name() string {
	if !t.Attenuated {
		return t.ID.String()
	}
	d := t.digest()
	return t.ID.String() + "/" + hex.EncodeToString(d[:8])
}

// digest names the credential without giving it away.
func (t Token) digest() [32]byte { return sha256.Sum256(t.Macaroon) }

// Conditions returns the caveats of the token, minted ones first, without any
// that carries the preimage.
func (t Token) Conditions() ([]string, error) {
	_, conditions, err := l402.Inspect(t.Macaroon)
	return slices.DeleteFunc(conditions, func(c string) bool { return strings.HasPrefix(c, preimagePrefix) }), err
}

// Authorization returns the value of the header that spends the token.
func (t Token) Authorization() string { return l402.FormatCredential(t.Macaroon, t.Preimage) }

// String leaves the secrets out.
func (t Token) String() string {
	return fmt.Sprintf("token %s of %s at %s", t.Name(), t.Service, t.Origin)
}

// Format keeps the secrets out of every verb.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// LogValue keeps the secrets out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON renders everything but the secrets.
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

// with returns the token after one more deposit.
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

// newestFirst orders tokens for Store.Tokens.
func newestFirst(a, b Token) int {
	if c := b.UpdatedAt.Compare(a.UpdatedAt); c != 0 {
		return c
	}
	return strings.Compare(a.Name(), b.Name())
}

// committed sums what the tokens cost and what the open intents may cost.
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
		if !paid[in.Hash] { // else: committed, and the process died before forgetting the intent
			sum += in.Amount + in.FeeLimit
		}
	}
	return sum
}
