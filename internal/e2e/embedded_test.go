package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestEmbedded builds the agent of another module, which has only what the buyer's
// SDK exports, and lets it pay: for its first question, and not for the second.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	build.Dir = filepath.Join("..", "..", "examples", "agent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	node := demo.LND["agent"]
	ask := func(question string) (cost, left int64) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), program, "-url", demo.GatewayURL, "-model", "demo", "-network", "regtest",
			"-tokens", filepath.Join(dir, "tokens"), "-lnd", node.GRPC, "-tls-cert", node.TLSCert, "-macaroon", node.Macaroon, question).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if _, err := fmt.Sscanf(lines[len(lines)-1], "cost %d msat, %d msat left", &cost, &left); err != nil || len(lines) < 2 || cost <= 0 {
			t.Fatalf("it prints %q (%v)", out, err)
		}
		return cost, left
	}
	_, left := ask("What is a sluice?")
	if cost, then := ask("And a lock?"); then != left-cost {
		t.Errorf("%d msat were left, and %d after a question of %d", left, then, cost)
	}
}
