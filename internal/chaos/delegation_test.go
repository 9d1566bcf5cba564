package chaos

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"sluice.example/sluice/internal/store/pgtest"
)

// replicas starts two gateways on one PostgreSQL.
func replicas(t *testing.T, till *Till, backendURL string) []*Gateway {
	t.Helper()
	settings := till.Settings(backendURL)
	settings.Store = pgtest.Start(t)
	return []*Gateway{site.Gateway(t, settings), site.Gateway(t, settings)}
}

// TestDelegation has 100 callers at once on each of three nested budgets, over
// two gateways: no budget is ever overspent, and all of it can be spent.
func TestDelegation(t *testing.T) {
	t.Parallel()
	till := meet(t)
	gateways := replicas(t, till, quick(t).URL)
	t.Run("at a fixed price", func(t *testing.T) {
		for range either(10, 3) {
			spendChain(t, till, gateways, func(int) string { return Chat("flat", 4, false) })
		}
	})
	// Here holds are larger than charges, and streams run while others ask.
	t.Run("by tokens", func(t *testing.T) {
		spendChain(t, till, gateways, func(i int) string { return Chat("demo", 16+i%64, i%2 == 0) })
	})
}

// Limits of the three budgets, outermost first: 40, 20 and 10 calls.
var chainLimits = []int64{40 * FlatPrice, 20 * FlatPrice, 10 * FlatPrice}

func spendChain(t *testing.T, till *Till, gateways []*Gateway, ask func(i int) string) {
	t.Helper()
	k := till.Buy(t, gateways[0], 200*FlatPrice)
	chain := []Credential{k}
	for i, limit := range chainLimits {
		chain = append(chain, chain[i].Attenuate(t, fmt.Sprintf("inference_budget_msat=%d", limit), fmt.Sprintf("inference_label=level %d", i+1)))
	}
	const callers = 100 // on each level
	seen := make([]Seen, 3*callers)
	reconnect(gateways)
	overspent := watchBudgets(t, gateways, chain[3])
	var wg sync.WaitGroup
	for i := range seen {
		wg.Go(func() {
			level := 1 + i%3
			seen[i] = gateways[(i/3)%2].Send(background(), chain[level], ask(i))
			seen[i].Account = level
		})
	}
	wg.Wait()
	overspent()
	spent := make([]int64, 4) // by the callers of a level
	for _, s := range seen {
		switch {
		case s.Paid() && s.Cost >= 0:
			spent[s.Account] += s.Cost
		case s.Status != http.StatusPaymentRequired:
			t.Errorf("level %d: %s", s.Account, s)
		}
	}
	t.Logf("%s; spent by level %v msat", Summary(seen), spent[1:])
	settled := gateways[0].Idle(t, k, 15*time.Second)
	below := []int64{spent[1] + spent[2] + spent[3], spent[2] + spent[3], spent[3]}
	for _, g := range gateways {
		b := g.Balance(t, chain[3])
		if len(b.Budgets) != 3 {
			t.Fatalf("the innermost token sees %+v", b)
		}
		for i, limit := range chainLimits {
			if b.Budgets[i].Limit != limit || b.Budgets[i].Available < 0 || b.Budgets[i].Available != limit-below[i] {
				t.Errorf("budget %d: %+v after %d of %d msat were spent", i+1, b.Budgets[i], below[i], limit)
			}
			if own := g.Balance(t, chain[i+1]).Available; own != slices.Min([]int64{limit - below[i], chainLimits[0] - below[0], chainLimits[max(i-1, 0)] - below[max(i-1, 0)]}) {
				t.Errorf("level %d sees %d msat available", i+1, own)
			}
		}
	}
	if settled.Charged != below[0] || settled.Available != settled.Deposited-below[0] {
		t.Errorf("the account: %+v, its callers were told %d msat", settled, below[0])
	}
	gateways[1].Verify(t)
}

// watchBudgets looks at the budgets while they are spent, until the function it
// returns is called.
func watchBudgets(t *testing.T, gateways []*Gateway, k Credential) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			b, err := gateways[i%len(gateways)].TryBalance(k)
			if err != nil {
				t.Error(err)
			}
			for n, budget := range b.Budgets {
				if budget.Available < 0 || b.Available > budget.Available {
					t.Errorf("budget %d while it is spent: %+v", n+1, b)
				}
			}
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// TestAttenuatedIsNoParent presents sub-tokens with the parent's preimage, as
// they are and tampered with: none gets what only the parent may have.
func TestAttenuatedIsNoParent(t *testing.T) {
	t.Parallel()
	till := meet(t)
	g := site.Gateway(t, till.Settings(quick(t).URL))
	k := till.Buy(t, g, 20_000)
	g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), k.Header()).Want(t, http.StatusOK)
	child := k.Attenuate(t, "inference_budget_msat=1000", "inference_models=flat")
	grandchild := child.Attenuate(t, "inference_budget_msat=500")

	// Its own rights, and no more.
	if b := g.Balance(t, grandchild); b.Available != 500 {
		t.Errorf("the grandchild sees %+v", b)
	}
	if n := len(g.Charges(t, child)); n != 0 {
		t.Errorf("the child sees %d charges of its parent", n)
	}
	g.Ask(t, http.MethodPost, ChatPath, Chat("demo", 4, false), child.Header()).Want(t, http.StatusForbidden)
	for _, c := range []Credential{child, grandchild} {
		if fresh := till.TopUp(t, g, c, 4000); fresh.ID.TokenID == k.ID.TokenID {
			t.Error("a sub-token was offered its parent's account")
		}
	}

	tampered := map[string]func(m *macaroon.Macaroon) *macaroon.Macaroon{
		"last caveat stripped":       func(m *macaroon.Macaroon) *macaroon.Macaroon { return rebuilt(t, m, m.Caveats()[:len(m.Caveats())-1]) },
		"all added caveats stripped": func(m *macaroon.Macaroon) *macaroon.Macaroon { return rebuilt(t, m, m.Caveats()[:len(m.Caveats())-3]) },
		"reordered": func(m *macaroon.Macaroon) *macaroon.Macaroon {
			c := slices.Clone(m.Caveats())
			n := len(c)
			c[n-1], c[n-3] = c[n-3], c[n-1]
			return rebuilt(t, m, c)
		},
		"a budget raised": func(m *macaroon.Macaroon) *macaroon.Macaroon {
			c := slices.Clone(m.Caveats())
			c[len(c)-1].Id = []byte("inference_budget_msat=20000")
			return rebuilt(t, m, c)
		},
	}
	for name, tamper := range tampered {
		var m macaroon.Macaroon
		if err := m.UnmarshalBinary(grandchild.Macaroon); err != nil {
			t.Fatal(err)
		}
		raw, err := tamper(&m).MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		forged := grandchild
		forged.Macaroon = raw
		for _, ask := range [][3]string{{http.MethodGet, "/l402/balance", ""}, {http.MethodGet, "/l402/usage", ""}, {http.MethodPost, ChatPath, Chat("flat", 4, false)}} {
			a := g.Ask(t, ask[0], ask[1], ask[2], forged.Header())
			if a.Status != http.StatusPaymentRequired && a.Status != http.StatusUnauthorized && a.Status != http.StatusForbidden {
				t.Errorf("%s: %s %s is answered %d: %s", name, ask[0], ask[1], a.Status, a.Body)
			}
		}
	}
	// A wider budget on top of it is no budget at all.
	wider := grandchild.Attenuate(t, "inference_budget_msat=20000")
	g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), wider.Header()).Want(t, http.StatusForbidden)
	// Through all of this, only the child's own rights were used.
	g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), grandchild.Header()).Want(t, http.StatusOK)
	g.Ask(t, http.MethodPost, ChatPath, Chat("flat", 4, false), grandchild.Header()).Want(t, http.StatusPaymentRequired)
	if b := g.Balance(t, k); b.Charged != 2*FlatPrice {
		t.Errorf("the parent's account: %+v", b)
	}
	g.Verify(t)
}

// rebuilt is a macaroon with other caveats and the old one's signature.
func rebuilt(t *testing.T, m *macaroon.Macaroon, caveats []macaroon.Caveat) *macaroon.Macaroon {
	t.Helper()
	type caveat struct {
		ID string `json:"i"`
	}
	text := struct {
		Version   int      `json:"v"`
		ID        []byte   `json:"i64"`
		Location  string   `json:"l,omitempty"`
		Caveats   []caveat `json:"c"`
		Signature []byte   `json:"s64"`
	}{2, m.Id(), m.Location(), nil, m.Signature()}
	for _, c := range caveats {
		text.Caveats = append(text.Caveats, caveat{string(c.Id)})
	}
	raw, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	var out macaroon.Macaroon
	if err := out.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return &out
}

// TestRateAcrossReplicas counts a token's requests per minute at two gateways as
// one.
func TestRateAcrossReplicas(t *testing.T) {
	t.Parallel()
	till := meet(t)
	gateways := replicas(t, till, quick(t).URL)
	const limit = 10
	k := till.Buy(t, gateways[0], 100*FlatPrice).Attenuate(t, fmt.Sprintf("inference_rpm=%d", limit))
	began := time.Now()
	seen := crowd(gateways, k, 40)
	passed := 0
	for _, s := range seen {
		switch {
		case s.Paid():
			passed++
		case s.Status != http.StatusTooManyRequests:
			t.Errorf("neither answered nor limited: %s", s)
		}
	}
	t.Log(Summary(seen))
	// A minute may end in between; its count fades slowly into the next.
	if most := limit + 1; passed < limit || passed > most || time.Since(began) > 20*time.Second {
		t.Errorf("%d of 40 requests passed a limit of %d per minute", passed, limit)
	}
	gateways[0].Verify(t)
}
