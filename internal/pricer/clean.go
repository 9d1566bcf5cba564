package pricer

import (
	"context"
	"time"
)

// Rows are deleted in portions that are small enough not to delay a paying request.
const (
	cleanEvery = 30 * time.Second
	cleanLimit = 10 * time.Second // of one round
	cleanChunk = 1000             // rows of each kind
)

// keepClean removes old reports and epochs every cleanEvery, until ctx ends. Every process does so,
// because any single process may be stopped for a long time.
func (p *Pricer) keepClean(ctx context.Context) {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.clean(ctx)
		}
	}
}

// clean runs one round. It logs a failure, and the next round tries again.
func (p *Pricer) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanLimit)
	defer cancel()
	for {
		n, err := p.cfg.Record.CleanPrices(ctx, cleanChunk)
		if err != nil && ctx.Err() == nil {
			p.log.Warn("the next round removes old prices", "error", err)
		}
		if n < cleanChunk || err != nil {
			return
		}
	}
}
