package metering

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/l402"
)

// chainOf makes the seals of periods that each add 100 msat to the balance.
func chainOf(t *testing.T, n int) (rows []SealRow) {
	t.Helper()
	var prev [32]byte
	for i := range n {
		at := int64(10 * i)
		s := Seal{Period: int64(i + 1), Name: "2026-01", From: Position{at, 0}, To: Position{at + 10, 0}, Deposited: "250",
			Charged: "170", Adjusted: "20", Balance: []string{"100", "200", "300"}[i]}
		body, err := json.Marshal(&s)
		if err != nil {
			t.Fatal(err)
		}
		prev = chainHash(prev, body)
		rows = append(rows, SealRow{Period: s.Period, Body: body, Hash: prev})
	}
	return rows
}

// TestSealChain checks that no seal but the last can be changed, removed or exchanged unnoticed.
func TestSealChain(t *testing.T) {
	if seals, wrong := readSeals(chainOf(t, 3)); wrong != "" || len(seals) != 3 {
		t.Errorf("%d seals, %q", len(seals), wrong)
	}
	forge := func(rows []SealRow, i int, old, new string) {
		rows[i].Body = []byte(strings.Replace(string(rows[i].Body), old, new, 1))
	}
	rehash := func(rows []SealRow) {
		var prev [32]byte
		for i := range rows {
			prev = chainHash(prev, rows[i].Body)
			rows[i].Hash = prev
		}
	}
	for _, c := range []struct {
		name   string
		change func([]SealRow) []SealRow
		good   int
	}{
		{"a sum", func(r []SealRow) []SealRow { forge(r, 1, "250", "251"); return r }, 1},
		{"a sum and its hash", func(r []SealRow) []SealRow {
			forge(r, 1, "250", "251")
			r[1].Hash = chainHash(r[0].Hash, r[1].Body)
			return r
		}, 1},
		{"a time, and its hash", func(r []SealRow) []SealRow {
			forge(r, 1, "2026-01", "2026-02")
			r[1].Hash = chainHash(r[0].Hash, r[1].Body)
			return r
		}, 2},
		{"removed", func(r []SealRow) []SealRow { return append(r[:1], r[2]) }, 1},
		{"exchanged", func(r []SealRow) []SealRow { r[1], r[2] = r[2], r[1]; return r }, 1},
		{"a gap", func(r []SealRow) []SealRow { forge(r, 2, `"transfers":20`, `"transfers":21`); rehash(r); return r }, 2},
		{"no JSON", func(r []SealRow) []SealRow { r[2].Body = []byte("{"); return r }, 2},
	} {
		if seals, wrong := readSeals(c.change(chainOf(t, 3))); wrong == "" || len(seals) != c.good {
			t.Errorf("%s: %d seals, %q", c.name, len(seals), wrong)
		}
	}
}

func TestWide(t *testing.T) {
	for _, c := range []struct {
		amounts []l402.Msat
		text    string
		ok      bool
	}{
		{nil, "0", true},
		{[]l402.Msat{-1}, "-1", true},
		{[]l402.Msat{l402.MaxMsat}, "2100000000000000000", true},
		{[]l402.Msat{l402.MaxMsat, 1}, "2100000000000000001", false},
		{[]l402.Msat{l402.MaxMsat, 1, -1}, "2100000000000000000", true},
		{[]l402.Msat{math.MaxInt64, math.MaxInt64, math.MaxInt64}, "27670116110564327421", false},
		{[]l402.Msat{math.MinInt64, math.MinInt64}, "-18446744073709551616", false},
		{[]l402.Msat{math.MinInt64, math.MaxInt64}, "-1", true},
	} {
		var w wide
		for _, v := range c.amounts {
			w.add(v)
		}
		if _, ok := w.msat(); ok != c.ok || w.big().String() != c.text {
			t.Errorf("%v: %s, %v", c.amounts, w.big(), ok)
		}
	}
	if v, err := Total(-1, 0xffffffff); err != nil || v != -1 {
		t.Errorf("halves of -1: %v, %v", v, err)
	}
}

func TestSuspects(t *testing.T) {
	all := map[Subject]bool{accountSubject(l402.TokenID{1}): true, lineSubject(lineBudget, 77): true, {}: true}
	subjects, lines := readSuspects(appendSuspects(nil, all))
	if len(subjects) != 1 || subjects[0] != accountSubject(l402.TokenID{1}) || len(lines) != 1 {
		t.Fatalf("%v, %v", subjects, lines)
	}
	if table, seq := lines[0].line(); table != lineBudget || seq != 77 {
		t.Errorf("table %d, line %d", table, seq)
	}
}

// sealsOnly is a store that can only return its seals.
type sealsOnly struct {
	Store
	rows []SealRow
}

func (s *sealsOnly) Seals(context.Context) ([]SealRow, error) { return s.rows, nil }

// TestSealDue checks that a month is due once it is over, that it is due only once, and that no month before the
// ledger's birth is due.
func TestSealDue(t *testing.T) {
	store := &sealsOnly{}
	l := &Ledger{store: store, Reader: &Reader{born: time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC)}}
	for _, c := range []struct {
		now, ended string // RFC 3339; ended is "" when no month is due
		seal       bool
	}{
		{"2026-01-31T23:59:59Z", "", false},
		{"2026-02-01T01:30:00+02:00", "", false}, // still January in UTC
		{"2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z", true},
		{"2026-02-01T00:10:00Z", "", false},
		{"2026-02-28T23:59:59Z", "", false},
		{"2026-05-03T00:00:00Z", "2026-05-01T00:00:00Z", true}, // after months without a gateway
		{"2026-05-31T00:00:00Z", "", false},
		{"2026-02-20T00:00:00Z", "", false}, // the clock was set back
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		ended, due, err := l.sealDue(t.Context(), now)
		if err != nil || due != (c.ended != "") || due && ended.Format(time.RFC3339) != c.ended {
			t.Errorf("%s: %s, %v, %v; want %q", c.now, ended, due, err, c.ended)
		}
		if c.seal {
			body, err := json.Marshal(Seal{Period: int64(len(store.rows) + 1), Ended: ended.UnixMicro(),
				Deposited: "0", Charged: "0", Adjusted: "0", Balance: "0"})
			if err != nil {
				t.Fatal(err)
			}
			var prev [32]byte
			if n := len(store.rows); n > 0 {
				prev = store.rows[n-1].Hash
			}
			store.rows = append(store.rows, SealRow{int64(len(store.rows) + 1), body, chainHash(prev, body)})
		}
	}
}
