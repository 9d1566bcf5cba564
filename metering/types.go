package metering

import (
	"encoding/json"
	"fmt"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// Reservation asks to hold the most that a request may cost.
type Reservation struct {
	ID          HoldID           // made by the caller, so that it may repeat the call; zero: Reserve makes an id
	Account     l402.TokenID     // who pays
	Budgets     []l402.Budget    // the token's delegated budgets, outermost first; all of them must have room
	Chain       l402.ChainID     // the token's innermost budget; zero: no budget
	RateLimits  []l402.RateLimit // the token's limits; all must have room; counted only if all else passed
	Deposit     *Deposit         // credited first, even if the reservation is refused; nil: no payment to credit
	Amount      l402.Msat        // 0..MaxMsat
	Service     string           // at most maxName bytes
	Model       string           // at most maxName bytes
	Epoch       int64            // price epoch that Rates come from
	Rates       pricing.Rates    // the price for this request, even if another price is published meanwhile
	Idempotency *Idempotency     // nil: the request has no Idempotency-Key
	Prompt      int64            // most input tokens that a sweep charges; 0: no bound
	Lock        *RateLock        // rates that a payment of the account locked; nil: no lock
}

// RateLock is a quote that was bought with a payment. What the lock covers is everything that is held or was charged at
// its rates. As long as this sum stays within Limit and within the amount that the payment credited, Reserve makes the
// hold with the lock's Amount, Rates and Epoch instead of the reservation's. A hold keeps the rates that it was made
// with, also when it is extended or made anew. So the sum may end above the limit. The lock then covers no further
// reservation.
type RateLock struct {
	Hash   l402.PaymentHash // a payment of the account; an unknown payment, or another account's, locks nothing
	Limit  l402.Msat        // most that the lock may cover, 0..MaxMsat
	Amount l402.Msat        // most that this request costs at Rates, 0..MaxMsat
	Rates  pricing.Rates
	Epoch  int64 // price epoch that Rates come from
}

// Idempotency makes a key good for at most one charge within IdempotencyTTL.
type Idempotency struct {
	Key  [32]byte // SHA-256 over chain and key; kept per account
	Body [32]byte // SHA-256 of the request's body
}

// IdempotencyTTL is how long the ledger remembers a key. The contract states these 24 h.
const IdempotencyTTL = 24 * time.Hour

// Settlement ends a hold with what was consumed.
type Settlement struct {
	Usage          pricing.Units
	Source         Source
	Outcome        Outcome
	DeliveredBytes int64  // bytes of the answer's body that the client got
	Backend        string // name of the backend that answered
	ClampedUsage   bool   // the backend reported an impossible usage, which was cut to a possible usage
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
	Unbilled    l402.Msat     `json:"unbilled_msat"` // cost beyond the hold, or beyond the money left
	Epoch       int64         `json:"price_epoch"`
	Rates       pricing.Rates `json:"rates"`
	Provisional bool          `json:"provisional,omitempty"` // charged by a sweep; the owner may still replace it
	Available   l402.Msat     `json:"-"`                     // what is available after this charge; set by Settle only
}

// Deposit is a payment as a client presents it, proven by macaroon and preimage.
type Deposit struct {
	Hash    l402.PaymentHash
	Account l402.TokenID
	Amount  l402.Msat // as the macaroon states it
}

// Settled is a payment as the Lightning node reports it.
type Settled struct {
	Deposit                  // Amount is what arrived
	Node    string           // the node's public key; "": do not move the cursor
	Index   uint64           // the cursor to store with the credit; 0: do not move it
	Cursor  l402.PaymentHash // hash of the invoice settled at Index
	At      time.Time
}

// Status says what an account may do.
type Status int8

// The states of an account. The ledger credits deposits of a frozen or revoked account and settles its open holds, but
// makes no new hold.
const (
	StatusActive  Status = 0
	StatusFrozen  Status = 1 // the operator may make it active again
	StatusRevoked Status = 2 // the operator does not intend to make it active again
)

var statusNames = [...]string{"active", "frozen", "revoked"}

// String returns the name of the status.
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return fmt.Sprintf("Status(%d)", int8(s))
	}
	return statusNames[s]
}

// MarshalText returns the name of the status.
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

// BudgetBalance is one delegated budget of the token that asks for its balance.
type BudgetBalance struct {
	Label     string    `json:"label"`
	Limit     l402.Msat `json:"limit_msat"`
	Available l402.Msat `json:"available_msat"`
	Held      l402.Msat `json:"-"` // held through this budget by running requests
	Charged   l402.Msat `json:"-"` // charged through this budget in total
}

// MarshalJSON writes an empty list instead of null when there are no budgets.
func (b Balance) MarshalJSON() ([]byte, error) {
	type plain Balance
	if b.Budgets == nil {
		b.Budgets = []BudgetBalance{}
	}
	return json.Marshal(plain(b))
}
