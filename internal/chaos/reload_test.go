package chaos

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/store/pgtest"
)

// rollout is gateways on one PostgreSQL whose files are changed together.
type rollout struct {
	t     *testing.T
	list  []*Gateway
	price int // of an output token, in msat
}

// TestReplicasReload keeps 200 streams open at three replicas while their files change
// 50 times: prices, a model that comes and goes, files that are wrong. Each stream is
// charged at the rates with which it began, and a new request sees new prices within a
// second at every replica.
func TestReplicasReload(t *testing.T) {
	t.Parallel()
	till := meet(t)
	settings := till.Settings(NewBackend(t, inference.Config{Model: "demo", TokensPerSecond: 10, MaxModelLen: 4096, Slots: 1024, Seed: 3}).URL)
	settings.Store, settings.Slots = pgtest.Start(t), 256
	r := &rollout{t: t, price: 4}
	for range 3 {
		r.list = append(r.list, site.Gateway(t, settings))
	}
	k := till.TopUp(t, r.list[0], till.Buy(t, r.list[0], 10_000), 2_000_000) // no quote holds the first price
	const streams, tokens = 200, 250
	seen := make([]Seen, streams)
	var open sync.WaitGroup
	for i := range seen {
		open.Go(func() {
			seen[i] = r.list[i%len(r.list)].Send(t.Context(), k, Chat("demo", tokens, true))
			seen[i].Gateway = i % len(r.list)
		})
	}
	labtest.Eventually(t, 20*time.Second, "all streams are open", func() error {
		sum := 0.0
		for _, g := range r.list {
			m, err := g.Metrics()
			if err != nil {
				return err
			}
			sum += m[`sluice_backend_in_flight{backend="one"}`]
		}
		if sum != streams {
			return fmt.Errorf("%v streams", sum)
		}
		return nil
	})
	pace := time.NewTicker(200 * time.Millisecond)
	defer pace.Stop()
	for n := range 50 {
		<-pace.C
		r.change(n)
	}
	open.Wait()
	books := r.list[0].Charges(t, k)
	for i, s := range seen {
		c := books[s.Request]
		if !s.Paid() || s.Tokens != tokens || c.Charged != c.Usage.Input+4*tokens || c.Charged != s.Cost {
			t.Errorf("stream %d began at 4 msat a token: %s, %+v", i, s, c)
		}
	}
	Reconcile(t, seen, r.list[0], k)
}

// change makes the nth change at all replicas, in another order each time.
func (r *rollout) change(n int) {
	r.t.Helper()
	if n%10 == 9 {
		r.refuse(r.list[n%len(r.list)])
		return
	}
	r.price = 4 + (n+1)%6
	began := time.Now()
	for i := range r.list {
		g := r.list[(i+n)%len(r.list)]
		g.Output = strconv.Itoa(1000*r.price) + " sat/Mtok"
		g.More = nil
		if n%4 == 2 {
			g.More = []Model{{Name: "extra", URL: g.BackendURL, Slots: 4, Queue: 4}}
		}
		if err := g.Write(); err != nil {
			r.t.Fatal(err)
		}
		g.signal(r.t, syscall.SIGHUP)
	}
	for _, g := range r.list {
		labtest.Eventually(r.t, time.Until(began.Add(time.Second)), "a new request sees the change at every replica", func() error {
			return r.sees(g, "extra", n%4 == 2)
		})
	}
}

// sees compares a replica's list of models with the files.
func (r *rollout) sees(g *Gateway, model string, sold bool) error {
	var list struct {
		Data []struct {
			ID   string
			L402 struct {
				Rates struct {
					Output int64 `json:"output_msat_per_mtok"`
				}
			}
		}
	}
	a, err := g.Do(r.t.Context(), http.MethodGet, "/v1/models", "", nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(a.Body, &list); err != nil {
		return err
	}
	found := false
	for _, m := range list.Data {
		if m.ID == "demo" && m.L402.Rates.Output != int64(r.price)*1_000_000 {
			return fmt.Errorf("%s: an output token costs %d msat/Mtok, want %d msat", g.URL, m.L402.Rates.Output, r.price)
		}
		if m.ID == model {
			found = m.L402.Rates.Output != 0 // a model without a price is not sold
		}
	}
	if found != sold {
		return fmt.Errorf("%s sells %s: %t, want %t", g.URL, model, found, sold)
	}
	return nil
}

// refuse has one replica read a file that is wrong: it goes on with the one before.
func (r *rollout) refuse(g *Gateway) {
	r.t.Helper()
	before, err := g.Metrics()
	if err != nil {
		r.t.Fatal(err)
	}
	good := g.Output
	g.Output = "nothing"
	if err := g.Write(); err != nil {
		r.t.Fatal(err)
	}
	g.signal(r.t, syscall.SIGHUP)
	labtest.Eventually(r.t, time.Second, "the file is refused", func() error {
		now, err := g.Metrics()
		if err == nil && now["sluice_config_last_reload_successful"] != 0 {
			err = fmt.Errorf("the last reload counts as a success")
		}
		if err == nil && now["sluice_config_generation"] != before["sluice_config_generation"] {
			err = fmt.Errorf("another generation is in force")
		}
		return err
	})
	if err := r.sees(g, "extra", false); err != nil && !strings.Contains(err.Error(), "sells extra") {
		r.t.Error(err)
	}
	g.Output = good
	if err := g.Write(); err != nil {
		r.t.Fatal(err)
	}
	g.signal(r.t, syscall.SIGHUP)
}

// TestLeaderWithAnOlderFile: while files differ, the prices are those of the replica that
// leads, wherever a request comes; and they follow its file, not the others'.
func TestLeaderWithAnOlderFile(t *testing.T) {
	t.Parallel()
	till := meet(t)
	settings := till.Settings(quick(t).URL)
	settings.Store = pgtest.Start(t)
	r := &rollout{t: t, price: 4}
	for range 2 {
		r.list = append(r.list, site.Gateway(t, settings))
	}
	leader, other := r.list[0], r.list[1] // the first to start
	other.Output = "9000 sat/Mtok"
	other.More = []Model{{Name: "extra", URL: other.BackendURL, Slots: 4, Queue: 4}}
	if err := other.Write(); err != nil {
		t.Fatal(err)
	}
	other.signal(t, syscall.SIGHUP)
	// The leader does not know the new model: its first price is the other's.
	labtest.Eventually(t, 15*time.Second, "the new model is sold where it is in the file", func() error { return r.sees(other, "extra", true) })
	for _, g := range r.list {
		if err := r.sees(g, "extra", g == other); err != nil {
			t.Errorf("the leader's file counts: %v", err)
		}
	}
	r.price = 9
	leader.Output = other.Output
	leader.More = other.More
	if err := leader.Write(); err != nil {
		t.Fatal(err)
	}
	leader.signal(t, syscall.SIGHUP)
	for _, g := range r.list {
		labtest.Eventually(t, time.Second, "the leader's new price is everybody's", func() error { return r.sees(g, "extra", true) })
	}
}
