package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

// runClient runs agent-client and wants an exit code; it returns what was
// printed to standard output.
func runClient(t testing.TB, want int, config string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "agent-client"), append([]string{"--config", config}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("agent-client %s: %v", args, err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Fatalf("agent-client %s: exit code %d, want %d\n%s\n%s", args, got, want, &stdout, &stderr)
	}
	return stdout.Bytes()
}

// newBuyer writes a configuration of agent-client with a store of its own.
func newBuyer(t testing.TB, gatewayURL, cap string) string {
	t.Helper()
	node, dir := demo.LND["agent"], t.TempDir()
	text := fmt.Sprintf("gateway_url: %s\nnetwork: regtest\nlnd: {grpc: %q, tls_cert: %s, macaroon: %s}\ntokens_dir: %s\ncaps: {per_request: %s}\n",
		gatewayURL, node.GRPC, node.TLSCert, node.Macaroon, filepath.Join(dir, "tokens"), cap)
	path := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAgentClient buys, spends, looks and tops up with the buyer's program.
func TestAgentClient(t *testing.T) {
	t.Parallel()
	config := newBuyer(t, demo.GatewayURL, "100 sat")
	type told struct {
		Model        string `json:"model"`
		Content      string `json:"content"`
		FinishReason string `json:"finish_reason"`
		Input        int64  `json:"input_tokens"`
		Output       int64  `json:"output_tokens"`
		Cost         int64  `json:"cost_msat"`
		Balance      int64  `json:"balance_msat"`
		Paid         int64  `json:"paid_msat"`
		Fee          *int64 `json:"fee_msat"`
		Request      string `json:"request_id"`
	}
	first := decode[told](t, runClient(t, 0, config, "chat", "--json", "--model", "demo", "--max-tokens", "20", "What is a sluice?"))
	if first.Paid < 4000 || first.Content == "" || first.Output == 0 || first.Cost != cost(first.Input, first.Output) ||
		first.Balance != first.Paid-first.Cost || first.Request == "" || first.Fee == nil {
		t.Errorf("the first chat says %+v", first)
	}
	plain := string(runClient(t, 0, config, "chat", "--model", "demo", "--max-tokens", "20", "And a lock?"))
	if strings.TrimSpace(plain) == "" || strings.Contains(plain, "data:") {
		t.Errorf("chat prints %q", plain)
	}

	request := decode[struct {
		Status  int    `json:"status"`
		Cost    int64  `json:"cost_msat"`
		Balance int64  `json:"balance_msat"`
		Paid    int64  `json:"paid_msat"`
		Body    string `json:"body"`
	}](t, runClient(t, 0, config, "request", "--json", "-d", chat(), demo.GatewayURL+chatPath))
	if request.Status != 200 || request.Paid != 0 || request.Cost == 0 || !strings.Contains(request.Body, `"choices"`) {
		t.Errorf("request says %+v", request)
	}

	b := decode[balance](t, runClient(t, 0, config, "balance", "--json"))
	if b.Available != request.Balance || b.Deposited != first.Paid {
		t.Errorf("balance says %+v, the last answer %d", b, request.Balance)
	}
	tokens := decode[[]map[string]any](t, runClient(t, 0, config, "tokens", "list", "--json"))
	if len(tokens) != 1 {
		t.Fatalf("%d tokens are stored, want 1", len(tokens))
	}
	shown := decode[map[string]any](t, runClient(t, 0, config, "tokens", "show", "--json"))
	if caveats, _ := shown["caveats"].([]any); len(caveats) != 4 || caveats[0] != "services=inference:0" || shown["preimage"] != nil {
		t.Errorf("tokens show says %v", shown)
	}

	top := decode[struct {
		Token   string  `json:"token_id"`
		Amount  int64   `json:"amount_msat"`
		Fee     *int64  `json:"fee_msat"`
		Hash    string  `json:"payment_hash"`
		Balance balance `json:"balance"`
	}](t, runClient(t, 0, config, "topup", "--json", "6000"))
	if top.Token != b.Account || top.Amount != 6000 || top.Balance.Available != b.Available+6000 || top.Fee == nil || len(top.Hash) != 64 {
		t.Errorf("topup says %+v", top)
	}
	quote := decode[struct {
		Bound int64 `json:"bound_msat"`
	}](t, runClient(t, 0, config, "quote", "--json", "--model", "demo", "--input-tokens", "10", "--max-tokens", "20"))
	if quote.Bound != cost(10, 20) {
		t.Errorf("quote says %d msat, want %d", quote.Bound, cost(10, 20))
	}
	wallet := decode[map[string]int64](t, runClient(t, 0, config, "wallet", "balance", "--json"))
	if wallet["local_msat"] <= 0 || wallet["remote_msat"] <= 0 {
		t.Errorf("wallet balance says %v", wallet)
	}
}

// TestAgentClientRefuses checks the exit codes of what does not go well.
func TestAgentClientRefuses(t *testing.T) {
	t.Parallel()
	poor := newBuyer(t, demo.GatewayURL, "1 sat")
	failure := func(out []byte) string {
		return decode[struct{ Error struct{ Code string } }](t, out).Error.Code
	}
	runClient(t, 2, poor, "no-such-command")
	runClient(t, 2, poor, "chat", "--json", "without a model")
	runClient(t, 1, poor, "balance", "--json") // no token yet
	if got := failure(runClient(t, 3, poor, "chat", "--json", "--model", "demo", "Hello")); got != "budget_refused" {
		t.Errorf("a cap of 1 sat: %q", got)
	}
	if got := decode[[]any](t, runClient(t, 0, poor, "tokens", "list", "--json")); len(got) != 0 {
		t.Errorf("a refused purchase left %v", got)
	}
	runClient(t, 1, poor, "request", "-d", chat(), demo.GatewayURL+"/no/such/route")

	rich := newBuyer(t, demo.GatewayURL, "1000000000 sat")
	seller, err := openWallet(demo.LND["gateway"])
	if err != nil {
		t.Fatal(err)
	}
	// More than the channel holds.
	invoice, err := seller.AddInvoice(t.Context(), lightning.Invoice{Preimage: l402.NewPreimage(), Amount: 95_000_000_000, Memo: "too much", Expiry: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if got := failure(runClient(t, 4, rich, "wallet", "pay", "--json", invoice)); got != "payment_failed" {
		t.Errorf("an invoice beyond the channel: %q", got)
	}
	if got := failure(runClient(t, 3, poor, "wallet", "pay", "--json", invoice)); got != "budget_refused" {
		t.Errorf("an invoice above the cap: %q", got)
	}

	// An invoice of the agent's own, paid by the seller, arrives.
	made := decode[struct {
		Invoice string `json:"invoice"`
		Hash    string `json:"payment_hash"`
		Amount  int64  `json:"amount_msat"`
	}](t, runClient(t, 0, rich, "wallet", "invoice", "--json", "--memo", "for the agent", "12000"))
	p, err := seller.Pay(t.Context(), made.Invoice, 1000, payLimit)
	if err != nil || p.Hash.String() != made.Hash || p.Amount != 12_000 {
		t.Errorf("pay the agent's invoice: %+v, %v", p, err)
	}
}
