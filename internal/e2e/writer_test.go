package e2e

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.example/sluice/internal/lab/labtest"
	"sluice.example/sluice/internal/store/pgtest"
)

// saleThatRises has an engine that says how full it is. While it is overfull, each
// interval moves the price by one slew step, so that every epoch can be foretold.
const saleThatRises = `    models:
      - name: demo
        backends: [one]
        context_tokens: 4096
        max_completion_tokens: 256
        prices: {input: 1000 sat/Mtok, output: 4000 sat/Mtok}
        pricing: {interval: 1s, slew_up: 0.02, slew_down: 0.02, ceiling: 100}
backends:
  - {name: one, url: «BACKEND», slots: 64, engine: {metrics: "«ENGINE»"}}
`

const (
	risingInterval = time.Second
	risingStep     = 0.02 // of ln price
)

// engine is the metrics page of an inference server with so many requests
// waiting.
type engine struct {
	url     string
	waiting atomic.Int64
}

func newEngine(t *testing.T, waiting int64) *engine {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{url: "http://" + l.Addr().String() + "/metrics"}
	e.waiting.Store(waiting)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 4\n# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting %d\n", e.waiting.Load())
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return e
}

// published is one row of price_epochs.
type published struct {
	id         int64
	multiplier float64
	at         time.Time
}

// publications reads the epochs of the model demo, oldest first.
func publications(t *testing.T, store string) (list []published) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	rows, err := db.Query(t.Context(), "SELECT id, multiplier, at FROM price_epochs WHERE model = 'demo' ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	var id, at int64
	var multiplier float64
	if _, err := pgx.ForEachRow(rows, []any{&id, &multiplier, &at}, func() error {
		list = append(list, published{id, multiplier, time.UnixMicro(at)})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// leaders are those of the gateways that decide the price.
func leaders(t *testing.T, gateways []*own) (list []*own) {
	t.Helper()
	for _, g := range gateways {
		if g.metric(t, `sluice_price_leader{model="demo"}`) == 1 {
			list = append(list, g)
		}
	}
	return list
}

// TestOneWriterOfPrices runs three gateways on one PostgreSQL, kills the one that
// publishes the prices, twice, and wants one sequence of epochs all the same.
func TestOneWriterOfPrices(t *testing.T) {
	t.Parallel()
	store, key, load := pgtest.Start(t), newKey("shared"), newEngine(t, 100)
	var gateways []*own
	for range 3 {
		gateways = append(gateways, startGateway(t, func(s *setup) {
			s.Store, s.Keys, s.Sale = quoted(store), []masterKey{key}, strings.ReplaceAll(saleThatRises, "«ENGINE»", load.url)
		}))
	}
	all := gateways
	for range 2 {
		writer := awaitWriter(t, store, gateways)
		writer.kill(t)
		killed := time.Now()
		gateways = without(gateways, writer)
		var next time.Time
		labtest.Eventually(t, 10*risingInterval, "another gateway publishes", func() error {
			list := publications(t, store)
			if next = list[len(list)-1].at; !next.After(killed) {
				return errors.New("no epoch since the writer was killed")
			}
			return nil
		})
		if took := next.Sub(killed); took > 2*risingInterval {
			t.Errorf("the next epoch came %s after the writer was killed, want two intervals at most", took)
		}
	}
	for _, g := range all {
		if !g.server.Running() {
			g.restart(t) // and takes its place without a price of its own
		}
	}
	awaitWriter(t, store, all)
	oneSequence(t, publications(t, store))

	// What one gateway is told to fix, the writer publishes and all apply at once.
	for i, multiplier := range []float64{7, 0.5} {
		all[i].operator(t, http.MethodPost, "/admin/prices", fmt.Sprintf(`{"model":"demo","multiplier":%g}`, multiplier)).want(t, http.StatusOK)
		labtest.Eventually(t, risingInterval, "the price is fixed everywhere", func() error {
			for _, g := range all {
				if p := g.priceNow(t); *p.Multiplier != multiplier || p.BoundBy != "fixed" {
					return fmt.Errorf("%s: ×%g, bound by %s", g.URL, *p.Multiplier, p.BoundBy)
				}
			}
			return nil
		})
	}
	all[0].verify(t)
}

func without(list []*own, gone *own) (rest []*own) {
	for _, g := range list {
		if g != gone {
			rest = append(rest, g)
		}
	}
	return rest
}

// awaitWriter waits for three more epochs, which all gateways apply, and returns
// the one gateway that publishes them.
func awaitWriter(t *testing.T, store string, gateways []*own) *own {
	t.Helper()
	before := len(publications(t, store))
	labtest.Eventually(t, 10*risingInterval, "three more epochs", func() error {
		if n := len(publications(t, store)) - before; n < 3 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	labtest.Eventually(t, 2*risingInterval, "all gateways have one price", func() error {
		newest := gateways[0].priceNow(t)
		for _, g := range gateways[1:] {
			if p := g.priceNow(t); p.Epoch != newest.Epoch || p.Rates != newest.Rates {
				return fmt.Errorf("%+v and %+v", newest, p)
			}
		}
		return nil
	})
	found := leaders(t, gateways)
	if len(found) != 1 {
		t.Fatalf("%d gateways lead the prices, want one", len(found))
	}
	return found[0]
}

// oneSequence wants each epoch to be one step above the last, and none within half
// an interval of it.
func oneSequence(t *testing.T, list []published) {
	t.Helper()
	for i, e := range list[1:] {
		last := list[i]
		step := math.Log(e.multiplier / last.multiplier)
		if e.id <= last.id || math.Abs(step-risingStep) > 1e-9 || e.at.Sub(last.at) < risingInterval/2 {
			t.Errorf("epoch %d (×%.4f) came %s after epoch %d (×%.4f): a step of %.4f, want %.2f",
				e.id, e.multiplier, e.at.Sub(last.at), last.id, last.multiplier, step, risingStep)
		}
	}
}
