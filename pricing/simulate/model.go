package simulate

import (
	"container/heap"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"sluice.example/sluice/pricing"
)

// model is one run of a discrete-event simulation. Times are in seconds.
type model struct {
	s        Scenario
	policy   Policy
	control  *pricing.Controller
	interval float64
	limit    int // requests that can run at once

	// There are two streams, so that the number of arrivals does not change how long each request runs.
	arrivals, services *rand.Rand

	now        float64
	segment    int
	multiplier float64   // the published multiplier
	known      float64   // the multiplier that buyers act on
	news       []quote   // published, but not known to buyers yet
	need       float64   // what is left of a unit-rate exponential until the next arrival
	running    endTimes  // when each running request ends
	waiting    []request // first in, first out
	count      int       // arrivals so far

	tick   float64
	sample Sample  // of the current interval
	busy   float64 // ∫ running dt over the current interval
	begun  int     // requests that began to run in the current interval
	totals totals
	series []Sample
}

type quote struct{ at, multiplier float64 }

type request struct{ at, service, multiplier float64 }

// endTimes is a heap.
type endTimes []float64

func (e endTimes) Len() int           { return len(e) }
func (e endTimes) Less(i, j int) bool { return e[i] < e[j] }
func (e endTimes) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *endTimes) Push(v any)        { *e = append(*e, v.(float64)) }
func (e *endTimes) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// totals are summed over the measured time.
type totals struct {
	busy, price        float64 // integrals over time
	ln, lnSquare, span float64 // integrals of ln multiplier over time, after settling
	waits              []float64
	refused            int
	revenue            int64
}

func newModel(s Scenario, p Policy, seed uint64) *model {
	m := &model{
		s: s, policy: p, control: pricing.NewController(p.Params, pricing.State{}),
		interval: p.Params.Interval.Seconds(),
		limit:    int(float64(s.Pool.Slots) / max(1, s.Pool.KV)),
		arrivals: rand.New(rand.NewPCG(seed, 1)), services: rand.New(rand.NewPCG(seed, 2)),
	}
	m.multiplier = m.control.State().Multiplier
	m.known = m.multiplier
	m.need = m.arrivals.ExpFloat64()
	m.tick = m.interval
	return m
}

// rate returns how many buyers arrive per second now.
func (m *model) rate() float64 {
	if m.now >= m.s.End {
		return 0
	}
	return m.s.Demand[m.segment].Rate * math.Pow(m.known, -m.s.Pool.Elasticity)
}

// The kinds of events. Events of the same moment happen in this order.
const (
	departure = iota
	timeout
	tick
	change
	arrival
	events
)

var errTooMany = errors.New("more than 5 million requests: give a shorter time or fewer slots")

// run plays the scenario until its end, and then until nobody waits any more.
func (m *model) run() error {
	for m.now < m.s.End || len(m.waiting) > 0 {
		kind, at := m.next()
		m.advance(at)
		switch kind {
		case departure:
			heap.Pop(&m.running)
			m.serve()
		case timeout:
			m.giveUp()
		case tick:
			m.step()
		case change:
			m.change()
		case arrival:
			if m.count++; m.count > maxArrivals {
				return errTooMany
			}
			m.arrive()
		}
	}
	return nil
}

// next returns the kind and time of the next event.
func (m *model) next() (kind int, at float64) {
	var when [events]float64
	for i := range when {
		when[i] = math.Inf(1)
	}
	if len(m.running) > 0 {
		when[departure] = m.running[0]
	}
	if len(m.waiting) > 0 && m.s.Pool.QueueTimeout > 0 {
		when[timeout] = m.waiting[0].at + m.s.Pool.QueueTimeout.Seconds()
	}
	if m.now < m.s.End {
		when[change] = m.s.End
		if m.segment+1 < len(m.s.Demand) {
			when[change] = min(when[change], m.s.Demand[m.segment+1].At)
		}
		if len(m.news) > 0 {
			when[change] = min(when[change], m.news[0].at)
		}
		when[tick] = m.tick
		if r := m.rate(); r > 0 {
			when[arrival] = m.now + m.need/r
		}
	}
	at = slices.Min(when[:])
	return slices.Index(when[:], at), at
}

// advance moves the clock and updates the integrals.
func (m *model) advance(to float64) {
	dt := to - m.now
	m.need -= dt * m.rate()
	running := float64(len(m.running))
	m.busy += running * dt
	if span := overlap(m.now, to, m.s.From, m.s.To); span > 0 {
		m.totals.busy += running * span
		m.totals.price += m.multiplier * span
	}
	if span := overlap(m.now, to, m.s.settled(), m.s.To); span > 0 {
		ln := math.Log(m.multiplier)
		m.totals.ln += ln * span
		m.totals.lnSquare += ln * ln * span
		m.totals.span += span
	}
	m.now = to
}

func overlap(a, b, from, to float64) float64 { return min(b, to) - max(a, from) }

// change takes over the demand of this moment, and the price that buyers know at this moment.
func (m *model) change() {
	for m.segment+1 < len(m.s.Demand) && m.s.Demand[m.segment+1].At <= m.now {
		m.segment++
	}
	for len(m.news) > 0 && m.news[0].at <= m.now {
		m.known = m.news[0].multiplier
		m.news = m.news[1:]
	}
}

func (m *model) measured(at float64) bool { return at >= m.s.From && at < m.s.To }

func (m *model) arrive() {
	m.need = m.arrivals.ExpFloat64()
	r := request{at: m.now, service: m.services.ExpFloat64() * m.s.Pool.Service.Seconds(), multiplier: min(m.known, m.multiplier)}
	if len(m.running) >= m.limit && m.s.Pool.Queue > 0 && len(m.waiting) >= m.s.Pool.Queue {
		m.refuse(r)
		return
	}
	m.waiting = append(m.waiting, r)
	m.serve()
}

func (m *model) refuse(r request) {
	m.sample.Refused++
	if m.measured(r.at) {
		m.totals.refused++
	}
}

// giveUp ends the longest wait. The length of that wait counts in the results.
func (m *model) giveUp() {
	r := m.waiting[0]
	m.waiting = m.waiting[1:]
	m.refuse(r)
	if m.measured(r.at) {
		m.totals.waits = append(m.totals.waits, m.now-r.at)
	}
}

// serve starts waiting requests as long as a slot is free.
func (m *model) serve() {
	for len(m.waiting) > 0 && len(m.running) < m.limit {
		r := m.waiting[0]
		m.waiting = m.waiting[1:]
		heap.Push(&m.running, m.now+r.service)
		paid := m.cost(r)
		m.sample.Wait += m.now - r.at
		m.sample.Revenue += paid
		m.begun++
		if m.measured(r.at) {
			m.totals.waits = append(m.totals.waits, m.now-r.at)
			m.totals.revenue += paid
		}
	}
}

// cost returns what a request pays, in msat, at the integer rates that the gateway would publish.
func (m *model) cost(r request) int64 {
	tokens := int64(math.Ceil(r.service * m.s.Pool.Pace))
	cost, err := m.s.Pool.Rates.Scale(r.multiplier).Cost(pricing.Units{pricing.OutputTokens: tokens, pricing.Calls: 1})
	if err != nil {
		return 0 // the cost is out of range, so nobody pays it
	}
	return int64(cost)
}

// soloUtilization returns the utilization that n requests alone make the GPUs report. With four
// requests it is 95 %.
func soloUtilization(n float64) float64 { return 1 - math.Exp(-n/1.3) }

// load returns what telemetry would report now.
func (m *model) load() pricing.Load {
	running := float64(len(m.running))
	others := m.s.Demand[m.segment].Others
	return pricing.Load{
		Running: running, Waiting: float64(len(m.waiting)), Capacity: float64(m.s.Pool.Slots), InFlight: running,
		KV: min(1, running/float64(m.s.Pool.Slots)*m.s.Pool.KV), SM: math.NaN(),
		Utilization: 1 - (1-soloUtilization(running))*(1-others),
	}
}

// step lets the controller decide, and ends a sample.
func (m *model) step() {
	load := m.load()
	pressure, ok := m.policy.Params.Parts.Pressure(load)
	d := m.control.Step(pricing.Observation{At: time.Unix(0, 0).Add(time.Duration(m.now * float64(time.Second))), Pressure: pressure, OK: ok})
	m.multiplier = d.Multiplier
	m.news = append(m.news, quote{m.now + m.s.Pool.Reaction.Seconds(), d.Multiplier})
	m.change()

	m.sample.At, m.sample.Multiplier, m.sample.BoundBy, m.sample.Signal = m.now, d.Multiplier, d.BoundBy, d.Signal
	m.sample.Load = m.busy / m.interval / float64(m.s.Pool.Slots)
	m.sample.Waiting = len(m.waiting)
	if m.begun > 0 {
		m.sample.Wait /= float64(m.begun)
	}
	m.series = append(m.series, m.sample)
	m.sample, m.busy, m.begun = Sample{}, 0, 0
	m.tick += m.interval
}

func (m *model) result() Result {
	t, span := m.totals, m.s.To-m.s.From
	r := Result{
		Policy: m.policy.Name, LoadMean: round4(t.busy / span / float64(m.s.Pool.Slots)), PriceMean: round4(t.price / span),
		Refused: t.refused, Revenue: t.revenue, Series: m.series,
	}
	if t.span > 0 {
		mean := t.ln / t.span
		r.PriceSDLn = round4(math.Sqrt(max(0, t.lnSquare/t.span-mean*mean)))
	}
	slices.Sort(t.waits)
	r.WaitP50, r.WaitP99 = round4(quantile(t.waits, 0.50)), round4(quantile(t.waits, 0.99))
	return r
}

// quantile returns the smallest value such that at least a share q of all values are not above it.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
