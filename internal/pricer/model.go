package pricer

import (
	"math"
	"time"

	"sluice.example/sluice/pricing"
)

// model is one priced model. All fields are guarded by Pricer.mu.
type model struct {
	cfg     Model
	control *pricing.Controller
	shadow  *pricing.Controller // nil means that there is no shadow policy
	hook    *asker              // nil means that the policy asks no hook
	next    time.Time           // time of the next turn
	since   time.Time           // when the model was first configured

	epoch    pricing.Epoch // in force; ID 0 means that there is none yet
	fixed    float64       // multiplier that an operator fixed; 0 means none
	last     pricing.Observation
	shadowed pricing.Decision

	energy pricing.EnergyMeter
	joules float64            // energy counter at the last turn; NaN means that there was no turn yet
	work   map[string]float64 // work counter of each replica at the last turn
}

func newModel(cfg Model) *model {
	m := &model{cfg: cfg, control: pricing.NewController(cfg.Params, pricing.State{}), joules: math.NaN(), work: map[string]float64{}}
	if cfg.Shadow != nil {
		m.shadow = pricing.NewController(*cfg.Shadow, pricing.State{})
	}
	if cfg.Params.Policy == pricing.PolicyHook {
		m.hook = newAsker(cfg.Hook)
	}
	return m
}

// follow takes over an epoch that another process published, or that this process published before its
// restart.
func (m *model) follow(e pricing.Epoch) {
	if m.epoch.ID == 0 {
		state := pricing.State{Multiplier: e.Multiplier, Smoothed: e.Signal, At: e.At}
		m.control = pricing.NewController(m.cfg.Params, state)
		if m.shadow != nil {
			m.shadow = pricing.NewController(*m.cfg.Shadow, state)
		}
	} else {
		m.control.Follow(e.Multiplier, e.At)
	}
	m.epoch = e
}

// standing says whether the epoch in force follows from the rate card.
func (m *model) standing() bool {
	return m.epoch.ID != 0 && m.epoch.Rates == m.cfg.Base.Scale(m.epoch.Multiplier) &&
		(m.cfg.Params.Policy != pricing.PolicyStatic || m.epoch.BoundBy == pricing.BoundFixed)
}

// opening returns the decision to begin with: the last multiplier, which is then applied to the present
// rate card.
func (m *model) opening() pricing.Decision {
	switch state := m.control.State(); {
	case m.fixed > 0:
		return pricing.Decision{Multiplier: m.fixed, BoundBy: pricing.BoundFixed}
	case m.cfg.Params.Policy == pricing.PolicyStatic:
		return pricing.Decision{Multiplier: 1, BoundBy: pricing.BoundFixed}
	case state.Multiplier <= m.cfg.Params.Floor:
		return pricing.Decision{Multiplier: state.Multiplier, Signal: state.Smoothed, BoundBy: pricing.BoundFloor}
	default:
		return pricing.Decision{Multiplier: state.Multiplier, Signal: state.Smoothed, BoundBy: pricing.BoundNone}
	}
}

// differs says whether a decision leads to another price than the price in force.
func (m *model) differs(d pricing.Decision) bool {
	return m.epoch.ID == 0 || m.epoch.Rates != m.cfg.Base.Scale(d.Multiplier) ||
		(m.epoch.BoundBy == pricing.BoundFixed) != (d.BoundBy == pricing.BoundFixed)
}

// observe joins what this process sees with what the other processes reported.
func (m *model) observe(now time.Time, own measured, others []Report) pricing.Observation {
	running, work := max(own.InFlight, 0), m.worked("", own.work)
	for _, l := range others {
		if l.Model == m.cfg.Name {
			running += l.Running
			own.Waiting += l.Waiting
			work += m.worked(l.Replica, l.Work)
		}
	}
	own.Running = max(own.Running, running) // an engine's own count includes the requests of all processes
	own.InFlight = running
	pressure, ok := m.cfg.Params.Parts.Pressure(own.Load)
	o := pricing.Observation{At: now, Pressure: pressure, OK: ok && !own.Stale, Hook: math.NaN()}
	if m.cfg.Energy.SatPerKWh > 0 {
		m.energy.Add(own.Energy-m.joules, work, own.Running/own.Capacity) // NaN at the first turn, which Add ignores
		m.joules = own.Energy
		o.Floor, _ = m.energy.Floor(m.cfg.Energy.SatPerKWh, m.cfg.Energy.Overhead)
	}
	if m.hook != nil {
		o.Hook = m.hook.latest(now, time.Duration(m.cfg.Params.StaleAfter)*m.cfg.Params.Interval)
		m.hook.ask(question{Model: m.cfg.Name, Pressure: pressure, Fresh: o.OK, Multiplier: m.control.State().Multiplier,
			Running: own.Running, Waiting: own.Waiting, Capacity: own.Capacity, At: now})
	}
	return o
}

// worked returns what a replica delivered since the last turn. It returns 0 for the first report of a
// replica, and after a restart of the replica.
func (m *model) worked(replica string, total float64) float64 {
	before, known := m.work[replica]
	m.work[replica] = total
	if !known || total < before {
		return 0
	}
	return total - before
}

// show puts on the board why the price is what it is, for requests and for the operator.
func (m *model) show(b *pricing.Board, d pricing.Decision, o pricing.Observation, leads bool) {
	s := pricing.Standing{Model: m.cfg.Name, Policy: m.cfg.Params.Policy, Epoch: m.epoch.ID, Multiplier: m.epoch.Multiplier,
		Signal: d.Signal, BoundBy: d.BoundBy, Pressure: o.Pressure, Fresh: o.OK, Fixed: m.fixed, EnergyFloor: o.Floor, Leads: leads, At: o.At}
	if m.shadow != nil {
		s.Shadow = &pricing.Shadow{Policy: m.cfg.Shadow.Policy, Multiplier: m.shadowed.Multiplier, BoundBy: m.shadowed.BoundBy}
	}
	if m.hook != nil {
		s.HookFailures = m.hook.failed.Load()
	}
	b.SetStanding(s)
}
