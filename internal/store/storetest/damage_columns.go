package storetest

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// noMoney are the columns of numbers that Damage does not change because they have no amount in msat. Each value is the
// reason.
var noMoney = map[string]string{
	"accounts.status":             "frozen or not",
	"adjustments.at":              "a time",
	"audit_state.*":               "a place to go on from: a full audit does not read it",
	"audited.*":                   "what audits remember: a full one sums up anew, and compares",
	"budget_lines.at":             "a time",
	"budget_lines.seq":            "an order",
	"budgets.checksum":            "says what other columns should be",
	"budgets.children":            "a number of budgets, compared",
	"budgets.valid_until":         "a time, under the checksum",
	"charges.at":                  "a time, compared with that of its line",
	"charges.checksum":            "says what other columns should be",
	"charges.clamped":             "a flag",
	"charges.delivered":           "bytes, which have no price by themselves",
	"charges.epoch":               "a number of a published price, under the checksum",
	"charges.provisional":         "a flag",
	"deposits.doubted":            "a time",
	"deposits.presented":          "a time",
	"deposits.settle_index":       "a place in the node's list",
	"deposits.settled":            "a time",
	"holds.expires":               "a time that nobody reads any more",
	"idempotency_keys.charged":    "a flag",
	"idempotency_keys.expires":    "a time",
	"meta.*":                      "who the ledger is, and since when",
	"owners.*":                    "heartbeats",
	"price_epochs.*":              "what was published; what a charge cost is in the charge",
	"price_overrides.*":           "what an operator fixed; what a charge cost is in the charge",
	"rate_windows.*":              "numbers of requests",
	"replica_loads.*":             "reports of load",
	"schema_additions.*":          "which migrations ran",
	"schema_steps.*":              "which migrations ran",
	"schema_versions.*":           "which migrations ran",
	"sealed.*":                    "sums at the end of a period, under the hash of its seal",
	"seals.period":                "a number of a month, under the hash",
	"settle_cursors.settle_index": "a place in the node's list",
	"settle_cursors.since":        "a time",
	"transfers.at":                "a time, compared with that of its charge",
	"transfers.seq":               "an order",
	"sqlite_sequence.seq":         "SQLite's own",
}

var setColumn = regexp.MustCompile(`(\w+) = (\w+) [-+%]`)

// Columns checks that Damage changes every amount that a store keeps. columns are the store's columns of numbers, as
// "table.column".
func Columns(t *testing.T, columns []string) {
	changed := make(map[string]bool)
	for _, d := range damages {
		table, found := strings.CutPrefix(d.sql, "UPDATE ")
		if !found {
			continue
		}
		table, _, _ = strings.Cut(table, " ")
		for _, set := range setColumn.FindAllStringSubmatch(d.sql, -1) {
			if set[1] == set[2] {
				changed[table+"."+set[1]] = true
			}
		}
	}
	if len(columns) < 30 {
		t.Errorf("only %d columns: %v", len(columns), columns)
	}
	for _, c := range columns {
		table, _, _ := strings.Cut(c, ".")
		if !changed[c] && noMoney[c] == "" && noMoney[table+".*"] == "" {
			t.Errorf("%s: no damage changes it, and it is not said why that would be no loss", c)
		}
		delete(changed, c)
	}
	if left := slices.Sorted(maps.Keys(changed)); len(left) > 0 {
		t.Errorf("damages of columns that there are not: %v", left)
	}
}
