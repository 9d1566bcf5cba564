package client

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/btcsuite/btcd/chaincfg"
	"github.com/lightningnetwork/lnd/zpay32"

	"sluice.example/sluice/l402"
)

// Network is a Bitcoin network. A wallet lives on exactly one.
type Network string

// The networks whose invoices can be decoded.
const (
	Mainnet Network = "mainnet"
	Testnet Network = "testnet"
	Signet  Network = "signet"
	Regtest Network = "regtest"
)

// ParseNetwork reads the name of a network.
func ParseNetwork(s string) (Network, error) {
	if Network(s).params() == nil {
		return "", fmt.Errorf("unknown network %q: want mainnet, testnet, signet or regtest", s)
	}
	return Network(s), nil
}

func (n Network) params() *chaincfg.Params {
	switch n {
	case Mainnet:
		return &chaincfg.MainNetParams
	case Testnet:
		return &chaincfg.TestNet3Params
	case Signet:
		return &chaincfg.SigNetParams
	case Regtest:
		return &chaincfg.RegressionNetParams
	}
	return nil
}

// networkOf maps the currency prefix of BOLT11, the letters between "ln" and
// the amount, to its network.
func networkOf(prefix string) Network {
	switch prefix {
	case "bc":
		return Mainnet
	case "tb":
		return Testnet
	case "tbs":
		return Signet
	case "bcrt":
		return Regtest
	}
	return ""
}

// Invoice is a decoded BOLT11 invoice whose signature was checked.
type Invoice struct {
	Network     Network
	Hash        l402.PaymentHash
	Amount      l402.Msat // 0: the invoice names no amount
	Payee       string    // public key of the receiving node, 66 hex digits
	Description string
	At          time.Time
	ExpiresAt   time.Time
}

// maxExpiry bounds the life of an invoice, far above any in use: a longer one
// overflows a time.Duration on its way through the decoder.
const maxExpiry = 10 * 365 * 24 * time.Hour

// DecodeInvoice decodes a BOLT11 invoice of the given network in full,
// signature included. Anything else is an *InvoiceError. It judges neither
// expiry nor amount.
func DecodeInvoice(s string, network Network) (Invoice, error) {
	params := network.params()
	if params == nil {
		return Invoice{}, fmt.Errorf("decode invoice: unknown network %q", network)
	}
	prefix, amount, err := splitHead(s)
	if err != nil {
		return Invoice{}, err
	}
	if got := networkOf(prefix); got != network {
		if got == "" {
			got = Network("an unknown network, ln" + prefix)
		}
		return Invoice{}, invoiceErrorf("it is for %s, the wallet is on %s", got, network)
	}
	if !amountInRange(amount) {
		return Invoice{}, invoiceErrorf("its amount %q is out of range", amount)
	}
	raw, err := zpay32.Decode(s, params, zpay32.WithErrorOnUnknownFeatureBit())
	if err != nil {
		return Invoice{}, invoiceErrorf("not a valid BOLT11 invoice: %v", err)
	}
	expiry := raw.Expiry()
	if expiry < 0 || expiry > maxExpiry {
		return Invoice{}, invoiceErrorf("its expiry is out of range")
	}
	inv := Invoice{
		Network:   network,
		Hash:      *raw.PaymentHash,
		Payee:     hex.EncodeToString(raw.Destination.SerializeCompressed()),
		At:        raw.Timestamp,
		ExpiresAt: raw.Timestamp.Add(expiry),
	}
	if raw.MilliSat != nil {
		inv.Amount = l402.Msat(*raw.MilliSat)
	}
	if raw.Description != nil {
		inv.Description = *raw.Description
	}
	return inv, nil
}

// splitHead returns the currency prefix and the amount, both lower case, of
// the human-readable part: "ln", prefix, amount, then "1" and the data.
func splitHead(s string) (prefix, amount string, err error) {
	sep := strings.LastIndexByte(s, '1')
	if sep < 0 || len(s) < 2 || !strings.EqualFold(s[:2], "ln") || sep < 3 {
		return "", "", invoiceErrorf("not a BOLT11 invoice")
	}
	head := strings.ToLower(s[2:sep])
	digits := strings.IndexFunc(head, func(r rune) bool { return r >= '0' && r <= '9' })
	if digits < 0 {
		return head, "", nil
	}
	return head[:digits], head[digits:], nil
}

// amountInRange refuses amounts above all the money there is. The decoder
// multiplies in 64 bits, where such an amount can wrap around to a small one.
func amountInRange(amount string) bool {
	if amount == "" {
		return true
	}
	msat := 1e11 // of one bitcoin
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
