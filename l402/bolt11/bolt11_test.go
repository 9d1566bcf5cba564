package bolt11_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcec/v2"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
	"sluice.example/sluice/l402/bolt11/bolt11test"
)

// loadVectors reads vectors.json. The file has the examples of the BOLT 11 specification
// ("Examples" and "Examples of Invalid Invoices") with their decoded values.
func loadVectors(t testing.TB) (vectors []struct {
	Name, Invoice, Hash, Payee, Error string
	Network                           bolt11.Network
	Amount                            l402.Msat `json:"amount_msat"`
	ExpirySeconds                     int64     `json:"expiry_seconds"`
}) {
	data, err := os.ReadFile("testdata/vectors.json")
	if err == nil {
		err = json.Unmarshal(data, &vectors)
	}
	if err != nil {
		t.Fatal(err)
	}
	return vectors
}

func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		if v.Error != "" {
			_, err := bolt11.Decode(v.Invoice)
			if !errors.Is(err, bolt11.ErrInvalid) || !strings.Contains(err.Error(), v.Error) {
				t.Errorf("%s: error %v, want %q", v.Name, err, v.Error)
			}
			continue
		}
		for _, invoice := range []string{v.Invoice, strings.ToUpper(v.Invoice)} {
			inv, err := bolt11.Decode(invoice)
			if err != nil {
				t.Errorf("%s: %v", v.Name, err)
				continue
			}
			if inv.Network != v.Network || inv.Hash.String() != v.Hash || inv.Amount != v.Amount || inv.Payee != v.Payee ||
				int64(inv.ExpiresAt.Sub(inv.At).Seconds()) != v.ExpirySeconds {
				t.Errorf("%s: %+v", v.Name, inv)
			}
		}
	}
}

func TestSignedInvoicesDecode(t *testing.T) {
	key, err := btcec.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 0)
	for _, n := range []bolt11.Network{bolt11.Mainnet, bolt11.Testnet, bolt11.Signet, bolt11.Regtest, bolt11.Simnet} {
		want := bolt11.Invoice{
			Network: n, Hash: l402.NewPreimage().Hash(), Amount: 12_345, Description: "a call", At: at, ExpiresAt: at.Add(7 * time.Minute),
			Secret: [32]byte{1, 2}, FinalCLTV: 80,
		}
		got, err := bolt11.Decode(bolt11test.Sign(key, want))
		if err != nil {
			t.Errorf("%s: %v", n, err)
			continue
		}
		if len(got.Payee) != 66 {
			t.Errorf("%s: payee %q", n, got.Payee)
		}
		if want.Payee = got.Payee; got != want {
			t.Errorf("%s: got %+v, want %+v", n, got, want)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	if n, err := bolt11.ParseNetwork("signet"); n != bolt11.Signet || err != nil {
		t.Errorf("signet: %q, %v", n, err)
	}
	if _, err := bolt11.ParseNetwork("lightning"); err == nil || !strings.Contains(err.Error(), `"lightning"`) {
		t.Errorf("an unknown network: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range loadVectors(f) {
		f.Add(v.Invoice)
		f.Add(v.Invoice[:max(0, len(v.Invoice)-7)])
	}
	f.Add("")
	f.Add("lnbcrt1")
	f.Add("LNTBS10u1")
	f.Add("lntbs10n1p")
	f.Fuzz(func(t *testing.T, s string) {
		inv, err := bolt11.Decode(s)
		if err != nil {
			if !errors.Is(err, bolt11.ErrInvalid) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if !inv.Amount.Valid() || inv.ExpiresAt.Before(inv.At) || len(inv.Payee) != 66 {
			t.Fatalf("%q: %+v", s, inv)
		}
	})
}
