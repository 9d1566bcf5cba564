package client_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

// vectors.json holds examples of the BOLT11 specification ("Examples" and
// "Examples of Invalid Invoices") and what they mean.
func loadVectors(t testing.TB) (vectors []struct {
	Name, Invoice, Hash, Payee, Error string
	Network                           client.Network
	Amount                            l402.Msat `json:"amount_msat"`
	ExpirySeconds                     int64     `json:"expiry_seconds"`
}) {
	data, err := os.ReadFile("testdata/bolt11/vectors.json")
	if err == nil {
		err = json.Unmarshal(data, &vectors)
	}
	if err != nil {
		t.Fatal(err)
	}
	return vectors
}

func TestDecodeInvoiceVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		inv, err := client.DecodeInvoice(v.Invoice, v.Network)
		if v.Error != "" {
			var bad *client.InvoiceError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), v.Error) {
				t.Errorf("%s: error %v, want %q", v.Name, err, v.Error)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if inv.Hash.String() != v.Hash || inv.Amount != v.Amount || inv.Payee != v.Payee ||
			int64(inv.ExpiresAt.Sub(inv.At).Seconds()) != v.ExpirySeconds {
			t.Errorf("%s: %+v", v.Name, inv)
		}
	}
}

func FuzzDecodeInvoice(f *testing.F) {
	for _, v := range loadVectors(f) {
		f.Add(v.Invoice)
	}
	f.Add("lnbcrt1")
	f.Add("LNTBS10u1")
	f.Fuzz(func(t *testing.T, s string) {
		for _, n := range []client.Network{client.Mainnet, client.Testnet, client.Signet, client.Regtest} {
			inv, err := client.DecodeInvoice(s, n)
			if err != nil {
				continue
			}
			if !inv.Amount.Valid() || inv.ExpiresAt.Before(inv.At) || len(inv.Payee) != 66 {
				t.Fatalf("%q: %+v", s, inv)
			}
		}
	})
}
