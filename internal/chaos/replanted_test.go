package chaos

import (
	"fmt"
	"net/http"
	"os"
	"testing"
)

// replanted loses the node's disk while the gateway is away. When the gateway is back, the
// node that was rebuilt from its seed has settled more than the ledger's cursor says.
func replanted(t *testing.T, till *Till, settings Settings) {
	g := site.Gateway(t, settings)
	k := till.Buy(t, g, 20_000)
	for i := range 3 {
		till.TopUp(t, g, k, int64(4000+1000*i)) // the same amount would be the same challenge
	}
	credited(t, g, k, 35_000)
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(g.Path("ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := till.Network.RebuildGateway(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Challenges write nothing to the ledger. So a gateway whose ledger is thrown away
	// makes the invoices that the node settles while no gateway watches.
	g.Restart(t)
	var challenges []*Answer
	for i := range 8 {
		challenges = append(challenges, g.Ask(t, http.MethodPost, "/l402/topup", fmt.Sprintf(`{"amount_msat":%d}`, 5000+1000*i), k.Header()))
	}
	strange := g.offered(t, 6000)
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ledger.db-wal", "ledger.db-shm"} {
		if err := os.RemoveAll(g.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(g.Path("ledger.db"), before, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range challenges {
		till.Pay(t, c)
	}
	fresh := till.Pay(t, strange)

	g.Restart(t)
	credited(t, g, k, 103_000)
	g.Verify(t)
	if b := g.Balance(t, fresh); b.Available != 6000 {
		t.Errorf("a buyer who comes late: %+v", b)
	}
	g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), k.Header()).Want(t, http.StatusOK)
	till.TopUp(t, g, k, 20_000) // and so it goes on
	credited(t, g, k, 123_000)
	g.Verify(t)
}
