package client_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

func show(c client.Charge) string {
	one := func(m *l402.Msat) string {
		if m == nil {
			return "-"
		}
		return fmt.Sprint(int64(*m))
	}
	return one(c.Cost) + " " + one(c.Balance)
}

func TestCost(t *testing.T) {
	header := func(cost, balance string) http.Header {
		h := http.Header{}
		h.Set(client.HeaderCost, cost)
		h.Set(client.HeaderBalance, balance)
		return h
	}
	for _, tc := range []struct {
		header, trailer http.Header
		want            string
	}{
		{nil, nil, "- -"},
		{header("12", "340"), nil, "12 340"},
		{header("", "340"), header("12", ""), "12 340"},
		{header("", "340"), header("12", "328"), "12 328"},
		{header("-1", "1e3"), header("x", "007"), "- -"},
	} {
		if got := show(client.Cost(&http.Response{Header: tc.header, Trailer: tc.trailer})); got != tc.want {
			t.Errorf("%v %v: %s, want %s", tc.header, tc.trailer, got, tc.want)
		}
	}
}

func TestParseCostComment(t *testing.T) {
	for line, want := range map[string]string{
		": l402 cost_msat=12 balance_msat=340":          "12 340 true",
		": l402 cost_msat=0 balance_msat=0\r\n":         "0 0 true",
		": l402 balance_msat=340":                       "- 340 true",
		": l402 cost_msat=12 price_epoch=7 balance=3\n": "12 - true",
		": l402 cost_msat=-1":                           "- - false",
		": l402 ":                                       "- - false",
		": keep-alive":                                  "- - false",
		"data: : l402 cost_msat=12 balance_msat=340":    "- - false",
		":l402 cost_msat=12":                            "- - false",
		"":                                              "- - false",
	} {
		c, ok := client.ParseCostComment([]byte(line))
		if got := fmt.Sprint(show(c), " ", ok); got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

const stream = "data: {\"a\":\": l402 cost_msat=9 balance_msat=9\"}\n\n" +
	": l402 cost_msat=12 balance_msat=340\r\n\r\ndata: [DONE]\n\n: l402 cost_msat=999999"

func TestCostScanner(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(stream), "byte by byte": iotest.OneByteReader(strings.NewReader(stream)),
		"halves": iotest.HalfReader(strings.NewReader(stream)),
	} {
		var scan client.CostScanner
		if _, err := io.Copy(io.Discard, io.TeeReader(r, &scan)); err != nil {
			t.Fatal(err)
		}
		if got := show(scan.Charge()); got != "12 340" {
			t.Errorf("%s: %s; a cut line must not count", name, got)
		}
	}
}

func FuzzCostScanner(f *testing.F) {
	f.Add([]byte(stream), 7)
	f.Add([]byte(": l402 cost_msat=1 balance_msat=2\r: l402 cost_msat=3\n"), 1)
	f.Add([]byte(strings.Repeat("x", 600)+"\n: l402 balance_msat=2100000000000000001\n"), 64)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		var whole, parts client.CostScanner
		whole.Write(data)
		if len(data) > 0 {
			at = int(uint(at) % uint(len(data)))
		} else {
			at = 0
		}
		parts.Write(data[:at])
		parts.Write(data[at:])
		if a, b := show(whole.Charge()), show(parts.Charge()); a != b {
			t.Fatalf("%s in one piece, %s in two", a, b)
		}
		for _, m := range []*l402.Msat{whole.Charge().Cost, whole.Charge().Balance} {
			if m != nil && !m.Valid() {
				t.Fatalf("amount %d out of range", *m)
			}
		}
	})
}
