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

// Three processes on one database publish one sequence of prices. When the leader stops, another
// process continues the sequence.
func TestReplicasPublishOneSequence(t *testing.T) {
	url := pgtest.Start(t)
	var all []*gateway
	for _, name := range []string{"a", "b", "c"} {
		db, err := postgres.Open(context.Background(), url)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, start(t, open(t, db), name, pricer.Model{}))
	}
	if n := len(all[0].epochs()); n != 1 {
		t.Fatalf("%d epochs at the start", n)
	}
	// Each process has a third of the load. Together the load exceeds the pool.
	for _, g := range all {
		g.set(func(l *pricing.Load) { l.Running, l.InFlight, l.Waiting, l.Queued = 4, 4, 1, 1 })
	}
	for _, g := range all {
		g.until("the price of the whole load", func(e pricing.Epoch, _ pricing.Standing) bool { return e.Multiplier > 1.5 })
	}
	leader := leading(t, all)
	leader.stop()
	gone := time.Now()
	rest := without(all, leader)
	next := leading(t, rest)
	t.Logf("another leads after %v", time.Since(gone))
	for _, g := range rest {
		g.set(func(l *pricing.Load) { *l = idle() })
	}
	for _, g := range rest {
		g.until("the floor", func(e pricing.Epoch, _ pricing.Standing) bool { return e.Multiplier == 1 })
	}
	if err := next.pricer.Override(context.Background(), modelName, 3); err != nil {
		t.Fatal(err)
	}
	for _, g := range rest {
		g.until("the kill switch", func(e pricing.Epoch, _ pricing.Standing) bool {
			return e.Multiplier == 3 && e.BoundBy == pricing.BoundFixed
		})
	}
	var last pricing.Epoch
	for _, e := range rest[0].epochs() {
		if e.ID <= last.ID || (e.Rates == last.Rates && e.BoundBy == last.BoundBy) {
			t.Errorf("%+v is published after %+v", e, last)
		}
		last = e
	}
}

// A gateway with a model that the leader does not know, as in a rolling upgrade, starts nevertheless.
func TestNewModelNeedsNoNewLeader(t *testing.T) {
	record := embedded(t)
	lead, err := record.LeadPrices(t.Context()) // the lead of another process, which never publishes
	if err != nil {
		t.Fatal(err)
	}
	defer lead.Release()
	g := start(t, record, "b", pricer.Model{})
	if e, _ := g.board.Current(modelName); e.Rates != base || len(g.epochs()) != 1 {
		t.Errorf("%+v", g.epochs())
	}
}

// leading waits until exactly one process leads, and returns it.
func leading(t *testing.T, all []*gateway) *gateway {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var found []*gateway
		for _, g := range all {
			if s, _ := g.board.Standing(modelName); s.Leads {
				found = append(found, g)
			}
		}
		if len(found) == 1 {
			return found[0]
		}
	}
	t.Fatal("nobody leads, or several do")
	return nil
}

func without(all []*gateway, one *gateway) (rest []*gateway) {
	for _, g := range all {
		if g != one {
			rest = append(rest, g)
		}
	}
	return rest
}
