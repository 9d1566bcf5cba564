package inference

import (
	"context"
	"time"
)

const (
	// quantum is the grid of the wake-ups of all streams. It keeps a thousand streams at a few
	// hundred wake-ups of the runtime per second instead of sixty thousand. The average pace
	// remains exact.
	quantum = 5 * time.Millisecond
	// coarsenEach is the number of running sequences for which the grid grows by one quantum, up to
	// coarsest quanta. The grid grows because most of a stream's cost is the write call per
	// wake-up. With 1000 streams at 60 tokens/s on a busy machine with 2 cores, the measured cost
	// is 0.5 cores. With one write per token it was 0.7 cores, and the server did not keep the
	// pace.
	coarsenEach = 100
	coarsest    = 10
	// maxLag is how far a stream may fall behind its pace and still catch up. A stream falls behind
	// when there is too little CPU time or the client does not read.
	maxLag = 250 * time.Millisecond
)

// pacer delays one request, so that the request gets one token per step.
type pacer struct {
	s    *Server
	due  time.Time
	idle func() error // called before each wait
}

// prefill waits for the time that reading the prompt takes, and then starts the pace.
func (p *pacer) prefill(ctx context.Context, tokens int) error {
	d := p.s.cfg.FirstTokenDelay
	if rate := p.s.cfg.PrefillPerSecond; rate > 0 {
		d += time.Duration(float64(tokens) / rate * float64(time.Second))
	}
	p.due = time.Now().Add(d)
	return p.until(ctx)
}

// next waits until the next token is due.
func (p *pacer) next(ctx context.Context) error {
	p.due = p.due.Add(p.s.interval())
	return p.until(ctx)
}

func (p *pacer) until(ctx context.Context) error {
	now := time.Now()
	if earliest := now.Add(-maxLag); p.due.Before(earliest) {
		p.due = earliest
	}
	if !p.due.After(now) {
		return ctx.Err()
	}
	if err := p.idle(); err != nil {
		return err
	}
	running, _ := p.s.slots.load()
	step := quantum * time.Duration(min(1+running/coarsenEach, coarsest))
	since := p.due.Sub(p.s.started)
	wake := p.s.started.Add((since + step - 1) / step * step)
	return pause(ctx, time.Until(wake))
}

// interval returns the time between two tokens of one sequence at the present load.
func (s *Server) interval() time.Duration {
	rate := s.cfg.TokensPerSecond
	if s.cfg.Slowdown > 0 {
		running, _ := s.slots.load()
		rate *= 1 - s.cfg.Slowdown*float64(running)/float64(s.cfg.Slots)
	}
	return time.Duration(float64(time.Second) / rate)
}

// pause waits for d. It fails when ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
