package pricing_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"sluice.example/sluice/pricing"
)

func TestPressure(t *testing.T) {
	nan := math.NaN()
	unknown := pricing.UnknownLoad()
	unknown.Capacity = 32
	load := func(change func(*pricing.Load)) pricing.Load {
		l := unknown
		change(&l)
		return l
	}
	for name, c := range map[string]struct {
		load pricing.Load
		want float64 // negative means not known
	}{
		"nothing known":                {unknown, -1},
		"nothing can serve":            {load(func(l *pricing.Load) { l.Capacity, l.Waiting = 0, 9 }), -1},
		"idle":                         {load(func(l *pricing.Load) { l.Running, l.Waiting = 0, 0 }), 0},
		"half full":                    {load(func(l *pricing.Load) { l.Running, l.Waiting = 16, 0 }), 0.5},
		"running alone is known":       {load(func(l *pricing.Load) { l.Running = 16 }), 0.5},
		"a queue":                      {load(func(l *pricing.Load) { l.Running, l.Waiting = 32, 8 }), 1.6},
		"a crowd is clipped":           {load(func(l *pricing.Load) { l.Running, l.Waiting = 32, 900 }), 3},
		"cache full":                   {load(func(l *pricing.Load) { l.Running, l.Waiting, l.KV = 8, 0, 0.8 }), 1},
		"the GPUs idle":                {load(func(l *pricing.Load) { l.Utilization = 0 }), 0},
		"someone else's work":          {load(func(l *pricing.Load) { l.InFlight, l.Utilization = 0, 0.9 }), 0.9},
		"someone else's, SMs known":    {load(func(l *pricing.Load) { l.InFlight, l.SM, l.Utilization = 0, 0.6, 1 }), 0.6},
		"ours explains half of it":     {load(func(l *pricing.Load) { l.InFlight, l.Utilization = 2, 1 }), 0.5},
		"saturated by few of ours":     {load(func(l *pricing.Load) { l.Running, l.Waiting, l.InFlight, l.Utilization = 8, 0, 8, 1 }), 0.25},
		"saturated and full":           {load(func(l *pricing.Load) { l.InFlight, l.Utilization = 32, 1 }), 1},
		"negative is not known":        {load(func(l *pricing.Load) { l.Running, l.Waiting = -5, 1 }), 0.2},
		"absurd is not known":          {load(func(l *pricing.Load) { l.Running, l.Waiting, l.KV = 16, 1e9, 7 }), 0.5},
		"infinite is not known":        {load(func(l *pricing.Load) { l.Running = math.Inf(1) }), -1},
		"capacity not known, a queue":  {load(func(l *pricing.Load) { l.Capacity, l.Waiting = nan, 5 }), 1},
		"utilization above 1 is wrong": {load(func(l *pricing.Load) { l.InFlight, l.Utilization = 0, 95 }), -1},
	} {
		got, ok := pricing.DefaultParts().Pressure(c.load)
		if ok != (c.want >= 0) || ok && !near(got, c.want) {
			t.Errorf("%s: %g %v, want %g", name, got, ok, c.want)
		}
	}
}

func TestPartsWeigh(t *testing.T) {
	l := pricing.Load{Running: 16, Waiting: 2, Capacity: 32, InFlight: 16, KV: 0.4, SM: math.NaN(), Utilization: 1}
	for name, c := range map[string]struct {
		parts pricing.Parts
		want  float64
	}{
		"load":        {pricing.Parts{Load: 1, Clip: 3}, 18.0 / 32},
		"kv":          {pricing.Parts{KV: 1, Clip: 3}, 0.5},
		"waiting":     {pricing.Parts{Waiting: 2, Clip: 3}, 0.8},
		"utilization": {pricing.Parts{Utilization: 1, Clip: 3}, 1},
		"clip":        {pricing.Parts{Utilization: 1, Clip: 0.3}, 0.3},
	} {
		if got, ok := c.parts.Pressure(l); !ok || !near(got, c.want) {
			t.Errorf("%s: %g %v, want %g", name, got, ok, c.want)
		}
	}
}

func TestEnergyFloor(t *testing.T) {
	// One kWh at 100 sat, plus a fifth for overhead, was used for work worth 60 sat.
	if m, ok := pricing.EnergyFloor(3.6e6, 100, 1.2, 60_000); !ok || !near(m, 2) {
		t.Errorf("%g %v, want 2", m, ok)
	}
	for _, bad := range [][4]float64{
		{math.NaN(), 1, 1, 1}, {-1, 1, 1, 1}, {1, math.Inf(1), 1, 1}, {1, 1, 0.5, 1}, {1, 1, 1, 0}, {1, 1, 1, math.NaN()}, {1e300, 1, 1, 1e-300},
	} {
		if m, ok := pricing.EnergyFloor(bad[0], bad[1], bad[2], bad[3]); ok {
			t.Errorf("%v: %g", bad, m)
		}
	}
}

func TestEnergyMeterLeavesQuietTimesOut(t *testing.T) {
	var m pricing.EnergyMeter
	for range 1000 {
		m.Add(300, 0.001, 0.01) // idle GPUs draw power and deliver almost no work
	}
	if f, ok := m.Floor(100, 1); ok {
		t.Errorf("a floor of %g before any work", f)
	}
	for range 100 {
		m.Add(3.6e6, 200_000, 0.8)
		m.Add(300, 0.001, 0.01)
		m.Add(math.NaN(), 1, 1)
		m.Add(math.Inf(1), 1, 1)
	}
	if f, ok := m.Floor(100, 1); !ok || !near(f, 0.5) {
		t.Errorf("floor %g %v, want 0.5", f, ok)
	}
}

func TestLoadJSON(t *testing.T) {
	known := pricing.UnknownLoad()
	known.Running, known.Waiting, known.Capacity, known.InFlight, known.SM, known.Age = 1, 0, 4, 0, 0, time.Second
	for want, load := range map[string]pricing.Load{
		`{"stale":false,"age_s":0}`: pricing.UnknownLoad(),
		`{"running":1,"waiting":0,"capacity":4,"in_flight":0,"sm_utilization":0,"stale":false,"age_s":1}`: known,
	} {
		if text, err := json.Marshal(load); err != nil || string(text) != want {
			t.Errorf("%s, %v; want %s", text, err, want)
		}
	}
}
