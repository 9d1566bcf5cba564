// Package bolt11 decodes Lightning invoices (BOLT 11) in full, signature
// included:
//
//	inv, err := bolt11.Decode(challenge.Invoice)
//	if err != nil { ... }              // errors.Is(err, bolt11.ErrInvalid)
//	inv.Network, inv.Amount, inv.Hash  // signed by inv.Payee
//
// Decode checks neither the expiry nor the amount: the payer decides whether to pay an invoice.
package bolt11

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lightningnetwork/lnd/zpay32"

	"sluice.example/sluice/l402"
)

// ErrInvalid reports a string that is not an invoice of a known network.
var ErrInvalid = errors.New("not a valid BOLT11 invoice")

// Invoice is a decoded invoice. Decode has checked its signature.
type Invoice struct {
	Network     Network
	Hash        l402.PaymentHash
	Amount      l402.Msat // 0: the invoice names no amount
	Payee       string    // public key of the signer, 66 hex digits; a throw-away key if the invoice has blinded paths
	Description string
	At          time.Time
	ExpiresAt   time.Time
	Secret      [32]byte // the payment secret; zero: the invoice has none
	FinalCLTV   uint32   // blocks that the last hop must leave the payee at least, before the payment times out
}

// maxExpiry bounds the time from an invoice's creation to its expiry, far above any in use. A
// longer time overflows a time.Duration in the decoder.
const maxExpiry = 10 * 365 * 24 * time.Hour

// maxFinalCLTV bounds FinalCLTV, in blocks. It is about ten years of blocks.
const maxFinalCLTV = 10 * 365 * 144

// Decode decodes an invoice of any known network. It refuses an invoice that requires a feature
// which the decoder does not know, because the payer could not pay it. Every error wraps
// ErrInvalid.
func Decode(s string) (Invoice, error) {
	prefix, amount, err := splitHead(s)
	if err != nil {
		return Invoice{}, err
	}
	network := networkOf(prefix)
	if network == "" {
		return Invoice{}, invalidf("it is for an unknown network, ln%s", prefix)
	}
	if !amountInRange(amount) {
		return Invoice{}, invalidf("its amount %q is out of range", amount)
	}
	raw, err := zpay32.Decode(s, network.params(), zpay32.WithErrorOnUnknownFeatureBit())
	if err != nil {
		return Invoice{}, invalidf("%w", err)
	}
	expiry, delta := raw.Expiry(), raw.MinFinalCLTVExpiry()
	if expiry < 0 || expiry > maxExpiry {
		return Invoice{}, invalidf("its expiry is out of range")
	}
	if delta > maxFinalCLTV {
		return Invoice{}, invalidf("its final CLTV delta is out of range")
	}
	inv := Invoice{
		Network:   network,
		Hash:      *raw.PaymentHash,
		Payee:     hex.EncodeToString(raw.Destination.SerializeCompressed()),
		At:        raw.Timestamp,
		ExpiresAt: raw.Timestamp.Add(expiry),
		Secret:    raw.PaymentAddr.UnwrapOr([32]byte{}),
		FinalCLTV: uint32(delta),
	}
	if raw.MilliSat != nil {
		inv.Amount = l402.Msat(*raw.MilliSat)
	}
	if raw.Description != nil {
		inv.Description = *raw.Description
	}
	return inv, nil
}

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// splitHead returns the currency prefix and the amount of an invoice, both in lower case. They are
// in the human-readable part: "ln", the prefix, the amount. After that part come "1" and the data.
func splitHead(s string) (prefix, amount string, err error) {
	sep := strings.LastIndexByte(s, '1')
	if sep < 3 || !strings.EqualFold(s[:2], "ln") {
		return "", "", invalidf("it does not begin as one")
	}
	head := strings.ToLower(s[2:sep])
	digits := strings.IndexFunc(head, func(r rune) bool { return r >= '0' && r <= '9' })
	if digits < 0 {
		return head, "", nil
	}
	return head[:digits], head[digits:], nil
}

// amountInRange reports whether amount is at most l402.MaxMsat. The check comes before the decoder,
// because the decoder multiplies in 64 bits and a larger amount can wrap around to a small one.
func amountInRange(amount string) bool {
	if amount == "" {
		return true
	}
	msat := 1e11 // msat in one bitcoin, for an amount without a unit
	switch amount[len(amount)-1] {
	case 'm':
		msat = 1e8
	case 'u':
		msat = 1e5
	case 'n':
		msat = 1e2
	case 'p':
		msat = 0.1
	}
	n, err := strconv.ParseUint(strings.TrimRight(amount, "munp"), 10, 64)
	return err == nil && float64(n)*msat <= float64(l402.MaxMsat)
}
