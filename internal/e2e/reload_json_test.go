package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReloadTellsPrograms runs gateway reload --json on files that change something,
// nothing, what cannot change, and on one that is wrong.
func TestReloadTellsPrograms(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	type told struct {
		Generation int64
		Changed    []struct{ Key, Old, New string }
		Refused    []string
	}
	reload := func(ok bool) (r told) {
		t.Helper()
		out, err := exec.Command(filepath.Join(binaries, "gateway"), "reload", "--json", "--config", g.config).Output()
		if (err == nil) != ok {
			t.Fatalf("%v: %s", err, out)
		}
		if err := json.Unmarshal(out, &r); err != nil || r.Changed == nil || r.Refused == nil {
			t.Fatalf("%v: %s", err, out)
		}
		return r
	}
	write := func(edit func(*setup)) {
		t.Helper()
		edit(&g.setup)
		if err := g.write(); err != nil {
			t.Fatal(err)
		}
	}
	write(func(s *setup) { s.Sale = strings.Replace(saleOfOne, "4000 sat", "5000 sat", 1) })
	if r := reload(true); r.Generation != 2 || len(r.Changed) != 1 || r.Changed[0].Key != "services[inference].models[demo].prices.output" || len(r.Refused) != 0 {
		t.Errorf("a price: %+v", r)
	}
	if r := reload(true); r.Generation != 2 || len(r.Changed) != 0 || len(r.Refused) != 0 {
		t.Errorf("nothing: %+v", r)
	}
	write(func(s *setup) { s.Lease = "30s" })
	if r := reload(false); r.Generation != 2 || len(r.Changed) != 0 || len(r.Refused) != 1 || !strings.Contains(r.Refused[0], "ledger.lease") {
		t.Errorf("a lease: %+v", r)
	}
	good, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.config, append(good, "surprise: 1\nanother: 2\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	r := reload(false)
	if all := strings.Join(r.Refused, " "); r.Generation != 2 || !strings.Contains(all, "surprise: unknown key") || !strings.Contains(all, "another: unknown key") || !strings.Contains(all, "line ") {
		t.Errorf("a bad file: %+v", r)
	}
}
