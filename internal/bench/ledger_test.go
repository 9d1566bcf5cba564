package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/metering"
)

// eachStore runs a test on a prefilled ledger of each kind of store.
func eachStore(t *testing.T, size ledgerSize, test func(t *testing.T, where string)) {
	for _, kind := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			size := size
			size.Store = filepath.Join(t.TempDir(), "ledger.db")
			if kind == "PostgreSQL" {
				size.Store = pgtest.Start(t)
			}
			if err := prefill(t.Context(), size); err != nil {
				t.Fatal(err)
			}
			test(t, size.Store)
		})
	}
}

// work runs a role and returns its answer.
func work[A any](t *testing.T, r role, plan any) (answer A) {
	t.Helper()
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	err = r(t.Context(), text, func(a any) error { answer = a.(A); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestLedger(t *testing.T) {
	eachStore(t, ledgerSize{Accounts: 100}, func(t *testing.T, where string) {
		plan := ledgerPlan{Stores: []string{where}, Rounds: 2, ledgerLoad: ledgerLoad{Callers: 8, For: 50 * time.Millisecond}}
		rows := sumLedgers("SQLite", []int{100}, work[[][]ledgerResult](t, runLedger, plan))
		if len(rows) != 1 || rows[0].Pairs < 1 || rows[0].Ratio != 1 || rows[0].Batch < 1 {
			t.Errorf("%+v", rows)
		}
	})
}

// TestPrefilledBooksAgree checks that an audit finds no fault in a prefilled ledger, before and
// after further pairs, and that the accounts' lists of charges are complete.
func TestPrefilledBooksAgree(t *testing.T) {
	const accounts, each = 30, 7
	eachStore(t, ledgerSize{Accounts: accounts, Charges: accounts * each}, func(t *testing.T, where string) {
		l, err := openPrefilled(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer l.close(t.Context())
		for round := range 2 {
			if round == 1 {
				for _, id := range l.accounts {
					if err := pair(t.Context(), l.Ledger, id, true); err != nil {
						t.Fatal(err)
					}
				}
			}
			want := int64(each + round)
			report, err := l.Audit(t.Context())
			if err != nil || !report.OK() || report.Accounts != accounts || int64(report.Charged) != want*accounts*148 ||
				report.Deposited != accounts*deposit || report.Unclaimed+report.Unconfirmed != 0 {
				t.Errorf("%+v, %v", report, err)
			}
			for _, id := range l.accounts {
				entries, next, err := l.Entries(context.Background(), metering.EntryQuery{Account: id})
				if err != nil || next != "" || int64(len(entries)) != want {
					t.Fatalf("%d entries, %v", len(entries), err)
				}
				for i, e := range entries {
					if e.ID.String()[14] != '7' || !strings.Contains("89ab", e.ID.String()[19:20]) {
						t.Fatalf("%s is no UUID of version 7", e.ID)
					}
					if e.Usage != settlement.Usage || e.Rates != rates || i > 0 && !e.At.Before(entries[i-1].At) {
						t.Fatalf("entry %d: %+v", i, e)
					}
				}
			}
		}
	})
}

func TestPrefillRefusesAnUnevenHistory(t *testing.T) {
	size := ledgerSize{Store: filepath.Join(t.TempDir(), "ledger.db"), Accounts: 3, Charges: 4}
	if err := prefill(t.Context(), size); err == nil {
		t.Error("4 charges were spread evenly over 3 accounts")
	}
}

func TestTurns(t *testing.T) {
	if first, second := turns(3, 0), turns(3, 1); !slices.Equal(first, []int{0, 1, 2}) || !slices.Equal(second, []int{2, 1, 0}) {
		t.Errorf("%v, %v", first, second)
	}
}
