package simulate_test

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/pricing"
	"sluice.example/sluice/pricing/simulate"
)

func surge(change func(*simulate.Pool)) simulate.Scenario {
	pool := simulate.DefaultPool()
	if change != nil {
		change(&pool)
	}
	return simulate.Surge(pool, simulate.DefaultBase, simulate.DefaultFactor)
}

func named(t *testing.T, name string) simulate.Policy {
	t.Helper()
	p, ok := simulate.Named(name)
	if !ok {
		t.Fatalf("there is no policy %s", name)
	}
	return p
}

// with is the default policy with changes.
func with(name string, change func(*pricing.Params)) simulate.Policy {
	p := simulate.Policy{Name: name, Params: pricing.DefaultParams()}
	change(&p.Params)
	return p
}

func run(t *testing.T, s simulate.Scenario, p simulate.Policy, seed uint64) simulate.Result {
	t.Helper()
	r, err := simulate.Run(s, p, seed)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// median returns the median of a quantity over the seeds 1 to 9.
func median(t *testing.T, s simulate.Scenario, p simulate.Policy, of func(simulate.Result) float64) float64 {
	t.Helper()
	var list []float64
	for seed := range uint64(9) {
		list = append(list, of(run(t, s, p, seed+1)))
	}
	slices.Sort(list)
	return list[len(list)/2]
}

func p99(r simulate.Result) float64  { return r.WaitP99 }
func sdLn(r simulate.Result) float64 { return r.PriceSDLn }

// The default policy keeps its promise for 60 streams of buyers.
func TestDefaultPolicyHoldsItsTargetsInASurge(t *testing.T) {
	for seed := range uint64(60) {
		r := run(t, surge(nil), named(t, "default"), seed+1)
		if r.WaitP99 >= 5 || r.LoadMean < 0.7 || r.LoadMean > 0.9 || r.PriceSDLn > 0.25 || r.Refused > 0 {
			t.Errorf("seed %d: %+v", seed+1, summary(r))
		}
		last := r.Series[len(r.Series)-1]
		if last.Multiplier > 1.1 {
			t.Errorf("seed %d: twenty minutes after the surge the price is %g", seed+1, last.Multiplier)
		}
	}
}

func summary(r simulate.Result) simulate.Result {
	r.Series = nil
	return r
}

func TestOtherPoliciesMissTheTargets(t *testing.T) {
	for seed := range uint64(9) {
		best := run(t, surge(nil), named(t, "default"), seed+1)
		for _, name := range []string{"static", "utilization", "unclamped"} {
			r := run(t, surge(nil), named(t, name), seed+1)
			if r.Revenue >= best.Revenue {
				t.Errorf("seed %d: %s sells for %d, the default for %d msat", seed+1, name, r.Revenue, best.Revenue)
			}
			switch name {
			case "static":
				if r.WaitP50 < 15 || r.Refused < 1000 {
					t.Errorf("seed %d: static %+v", seed+1, summary(r))
				}
			case "utilization":
				if r.LoadMean > 0.4 || r.PriceMean < 3.5 {
					t.Errorf("seed %d: utilization %+v", seed+1, summary(r))
				}
			case "unclamped":
				if r.PriceSDLn < 2*best.PriceSDLn || r.WaitP99 <= best.WaitP99 {
					t.Errorf("seed %d: unclamped %+v, default %+v", seed+1, summary(r), summary(best))
				}
			}
		}
	}
}

// The joined signal keeps waits shorter than any of its parts alone, both if slots run out and if the
// KV cache does.
func TestJoinedSignalIsBetterThanEachOfItsParts(t *testing.T) {
	longPrompts := simulate.DefaultPool()
	longPrompts.KV = 1.6 // 20 requests fill the KV cache
	for name, s := range map[string]simulate.Scenario{
		"slots run out":     surge(nil),
		"KV cache runs out": simulate.Surge(longPrompts, simulate.DefaultBase/longPrompts.KV, simulate.DefaultFactor),
	} {
		joined := median(t, s, named(t, "default"), p99)
		if joined > 5 {
			t.Errorf("%s: joined %g s", name, joined)
		}
		for part, parts := range map[string]pricing.Parts{
			"load": {Load: 1, Clip: 3}, "kv": {KV: 1, Clip: 3}, "waiting": {Waiting: 1, Clip: 3}, "gpu": {GPU: 1, Clip: 3},
		} {
			alone := median(t, s, with(part, func(p *pricing.Params) { p.Parts = parts }), p99)
			if alone <= joined {
				t.Errorf("%s: p99 wait %g s with %s alone, %g s joined", name, alone, part, joined)
			}
		}
	}
}

// The default numbers are compared with the numbers that are usually used for the rule: smoothing by
// half, and a slow slew.
func TestDefaultNumbersBeatASlowController(t *testing.T) {
	slow := with("slow", func(p *pricing.Params) {
		p.Target, p.Gain, p.Smoothing, p.SlewUp = 0.8, 0.125, 0.5, 0.10
	})
	fast, late := median(t, surge(nil), named(t, "default"), p99), median(t, surge(nil), slow, p99)
	if fast >= 5 || late <= 5 {
		t.Errorf("p99 wait: default %g s, slow %g s", fast, late)
	}
}

// A loop of which the stability check warns does oscillate.
func TestStabilityViolationSwings(t *testing.T) {
	s := surge(func(p *simulate.Pool) { p.Reaction = 30 * time.Second })
	delayed := func(p *pricing.Params) { p.Delay = 42 * time.Second } // service and reaction
	calm := with("calm", func(p *pricing.Params) { delayed(p); p.Gain = p.StableGain() / 3 })
	wild := with("wild", func(p *pricing.Params) { delayed(p); p.Gain = p.StableGain() * 3 })
	if w, err := calm.Params.Validate(); err != nil || len(w) > 0 {
		t.Errorf("calm: %q %v", w, err)
	}
	if w, err := wild.Params.Validate(); err != nil || len(w) != 1 {
		t.Errorf("wild: %q %v", w, err)
	}
	if a, b := median(t, s, calm, sdLn), median(t, s, wild, sdLn); b < 1.3*a {
		t.Errorf("deviation of ln price: %g below the limit, %g above", a, b)
	}
}

func TestSameSeedSameOutput(t *testing.T) {
	render := func(seed uint64) string {
		var results []simulate.Result
		for _, name := range simulate.Names() {
			results = append(results, run(t, surge(nil), named(t, name), seed))
		}
		var b bytes.Buffer
		for _, err := range []error{simulate.WriteJSON(&b, results), simulate.WriteCSV(&b, results), simulate.WriteTable(&b, surge(nil), results), simulate.WritePlot(&b, surge(nil), results)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return b.String()
	}
	first, again := render(7), render(7)
	if first != again {
		t.Error("two runs with one seed differ")
	}
	if first == render(8) {
		t.Error("another seed changes nothing")
	}
	if strings.Contains(first, "NaN") {
		t.Error("there is a NaN in the output")
	}
}

func TestJSONHasTheNamesOfTheContract(t *testing.T) {
	var b bytes.Buffer
	if err := simulate.WriteJSON(&b, []simulate.Result{run(t, surge(nil), named(t, "default"), 1)}); err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || len(got) != 1 {
		t.Fatal(err, b.String())
	}
	want := []string{"load_mean", "policy", "price_mean", "price_sd_ln", "refused", "revenue_msat", "wait_p50_s", "wait_p99_s"}
	var names []string
	for k := range got[0] {
		names = append(names, k)
	}
	slices.Sort(names)
	if !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

// Without a price the model is a queue for which textbooks have formulas.
func TestModelAgreesWithQueueingTheory(t *testing.T) {
	pool := simulate.DefaultPool()
	pool.Queue, pool.QueueTimeout = 0, 0
	s := simulate.Surge(pool, 0.8, 1)
	s.End, s.To = 400_000, 400_000
	r := run(t, s, named(t, "static"), 1)
	mean := 0.0
	for _, sample := range r.Series {
		mean += sample.Wait / float64(len(r.Series))
	}
	if math.Abs(r.LoadMean-0.8) > 0.01 {
		t.Errorf("load %g, want 0.8", r.LoadMean)
	}
	if want := erlangWait(32, 0.8*32, 12); math.Abs(mean-want) > 0.25*want {
		t.Errorf("mean wait %g s, theory %g s", mean, want)
	}
}

// erlangWait is the mean wait in an M/M/c queue with load a (in servers).
func erlangWait(c int, a, service float64) float64 {
	b := 1.0
	for i := 1; i <= c; i++ {
		b = a * b / (float64(i) + a*b)
	}
	rho := a / float64(c)
	return b / (1 - rho*(1-b)) * service / (float64(c) * (1 - rho))
}

func TestQueueLimitAndTimeout(t *testing.T) {
	full := surge(func(p *simulate.Pool) { p.Queue, p.QueueTimeout = 5, 0 })
	short := surge(func(p *simulate.Pool) { p.Queue, p.QueueTimeout = 0, 2*time.Second })
	endless := surge(func(p *simulate.Pool) { p.Queue, p.QueueTimeout = 0, 0 })
	for _, sample := range run(t, full, named(t, "static"), 1).Series {
		if sample.Waiting > 5 {
			t.Fatalf("%d wait in a queue of 5", sample.Waiting)
		}
	}
	if r := run(t, short, named(t, "static"), 1); r.WaitP99 > 2.0001 || r.Refused == 0 {
		t.Errorf("two seconds at most: %+v", summary(r))
	}
	if r := run(t, endless, named(t, "static"), 1); r.Refused != 0 || r.WaitP50 < 600 {
		t.Errorf("without any limit: %+v", summary(r))
	}
}

func TestRunRefusesNonsense(t *testing.T) {
	good := surge(nil)
	for name, change := range map[string]func(*simulate.Scenario){
		"no slots":          func(s *simulate.Scenario) { s.Pool.Slots = 0 },
		"no service time":   func(s *simulate.Scenario) { s.Pool.Service = 0 },
		"NaN elasticity":    func(s *simulate.Scenario) { s.Pool.Elasticity = math.NaN() },
		"negative queue":    func(s *simulate.Scenario) { s.Pool.Queue = -1 },
		"no KV cache":       func(s *simulate.Scenario) { s.Pool.KV = 1e9 },
		"no pace":           func(s *simulate.Scenario) { s.Pool.Pace = 0 },
		"negative rate":     func(s *simulate.Scenario) { s.Pool.Rates[pricing.Calls] = -1 },
		"no demand":         func(s *simulate.Scenario) { s.Demand = nil },
		"demand backwards":  func(s *simulate.Scenario) { s.Demand[1].At = 0 },
		"NaN demand":        func(s *simulate.Scenario) { s.Demand[1].Rate = math.NaN() },
		"too many":          func(s *simulate.Scenario) { s.Demand[1].Rate = 1e6; s.Pool.Elasticity = 0 },
		"measured too late": func(s *simulate.Scenario) { s.To = s.End + 1 },
	} {
		s := good
		s.Demand = slices.Clone(good.Demand)
		change(&s)
		if _, err := simulate.Run(s, named(t, "default"), 1); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := simulate.Run(good, with("bad", func(p *pricing.Params) { p.Floor = 9 }), 1); err == nil {
		t.Error("a floor above the ceiling was taken")
	}
}

func TestParsePolicy(t *testing.T) {
	p, err := simulate.ParsePolicy("mine", strings.NewReader("policy: curve\ninterval: 2s\ncurve:\n- {pressure: 0.2, multiplier: 1}\n- {pressure: 0.9, multiplier: 3}\nparts: {gpu: 0}\n"))
	want := pricing.DefaultParams()
	want.Policy, want.Interval, want.Parts.GPU = "curve", 2*time.Second, 0
	want.Curve = []pricing.Point{{Pressure: 0.2, Multiplier: 1}, {Pressure: 0.9, Multiplier: 3}}
	if err != nil || p.Name != "mine" || !slices.Equal(p.Params.Curve, want.Curve) {
		t.Fatalf("%+v, %v", p, err)
	}
	p.Params.Curve, want.Curve = nil, nil
	if a, b := p.Params, want; a.Interval != b.Interval || a.Parts != b.Parts || a.Policy != b.Policy || a.Gain != b.Gain {
		t.Errorf("%+v, want %+v", a, b)
	}
	for text, want := range map[string]string{
		"":               "empty",
		"gian: 3":        "gian",
		"gain: [1]":      "line 1",
		"gain: .nan":     "gain:",
		"ceiling: 0.1":   "ceiling:",
		"policy: \tx: {": "policy",
	} {
		if _, err := simulate.ParsePolicy("bad", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func BenchmarkSurge(b *testing.B) {
	p, _ := simulate.Named("default")
	for b.Loop() {
		if _, err := simulate.Run(surge(nil), p, 1); err != nil {
			b.Fatal(err)
		}
	}
}
