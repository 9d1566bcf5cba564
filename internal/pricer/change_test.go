package pricer_test

import (
	"context"
	"testing"
	"time"

	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/store/pgtest"
	"sluice.example/sluice/internal/store/postgres"
	"sluice.example/sluice/pricing"
)

// card is a model whose rate card is factor times the base.
func card(name string, factor float64) pricer.Model {
	return pricer.Model{Name: name, Base: base.Scale(factor), Params: params()}
}

func (g *gateway) change(models ...pricer.Model) {
	g.Helper()
	if err := g.pricer.Check(models); err != nil {
		g.Fatal(err)
	}
	if err := g.pricer.Change(g.Context(), models); err != nil {
		g.Fatal(err)
	}
}

func TestChangeOfTheLeader(t *testing.T) {
	g := start(t, embedded(t), "a", pricer.Model{})
	g.set(func(l *pricing.Load) { l.Running, l.InFlight, l.Waiting, l.Queued = 10, 10, 8, 8 })
	g.until("a high price", func(e pricing.Epoch, _ pricing.Standing) bool { return e.Multiplier == 4 })
	before := len(g.epochs())
	g.change(card(modelName, 1), card("other", 3))
	if got := g.epochs(); len(got) != before+1 || got[before].Model != "other" || got[before].Rates != base.Scale(3) {
		t.Fatalf("the same model, and one that comes: %+v", got[before:])
	}
	// Another card is in force at once, with the present multiplier.
	g.change(card(modelName, 2), card("other", 3))
	e, _ := g.board.Current(modelName)
	if got := g.epochs(); len(got) != before+2 || e != got[before+1] && e.ID != got[before+1].ID || e.Multiplier != 4 || e.Rates != base.Scale(2).Scale(4) {
		t.Fatalf("another card: %+v in force, published %+v", e, got[before:])
	}
	// The same card gets another policy, which then moves the price.
	static := card(modelName, 2)
	static.Params.Policy = pricing.PolicyStatic
	g.change(static)
	if e, _ := g.board.Current(modelName); e.Multiplier != 1 || e.Rates != base.Scale(2) {
		t.Errorf("a static policy: %+v", e)
	}
	if _, there := g.board.Current("other"); !there {
		t.Error("a request that began before needs the price of a model that is gone")
	}
	n := len(g.epochs())
	time.Sleep(3 * interval)
	if got := g.epochs(); len(got) != n {
		t.Errorf("models that are gone, or did not change, were published: %+v", got[n:])
	}
	bad := card(modelName, 1)
	bad.Params.Interval = -1
	if g.pricer.Check([]pricer.Model{bad}) == nil {
		t.Error("a policy that cannot be passes")
	}
}

// TestChangeOfAFollower checks that the card of the leading process is in force while another process
// changes its own. A model that the leader does not know still gets its first price.
func TestChangeOfAFollower(t *testing.T) {
	url := pgtest.Start(t)
	var all []*gateway
	for _, name := range []string{"a", "b"} {
		db, err := postgres.Open(context.Background(), url)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, start(t, open(t, db), name, pricer.Model{}))
	}
	leader := leading(t, all)
	other := without(all, leader)[0]
	other.change(card(modelName, 5), card("new", 3))
	time.Sleep(3 * interval)
	if e, _ := other.board.Current(modelName); e.Rates != base || len(leader.epochs()) != 1 {
		t.Fatalf("a follower's card counts: %+v", e)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if e, ok := other.board.Current("new"); ok {
			if e.Rates != base.Scale(3) {
				t.Errorf("the first price of the new model: %+v", e)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("the new model gets no price")
		}
	}
	began := time.Now()
	leader.change(card(modelName, 5), card("new", 3))
	for _, g := range all {
		g.until("the new card", func(e pricing.Epoch, _ pricing.Standing) bool { return e.Rates == base.Scale(5) })
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("a changed rate took %v", took)
	}
	n := len(leader.epochs())
	leader.stop() // another process leads, with the same card, so nothing is published
	other.until("another leads", func(_ pricing.Epoch, s pricing.Standing) bool { return s.Leads })
	if got := other.epochs(); len(got) != n {
		t.Errorf("the next leader publishes %+v", got[n:])
	}
}
