package gateway

import (
	"errors"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering"
)

// takeSlot takes a place in the pool and waits there for a slot. It returns the ending of a
// call that got no slot, and nil for a call that got a slot.
func (c *call) takeSlot() *ending {
	if most, own := c.o.ceiling(c.hold), c.x.prefs.maxCost; own >= 0 && most > own {
		// The rate lock ended after permit, so that the hold costs more than the client allows.
		return c.endFree(metering.OutcomeNotTaken, c.o.aboveMaxCost(own, most))
	}
	var err error
	if c.ticket, err = c.o.place(c.x.token.ID, c.hold.Amount()); err != nil { // others took the room
		return c.endFree(metering.OutcomeNotTaken, err)
	}
	if c.listed = c.g.open.add(c); !c.listed {
		return c.endFree(metering.OutcomeDrained, shuttingDown())
	}
	if c.lease, err = c.ticket.Wait(c.ctx); err != nil {
		return c.endFree(c.queueOutcome(err), c.queueError(err))
	}
	return nil
}

// queueOutcome returns the outcome of a request that left the queue without a slot.
func (c *call) queueOutcome(err error) metering.Outcome {
	switch {
	case c.drained():
		return metering.OutcomeDrained
	case c.clientGone():
		return metering.OutcomeClientGone
	case errors.Is(err, gpu.ErrQueueTimeout):
		return metering.OutcomeQueueTimeout
	}
	return metering.OutcomeNotTaken
}

// queueError returns what the client of a request that left the queue without a slot is told.
func (c *call) queueError(err error) error {
	if c.drained() {
		return c.goneAway()
	}
	return err
}
