package client_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/bolt11/bolt11test"
	"sluice.example/sluice/l402/client"
)

// TestDecodeInvoiceIsForOneNetwork checks prefixes that are similar: the prefix of signet begins
// like that of testnet, and the prefix of regtest like that of mainnet.
func TestDecodeInvoiceIsForOneNetwork(t *testing.T) {
	node, err := btcec.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	networks := []bolt11.Network{bolt11.Mainnet, bolt11.Testnet, bolt11.Signet, bolt11.Regtest}
	for _, of := range networks {
		inv := regtestInvoice(l402.NewPreimage().Hash(), 1000)
		inv.Network = of
		s := bolt11test.Sign(node, inv)
		for _, on := range networks {
			got, err := client.DecodeInvoice(s, on)
			var bad *client.InvoiceError
			switch {
			case of == on && (err != nil || got.Hash != inv.Hash || got.Network != on):
				t.Errorf("%s: %+v, %v", of, got, err)
			case of != on && (!errors.As(err, &bad) || !strings.Contains(bad.Reason, "for "+string(of)+", the wallet is on "+string(on))):
				t.Errorf("%s on %s: %v", of, on, err)
			}
		}
	}
	var bad *client.InvoiceError
	if _, err := client.DecodeInvoice("lnbc1", bolt11.Mainnet); !errors.As(err, &bad) {
		t.Errorf("no invoice: %v", err)
	}
}
