// Package archtest keeps the import rules of ARCHITECTURE.md: who may know
// whom, each with its reason.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed lists, for each room, the rooms of this module it may import
// directly. A room is a package and everything below it; the longest match
// counts.
var allowed = map[string][]string{
	"l402":                  {},
	"l402/bolt11":           {"l402"},
	"l402/client":           {"l402", "l402/bolt11", "internal/backoff", "internal/secretfile"},
	"l402/client/lndwallet": {"l402", "l402/client", "internal/lightning"},
	"pricing":               {"l402"},
	"metering":              {"l402", "pricing"},
	"metering/format":       {"l402", "pricing", "metering"},
	"backends/gpu":          {"l402", "pricing", "internal/backoff"},
	"migrations":            {},
	"internal/config":       {"l402", "pricing", "metering/format", "internal/placeholder"}, // the names of engines, fields and APIs
	"internal/catalog":      {"internal/config"},
	"internal/backoff":      {},
	"internal/cli":          {},
	"internal/secretfile":   {},
	"internal/lightning":    {"l402", "l402/bolt11", "internal/backoff"},
	"internal/pricer":       {"pricing"},
	"internal/store":        {"l402", "pricing", "metering", "internal/backoff", "internal/pricer", "migrations"},
	"internal/placeholder":  {},
	"internal/quiet":        {},
	"internal/observe":      {"l402", "pricing", "metering"}, // what happened, in the words of the ledger
	"internal/gateway": {"l402", "pricing", "metering", "metering/format", "backends/gpu", "internal/gateway/intake",
		"internal/gateway/problem", "internal/observe", "internal/quiet"},
	"internal/gateway/problem":  {"l402", "pricing", "metering", "metering/format", "backends/gpu"}, // whose errors it words
	"internal/gateway/intake":   {"l402"},                                                           // accounts are counted by their token
	"internal/lab":              {"pricing"},
	"internal/devnet":           {"l402", "internal/lightning", "internal/lab"},
	"internal/devnet/inference": {"backends/gpu"}, // the simulated GPU
	"internal/demo": {"l402", "l402/bolt11", "l402/client", "l402/client/lndwallet", "pricing", "backends/gpu", "internal/lightning", "internal/secretfile", "internal/lab", "internal/devnet",
		"internal/devnet/inference"},
	"internal/e2e":                   {},
	"internal/chaos":                 {"l402", "l402/client", "internal/lightning", "internal/lab", "internal/devnet", "internal/devnet/inference"},
	"internal/chaos/nemesis":         {"l402", "pricing", "metering", "internal/store", "internal/lab", "internal/chaos"},
	"internal/chaos/nemesis/history": {},
	"internal/bench": {"l402", "pricing", "metering", "metering/format", "backends/gpu", "internal/gateway", "internal/gateway/intake", "internal/pricer", "internal/store", "internal/lightning",
		"internal/lab", "internal/devnet", "internal/devnet/inference"},
	"internal/archtest": {},
	"tools/mutate":      {},
	"cmd/gateway": {"l402", "pricing", "metering", "metering/format", "backends/gpu", "internal/cli", "internal/config", "internal/catalog", "internal/gateway", "internal/gateway/intake", "internal/quiet",
		"internal/store", "internal/lightning", "internal/pricer", "internal/devnet", "internal/devnet/inference", "internal/demo"},
	"cmd/agent-client": {"l402", "l402/bolt11", "l402/client", "l402/client/lndwallet", "internal/lightning", "internal/backoff", "internal/cli", "internal/placeholder", "internal/secretfile"},
}

// forbidden lists packages and modules that a room must not reach even
// indirectly.
var forbidden = []struct {
	room, module, reason string
}{
	{"l402", "github.com/lightningnetwork/lnd/lnrpc", "the protocol must build without lnd's protobuf replace"},
	{"l402", "github.com/gin-gonic/gin", "the protocol is no web server"},
	{"l402/bolt11", "github.com/lightningnetwork/lnd/lnrpc", "the buyer's SDK decodes invoices without lnd's protobuf replace"},
	{"l402/client", "github.com/gin-gonic/gin", "an agent's developer embeds the SDK"},
	{"l402/client", "github.com/jackc/pgx", "an agent's developer embeds the SDK"},
	{"l402/client", "github.com/lightningnetwork/lnd/lnrpc", "an agent's developer embeds the SDK without lnd's protobuf replace"},
	{"pricing", "database/sql", "prices are pure: no I/O"},
	{"pricing", "sluice.example/sluice/metering", "prices know no money"},
	{"metering", "modernc.org/sqlite", "the ledger decides, the stores write"},
	{"metering", "github.com/jackc/pgx", "the ledger decides, the stores write"},
	{"backends/gpu", "sluice.example/sluice/metering", "the fleet knows rate cards and no ledger"},
	{"internal/gateway", "sluice.example/sluice/internal/store", "the gateway states the interfaces it needs; cmd/gateway hands it the implementations"},
	{"internal/gateway", "sluice.example/sluice/internal/pricer", "the gateway states the interfaces it needs; cmd/gateway hands it the implementations"},
	{"internal/pricer", "sluice.example/sluice/metering", "prices know no money"},
	{"internal/gateway/intake", "sluice.example/sluice/metering", "what is taken on is bounded before anything is known of money"},
	{"internal/observe", "sluice.example/sluice/internal/gateway", "observers are told; they ask nothing of the request"},
	{"internal/gateway/intake", "sluice.example/sluice/metering", "what is taken on is bounded before anything is known of money"},
	{"internal/observe", "sluice.example/sluice/backends/gpu", "observers are told; what has a state is read by whoever shows it"},
	{"internal/gateway", "sluice.example/sluice/internal/lightning", "the gateway states the interfaces it needs; cmd/gateway hands it the implementations"},
	{"internal/gateway", "github.com/lightningnetwork/lnd", "the gateway states the interfaces it needs; cmd/gateway hands it the implementations"},
	{"cmd/agent-client", "github.com/gin-gonic/gin", "the buyer's binary serves nothing"},
	{"cmd/agent-client", "sluice.example/sluice/metering", "the buyer's binary keeps no ledger"},
}

type listed struct {
	ImportPath string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,GoFiles,Imports,Deps", "sluice.example/sluice/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// room returns the longest entry of allowed that holds the package.
func room(path string) string {
	best := ""
	for r := range allowed {
		if within(path, r) && len(r) > len(best) {
			best = r
		}
	}
	return best
}

func within(path, room string) bool {
	return path == room || strings.HasPrefix(path, room+"/")
}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, "sluice.example/sluice/")
		here := room(path)
		if here == "" {
			t.Errorf("%s is in no room: add it to the table and to ARCHITECTURE.md", path)
			continue
		}
		for _, imp := range p.Imports {
			imp, ours := strings.CutPrefix(imp, "sluice.example/sluice/")
			if !ours || within(imp, here) {
				continue
			}
			if !slices.Contains(allowed[here], room(imp)) {
				t.Errorf("%s must not import %s", path, imp)
			}
		}
	}
}

func TestForbiddenDependencies(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, "sluice.example/sluice/")
		for _, rule := range forbidden {
			if room(path) != rule.room {
				continue
			}
			for _, dep := range p.Deps {
				if within(dep, rule.module) {
					t.Errorf("%s depends on %s: %s", path, dep, rule.reason)
				}
			}
		}
	}
}

func TestGinStaysInOneFile(t *testing.T) {
	out, err := exec.Command("grep", "-rl", "--include=*.go", `"github.com/gin-gonic/gin"`, "../..").Output()
	if err != nil {
		t.Fatalf("no file imports gin: %v", err)
	}
	files := strings.Fields(string(out))
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "archtest_test.go") })
	if len(files) != 1 {
		t.Errorf("gin is the URL map and nothing else, so it is imported once; found in %v", files)
	}
}
