package lightning

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/btcsuite/btcd/chaincfg"
	"github.com/lightningnetwork/lnd/zpay32"

	"sluice.example/sluice/l402"
)

// networks are the chains whose invoices are understood, by BOLT11 prefix.
// The longer prefix comes first where one begins with another.
var networks = []struct {
	prefix string
	params *chaincfg.Params
}{
	{"lnbcrt", &chaincfg.RegressionNetParams},
	{"lntbs", &chaincfg.SigNetParams},
	{"lnbc", &chaincfg.MainNetParams},
	{"lntb", &chaincfg.TestNet3Params},
	{"lnsb", &chaincfg.SimNetParams},
}

// decodeInvoice reads a BOLT11 invoice of any known network and checks its
// signature.
func decodeInvoice(bolt11 string) (*zpay32.Invoice, error) {
	lower := strings.ToLower(bolt11)
	for _, n := range networks {
		if !strings.HasPrefix(lower, n.prefix) {
			continue
		}
		inv, err := zpay32.Decode(bolt11, n.params)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvoice, err)
		}
		return inv, nil
	}
	return nil, fmt.Errorf("%w: its prefix names no known network", ErrInvoice)
}

// invoiceHash returns the payment hash of a BOLT11 invoice.
func invoiceHash(bolt11 string) (l402.PaymentHash, error) {
	inv, err := decodeInvoice(bolt11)
	if err != nil {
		return l402.PaymentHash{}, err
	}
	if inv.PaymentHash == nil {
		return l402.PaymentHash{}, fmt.Errorf("%w: it has no payment hash", ErrInvoice)
	}
	return *inv.PaymentHash, nil
}

// invoicePayee returns the node key that signed a BOLT11 invoice, in hex. For
// an invoice with blinded paths that is a throw-away key, not the node's.
func invoicePayee(bolt11 string) (string, error) {
	inv, err := decodeInvoice(bolt11)
	if err != nil {
		return "", err
	}
	if inv.Destination == nil {
		return "", fmt.Errorf("%w: it has no payee", ErrInvoice)
	}
	return hex.EncodeToString(inv.Destination.SerializeCompressed()), nil
}
