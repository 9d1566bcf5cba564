package metering

import (
	"encoding/json"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// Reservation asks to hold an upper bound of what a request may cost.
type Reservation struct {
	ID          HoldID           // made by the caller, so that repeating it is safe; zero: a new one, which spares a lookup
	Account     l402.TokenID     // who pays
	Budgets     []l402.Budget    // the token's delegated budgets, outermost first; all must have room
	Chain       l402.ChainID     // the token's innermost budget; zero without one
	RateLimits  []l402.RateLimit // the token's limits, all must pass; counted only when everything else passed
	Deposit     *Deposit         // credited first, whatever the reservation's fate; nil when known to be
	Amount      l402.Msat        // 0..MaxMsat
	Service     string           // at most maxName bytes
	Model       string           // at most maxName bytes
	Epoch       int64            // price epoch that Rates come from
	Rates       pricing.Rates    // the price for this request, whatever is published meanwhile
	Idempotency *Idempotency     // nil without an Idempotency-Key
	Prompt      int64            // bound on input tokens: the most that a sweep charges as prompt; 0: no bound
	Lock        *RateLock        // rates that the account's payment locked; nil: none
}

// RateLock is a quote that was bought with a payment. As long as what it covers
// stays within Limit, and within what the payment credited, the reservation is
// made with its Amount, Rates and Epoch instead of the reservation's own. Covered
// is what is held or was charged at locked rates. A hold keeps the rates it was
// made with, also when it is extended or made anew, so that what is covered may
// end above the limit; then the lock covers no further reservation.
type RateLock struct {
	Hash   l402.PaymentHash // the account's own payment; one that is unknown, or another's, locks nothing
	Limit  l402.Msat        // what the lock may cover, 0..MaxMsat
	Amount l402.Msat        // bound of this request's cost at Rates, 0..MaxMsat
	Rates  pricing.Rates
	Epoch  int64 // price epoch that Rates come from
}

// Idempotency makes a key good for at most one charge within IdempotencyTTL.
type Idempotency struct {
	Key  [32]byte // SHA-256 over chain and key; kept per account
	Body [32]byte // SHA-256 of the request's body
}

// IdempotencyTTL is how long a key is remembered. Source: the contract's 24 h.
const IdempotencyTTL = 24 * time.Hour

// Settlement ends a hold with what was consumed.
type Settlement struct {
	Usage          pricing.Units
	Source         Source
	Outcome        Outcome
	DeliveredBytes int64  // of the answer's body, to the client
	Backend        string // who answered
	ClampedUsage   bool   // the backend's usage was impossible and was cut to what is possible
}

// Entry is one charge as its owner sees it.
type Entry struct {
	ID          HoldID        `json:"request_id"`
	At          time.Time     `json:"at"`
	Service     string        `json:"service"`
	Model       string        `json:"model"`
	Usage       pricing.Units `json:"usage"`
	Source      Source        `json:"source"`
	Outcome     Outcome       `json:"outcome"`
	Charged     l402.Msat     `json:"charged_msat"`
	Unbilled    l402.Msat     `json:"unbilled_msat"` // cost beyond the hold, or beyond what a lost hold found on the account
	Epoch       int64         `json:"price_epoch"`
	Rates       pricing.Rates `json:"rates"`
	Provisional bool          `json:"provisional,omitempty"` // charged by a sweep; its owner may still replace it
	Available   l402.Msat     `json:"-"`                     // balance after this charge; set by Settle only
}

// Deposit is a payment as the buyer presents it: macaroon and preimage prove it.
type Deposit struct {
	Hash    l402.PaymentHash
	Account l402.TokenID
	Amount  l402.Msat // as the macaroon states
}

// Settled is a payment as the Lightning node reports it.
type Settled struct {
	Deposit                  // Amount is what arrived
	Node    string           // the node's public key; "": the cursor stays where it is
	Index   uint64           // the cursor to store with the credit; 0: it stays
	Cursor  l402.PaymentHash // of the invoice settled at Index
	At      time.Time
}

// Status says what an account may do.
type Status int8

// The states of an account. Frozen and Revoked take deposits and settle what is
// open, but hold nothing new.
const (
	StatusActive  Status = 0
	StatusFrozen  Status = 1 // may be made active again
	StatusRevoked Status = 2 // for good, as far as the operator is concerned
)

var statusNames = [...]string{"active", "frozen", "revoked"}

// String names the status.
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return fmt.Sprintf("Status(%d)", int8(s))
	}
	return statusNames[s]
}

// MarshalText writes the name.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseStatus reads.
func (s *Status) UnmarshalText(b []byte) (err error) {
	*s, err = ParseStatus(string(b))
	return err
}

// ParseStatus reads active, frozen or revoked.
func ParseStatus(name string) (Status, error) {
	for i, n := range statusNames {
		if n == name {
			return Status(i), nil
		}
	}
	return 0, fmt.Errorf("account status %q: want active, frozen or revoked", name)
}

// Balance is what an account's owner sees.
type Balance struct {
	Account   string          `json:"account"` // token id, hex
	Available l402.Msat       `json:"available_msat"`
	Held      l402.Msat       `json:"held_msat"`
	Deposited l402.Msat       `json:"deposited_msat"`
	Charged   l402.Msat       `json:"charged_msat"`
	Refunded  l402.Msat       `json:"refunded_msat"`
	Budgets   []BudgetBalance `json:"budgets"`
}

// BudgetBalance is one delegated budget of the token that asks.
type BudgetBalance struct {
	Label     string    `json:"label"`
	Limit     l402.Msat `json:"limit_msat"`
	Available l402.Msat `json:"available_msat"`
	Held      l402.Msat `json:"-"` // through it, by requests that are running
	Charged   l402.Msat `json:"-"` // through it, in all
}

// MarshalJSON writes an empty list, not null, without budgets.
func (b Balance) MarshalJSON() ([]byte, error) {
	type plain Balance
	if b.Budgets == nil {
		b.Budgets = []BudgetBalance{}
	}
	return json.Marshal(plain(b))
}
