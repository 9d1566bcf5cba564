package l402

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"gopkg.in/macaroon.v2"
)

// KeyState says what a master key may be used for.
type KeyState string

// These are the states of a master key. KeyMint mints and verifies. KeyVerify is for a retired key:
// it only verifies, so that the tokens it signed keep their balance. KeyRevoked does neither.
const (
	KeyMint    KeyState = "mint"
	KeyVerify  KeyState = "verify"
	KeyRevoked KeyState = "revoked"
)

// MasterKey is the secret from which the root keys of all tokens are derived. Anybody who learns it
// can mint credit, so a MasterKey prints only its id and state.
type MasterKey struct {
	ID     string
	State  KeyState
	Secret [32]byte
}

// String returns the id and state of the key without its secret.
func (k MasterKey) String() string { return fmt.Sprintf("[master key %q, %s]", k.ID, k.State) }

// Format redacts the secret under every verb.
func (k MasterKey) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue redacts the secret in structured logs.
func (k MasterKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText always fails, so that no encoder writes a key by accident.
func (k MasterKey) MarshalText() ([]byte, error) {
	return nil, errors.New("a master key is a secret and is not encoded")
}

// LedgerID names one ledger, which is one database. It is random and not a secret.
type LedgerID [16]byte

// String renders the id in lower-case hex.
func (l LedgerID) String() string { return hex.EncodeToString(l[:]) }

// These labels keep the keys that are derived from one master key apart. No label is a prefix of
// another label.
const (
	labelRoot  = "sluice root key"
	labelMemo  = "sluice memo key"
	labelCheck = "sluice key check"
)

// derive returns HMAC-SHA256(k.Secret, label ‖ ledger).
func (k MasterKey) derive(label string, ledger LedgerID) [32]byte {
	h := hmac.New(sha256.New, k.Secret[:])
	h.Write([]byte(label))
	h.Write(ledger[:])
	return [32]byte(h.Sum(nil))
}

// Fingerprint shows whether a key belongs to a ledger. The ledger stores the fingerprint, which
// reveals nothing about the key.
func (k MasterKey) Fingerprint(ledger LedgerID) [32]byte { return k.derive(labelCheck, ledger) }

// Keyring mints and verifies the tokens of one ledger. A Keyring is immutable, safe for concurrent
// use, and does no I/O.
type Keyring struct {
	ledger LedgerID
	keys   []ringKey // keys in state mint or verify; the key that mints is the first
}

// ringKey is a master key that may verify, with the memo cipher that is derived from it.
type ringKey struct {
	secret [32]byte
	memo   cipher.AEAD
}

// NewKeyring builds the keyring of a ledger. The first key in state mint mints. All keys in state
// mint or verify are used to verify. NewKeyring fails when there is no key in state mint, when a
// state is unknown, when an id or a secret is empty, and when two keys share an id or a secret.
func NewKeyring(ledger LedgerID, keys []MasterKey) (*Keyring, error) {
	ring := &Keyring{ledger: ledger}
	ids, secrets := map[string]bool{}, map[[32]byte]bool{}
	minting := -1
	for _, k := range keys {
		switch {
		case k.ID == "":
			return nil, errors.New("master key without an id: give each key a name of its own")
		case ids[k.ID]:
			return nil, fmt.Errorf("two master keys with the id %q", k.ID)
		case k.Secret == [32]byte{}:
			return nil, fmt.Errorf("master key %q is all zero: use 32 random bytes", k.ID)
		case secrets[k.Secret]:
			return nil, fmt.Errorf("master key %q has the secret of another one", k.ID)
		}
		ids[k.ID], secrets[k.Secret] = true, true
		switch k.State {
		case KeyMint:
			if minting < 0 {
				minting = len(ring.keys)
			}
		case KeyVerify:
		case KeyRevoked:
			continue
		default:
			return nil, fmt.Errorf("master key %q: state %q is not mint, verify or revoked", k.ID, k.State)
		}
		memoKey := k.derive(labelMemo, ledger)
		memo, err := chacha20poly1305.NewX(memoKey[:])
		if err != nil {
			return nil, fmt.Errorf("master key %q: %w", k.ID, err)
		}
		ring.keys = append(ring.keys, ringKey{secret: k.Secret, memo: memo})
	}
	if minting < 0 {
		return nil, errors.New("no master key in state mint")
	}
	ring.keys[0], ring.keys[minting] = ring.keys[minting], ring.keys[0]
	return ring, nil
}

// rootKey sets c.sum to the root key of the macaroon with this identifier: HMAC-SHA256(master key,
// label ‖ ledger id ‖ identifier).
func (k *Keyring) rootKey(c *chain, key *ringKey, identifier []byte) {
	c.mac(key.secret[:], []byte(labelRoot), k.ledger[:], identifier)
}

// maxUnixTime is the last second of the year 9999, in unix seconds. It is the latest time that
// time.Time can encode as text.
const maxUnixTime = 253402300799

// RateLock gives a token the prices of one published epoch until a time. The zero value means that
// the token has no lock.
type RateLock struct {
	Epoch int64     // price epoch, at least 1
	Until time.Time // whole seconds
}

// MintParams describes a new token.
type MintParams struct {
	Service     string      // see ValidateService
	PaymentHash PaymentHash // of the invoice that pays for the token
	TokenID     TokenID     // the account: a new one, or an existing one that is topped up
	Deposit     Msat        // credit in msat once the invoice is paid, at least 1
	ValidUntil  time.Time   // cut to whole seconds
	RateLock    RateLock    // zero: no lock
}

// Mint returns a new version 2 binary macaroon. It is signed with a root key derived from the
// minting master key. Mint stores nothing. An unpaid macaroon is a secret, because anybody who has
// it and learns the preimage later owns the account.
func (k *Keyring) Mint(p MintParams) ([]byte, error) {
	if err := ValidateService(p.Service); err != nil {
		return nil, err
	}
	if p.Deposit < 1 || !p.Deposit.Valid() {
		return nil, fmt.Errorf("mint token: deposit of %s: %w", p.Deposit, ErrMsatRange)
	}
	until := p.ValidUntil.Unix()
	if until < 1 || until > maxUnixTime {
		return nil, errors.New("mint token: expiry is not between the years 1970 and 9999")
	}
	conditions := []string{
		"services=" + p.Service + ":0",
		p.Service + "_valid_until=" + strconv.FormatInt(until, 10),
	}
	if p.RateLock != (RateLock{}) {
		lock, err := p.RateLock.format()
		if err != nil {
			return nil, fmt.Errorf("mint token: %w", err)
		}
		conditions = append(conditions, p.Service+"_rate_lock="+lock)
	}
	conditions = append(conditions, p.Service+"_deposit_msat="+strconv.FormatInt(int64(p.Deposit), 10))

	id := Identifier{PaymentHash: p.PaymentHash, TokenID: p.TokenID}.Encode()
	c := newChain()
	k.rootKey(c, &k.keys[0], id)
	m, err := macaroon.New(c.sum[:], id, "", macaroon.V2)
	if err != nil {
		return nil, fmt.Errorf("mint token: %w", err)
	}
	for _, condition := range conditions {
		if err := m.AddFirstPartyCaveat([]byte(condition)); err != nil {
			return nil, fmt.Errorf("mint token: %w", err)
		}
	}
	return m.MarshalBinary()
}

// format returns the value of a rate lock caveat.
func (l RateLock) format() (string, error) {
	until := l.Until.Unix()
	if l.Epoch < 1 || until < 1 || until > maxUnixTime {
		return "", errors.New("rate lock needs an epoch of at least 1 and a time between 1970 and 9999")
	}
	return strconv.FormatInt(l.Epoch, 10) + ":" + strconv.FormatInt(until, 10), nil
}
