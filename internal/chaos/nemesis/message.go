package main

import (
	"crypto/sha256"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// The player's requests to a teller beyond the operations of a history.
const (
	askCursor  history.Kind = "cursor"  // how far a node's settled invoices were taken in
	askRestart history.Kind = "restart" // the node's history began anew: replace its cursor
	askClock   history.Kind = "clock"   // the SQLite store's clock is off by Amount µs from now on
)

// request is one line to a teller.
type request struct {
	history.Op
	Within int64   `json:"within_ms"`      // how long the client waits
	Paid   int64   `json:"paid,omitempty"` // of Payment, with a reservation
	Limits []int64 `json:"limits,omitempty"`
	Last   string  `json:"last,omitempty"` // payment settled at Index
}

// reply is one line back. ID 0 is news that nobody asked for.
type reply struct {
	ID     int            `json:"id"`
	Status history.Status `json:"status"`
	Reason string         `json:"reason,omitempty"`
	Text   string         `json:"text,omitempty"`
	Answer history.Answer `json:"answer"`
	Index  uint64         `json:"index,omitempty"`    // of askCursor; 0: unknown
	Hash   string         `json:"hash,omitempty"`     // of the payment settled there, in hex
	Stall  int64          `json:"stall_us,omitempty"` // news: the teller did not run for so long
}

// Histories name things in a few letters; the ledger wants 16 or 32 bytes.

func accountID(name string) l402.TokenID       { return sha256.Sum256([]byte("account " + name)) }
func budgetID(name string) [32]byte            { return sha256.Sum256([]byte("budget " + name)) }
func keyID(name string) [32]byte               { return sha256.Sum256([]byte("key " + name)) }
func paymentHash(name string) l402.PaymentHash { return sha256.Sum256([]byte("payment " + name)) }
func chainID(budgets []string) (c l402.ChainID) {
	if n := len(budgets); n > 0 {
		c = l402.ChainID(budgetID(budgets[n-1]))
	}
	return c
}

func holdID(name string) metering.HoldID {
	sum := sha256.Sum256([]byte("hold " + name))
	return metering.HoldID(sum[:16])
}

// rates make one msat of each output token.
var rates = pricing.Rates{pricing.OutputTokens: 1_000_000}

func usage(cost int64) pricing.Units { return pricing.Units{pricing.OutputTokens: cost} }
