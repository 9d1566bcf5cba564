package lightning

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// vectors reads testdata/bolt11.txt: invoice, payment hash, payee.
func vectors(tb testing.TB) [][]string {
	tb.Helper()
	b, err := os.ReadFile("testdata/bolt11.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var all [][]string
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); !strings.HasPrefix(line, "#") && len(fields) == 3 {
			all = append(all, fields)
		}
	}
	return all
}

func TestDecodeInvoice(t *testing.T) {
	for _, v := range vectors(t) {
		for _, invoice := range []string{v[0], strings.ToUpper(v[0])} {
			hash, err := invoiceHash(invoice)
			if err != nil || hash.String() != v[1] {
				t.Errorf("%s: hash %s, %v", invoice, hash, err)
			}
			payee, err := invoicePayee(invoice)
			if err != nil || payee != v[2] {
				t.Errorf("%s: payee %s, %v", invoice, payee, err)
			}
		}
	}
}

func FuzzDecodeInvoice(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v[0])
		f.Add(v[0][:len(v[0])-7])
	}
	f.Add("")
	f.Add("lnbcrt1")
	f.Add("lntbs10n1p")
	f.Fuzz(func(t *testing.T, s string) {
		_, hashErr := invoiceHash(s)
		_, payeeErr := invoicePayee(s)
		for _, err := range []error{hashErr, payeeErr} {
			if err != nil && !errors.Is(err, ErrInvoice) {
				t.Errorf("%q: %v", s, err)
			}
		}
	})
}
