package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/internal/chaos/wire"
)

// wreck does the faults of one lane, one after the other, each at its time or
// as soon as the one before has ended.
func (p *play) wreck(lane []fault, broken chan<- error) {
	for _, f := range lane {
		select {
		case <-time.After(time.Until(p.began.Add(f.at))):
		case <-p.done:
			return
		}
		p.record.note("fault "+f.String(), nil)
		err := p.inflict(f)
		if errors.Is(err, errUnable) {
			p.skip(f, err)
		} else if err != nil {
			broken <- fmt.Errorf("%s: %w", f, err)
			return
		}
	}
}

// inflict does one fault from its begin to its end.
func (p *play) inflict(f fault) error {
	r := p.replicas[f.target]
	switch f.kind {
	case faultKill, faultRestart:
		r.end(f.kind == faultKill)
		p.wait(f.lasts)
		return r.start()
	case faultStop:
		end := p.record.span(r.now(), f.kind)
		r.signal(syscall.SIGSTOP)
		p.wait(f.lasts)
		r.signal(syscall.SIGCONT)
		end()
		return nil
	case faultCut, faultFreeze, faultDeaf:
		p.wreckWire(r, f)
		return nil
	case faultNode:
		p.node.rebuild()
		p.record.note("the Lightning node was rebuilt", nil)
		return nil
	}
	return p.site.perform(p, f)
}

// wreckWire is a fault of a replica's connections, whatever its incarnation.
func (p *play) wreckWire(r *replica, f fault) {
	defer p.record.span(r.name, f.kind)()
	switch f.kind {
	case faultCut:
		r.wire.Cut()
	case faultFreeze:
		r.wire.Hang()
	case faultDeaf:
		deafen(r.wire, f.lasts)
		return
	}
	p.wait(f.lasts)
	r.wire.Heal()
}

// deafen ends connections again and again, each time with what the database has
// answered by then: some of it are commits.
func deafen(w *wire.Wire, lasts time.Duration) {
	const silent, speaks = 15 * time.Millisecond, 30 * time.Millisecond
	for ends := time.Now().Add(lasts); time.Now().Before(ends); time.Sleep(speaks) {
		w.Mute()
		time.Sleep(silent)
		w.Cut()
		w.Heal()
	}
}

// step moves the clock of the store within the teller, and of those that come
// after it.
func (r *replica) step(p *play, by time.Duration) error {
	r.mu.Lock()
	r.clock = by
	r.mu.Unlock()
	p.record.note("the store's clock steps by "+by.String(), nil)
	for range 20 { // a teller that is stopped or gone steps once it is back
		id := r.now()
		if id == "" {
			return nil
		}
		q := p.private(request{Within: 500, Op: history.Op{Kind: askClock, Amount: by.Microseconds()}})
		if r.ask(id, q).Status == history.OK {
			return nil
		}
	}
	return fmt.Errorf("%s does not take its clock", r.name)
}
