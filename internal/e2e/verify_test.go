package e2e

import (
	"database/sql"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver of the ledger's own store
)

// TestVerifyLedger finds what was done to a ledger behind the gateway's back.
func TestVerifyLedger(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	for range 20 { // a challenge leaves nothing in the ledger
		g.post(t, chat(), nil).challenge(t)
	}
	if out, err := exec.Command(filepath.Join(binaries, "gateway"), "verify-ledger", "--config", g.config).CombinedOutput(); err != nil || !strings.Contains(string(out), " 0 accounts") {
		t.Errorf("after challenges alone, verify-ledger: %v\n%s", err, out)
	}
	k, other := g.buy(t, 20_000), g.buy(t, 4000)
	g.post(t, chat(), k.header()).want(t, http.StatusOK)
	g.balance(t, other)
	g.wantDeposited(t, k.id.TokenID, 20_000)
	g.wantDeposited(t, other.id.TokenID, 4000)
	g.verify(t) // beside the running gateway
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	g.verify(t)
	account, hash := k.id.TokenID.String(), other.id.PaymentHash.String()
	for _, row := range []struct{ name, statement, names string }{
		{"more balance", "UPDATE accounts SET available = available + 1, adjusted = adjusted + 1 WHERE hex(id) = upper('" + account + "')", "account " + account},
		{"less charged", "UPDATE accounts SET available = available + 1, charged = charged - 1 WHERE hex(id) = upper('" + account + "')", "account " + account},
		{"a charge made smaller", "UPDATE charges SET charged = charged - 1 WHERE hex(account) = upper('" + account + "')", "account " + account},
		{"a charge gone", "DELETE FROM charges WHERE hex(account) = upper('" + account + "')", "account " + account},
		{"a deposit made larger", "UPDATE deposits SET credited = credited + 1000 WHERE hex(hash) = upper('" + hash + "')", hash},
		{"a deposit gone", "DELETE FROM deposits WHERE hex(hash) = upper('" + hash + "')", hash},
		{"a hold of nobody's", "INSERT INTO holds (id, account, amount, context, usage, source) VALUES (zeroblob(16), zeroblob(32), 5, x'00', x'00', '')", "hold"},
	} {
		t.Run(row.name, func(t *testing.T) {
			config := g.tampered(t, row.statement)
			out, err := exec.Command(filepath.Join(binaries, "gateway"), "verify-ledger", "--config", config).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Fatalf("verify-ledger: %v, want exit status 1\n%s", err, out)
			}
			if !strings.Contains(string(out), row.names) || strings.Contains(string(out), "all agrees") {
				t.Errorf("verify-ledger does not name %q:\n%s", row.names, out)
			}
		})
	}
}

// tampered copies the ledger, changes the copy, and returns a configuration
// that points at it.
func (g *own) tampered(t *testing.T, statement string) (config string) {
	t.Helper()
	dir := t.TempDir()
	content, err := os.ReadFile(filepath.Join(g.Dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ledger.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	result, err := db.Exec(statement)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("nothing was changed: %d, %v", n, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	yaml, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	config = filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(config, yaml, 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}
