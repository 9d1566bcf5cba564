package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"sluice.example/sluice/metering"
)

// TestGuards checks that the schema refuses impossible rows, whichever program writes them.
func TestGuards(t *testing.T) {
	d, err := Open(context.Background(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const id = `x'0101010101010101010101010101010101010101010101010101010101010101'`
	run := func(sql string) error {
		return d.write(context.Background(), true, func(w *writer) (bool, error) { return true, w.script(sql) })
	}
	for _, sql := range []string{
		`INSERT INTO accounts (id, available, held, deposited) VALUES (` + id + `, 60, 40, 100)`,
		`INSERT INTO budgets (id, account, max_spend, spent, held) VALUES (` + id + `, ` + id + `, 100, 60, 40)`,
		`INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, x'01', x'02', 100, x'03', 0)`,
		`INSERT INTO deposits (hash, account, credited) VALUES (` + id + `, ` + id + `, 100)`,
		`INSERT INTO price_overrides VALUES ('m', 2, 0)`,
	} {
		if err := run(sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	for _, sql := range []string{
		`UPDATE accounts SET available = -1, held = 101`,
		`UPDATE accounts SET held = -1, available = 101`,
		`UPDATE accounts SET available = 61`,
		`UPDATE accounts SET charged = -5, deposited = 95`,
		`UPDATE accounts SET status = 3`,
		`UPDATE budgets SET spent = 61`,
		`UPDATE budgets SET spent = -1`,
		`UPDATE transfers SET amount = 5`,
		`DELETE FROM transfers`,
		`INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (1, x'01', x'02', 0, x'03', 0)`,
		`INSERT INTO transfers (kind, debit, credit, amount, ref, at) VALUES (9, x'01', x'02', 1, x'03', 0)`,
		`INSERT INTO accounts (id) VALUES (x'01')`,
		`INSERT INTO accounts (id) VALUES (` + id + `)`,
		`INSERT INTO meta VALUES (2, x'00000000000000000000000000000000', 0)`,
		`INSERT INTO budget_lines (budget, hold, amount, at) VALUES (x'01', x'02', 0, 0)`,
		`UPDATE deposits SET covered = -1`,
		`UPDATE price_overrides SET multiplier = 0`,
	} {
		if err := run(sql); !errors.Is(err, metering.ErrRejected) {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
