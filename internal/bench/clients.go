package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/internal/lab/proc"
	"sluice.example/sluice/metering"
)

// clientsPlan describes one replica. A replica is a process with a ledger that has a gateway's
// settings, and one client per account. A client waits for its answer before it asks again. A
// client with a locked account therefore does not delay the others.
type clientsPlan struct {
	Store    string
	Marked   int    // how many of the first accounts of accountsOf are counted apart
	Timeline string // file for the timeline, written when the process is told to end
}

// slice is the length of one slot of a timeline.
const slice = 10 * time.Millisecond

// timelineSlices is the largest number of slots of a timeline. They last half an hour.
const timelineSlices = int(30 * time.Minute / slice)

// timeline counts the pairs of reservation and settlement that ended in each slot.
type timeline struct {
	Begin   time.Time
	Marked  []uint32
	Others  []uint32
	Refused int // reservations that the ledger refused
}

// perSecond returns the pairs per second of one group between two times.
func (t *timeline) perSecond(group []uint32, from, to time.Time) float64 {
	first, last := int(from.Sub(t.Begin)/slice), int(to.Sub(t.Begin)/slice)
	first, last = max(first, 0), min(last, len(group))
	if first >= last {
		return 0
	}
	n := 0
	for _, v := range group[first:last] {
		n += int(v)
	}
	return float64(n) / to.Sub(from).Seconds()
}

// recorder counts pairs while the clients run.
type recorder struct {
	begin   time.Time
	counts  [2][]atomic.Uint32 // index 0: other accounts; index 1: marked accounts
	refused atomic.Int64
}

func newRecorder() *recorder {
	r := &recorder{begin: time.Now()}
	for i := range r.counts {
		r.counts[i] = make([]atomic.Uint32, timelineSlices)
	}
	return r
}

func (r *recorder) pair(group int) {
	if at := int(time.Since(r.begin) / slice); at < timelineSlices {
		r.counts[group][at].Add(1)
	}
}

func (r *recorder) timeline() *timeline {
	t := &timeline{Begin: r.begin, Refused: int(r.refused.Load())}
	n := min(int(time.Since(r.begin)/slice)+1, timelineSlices)
	t.Others, t.Marked = make([]uint32, n), make([]uint32, n)
	for i := range n {
		t.Others[i], t.Marked[i] = r.counts[0][i].Load(), r.counts[1][i].Load()
	}
	return t
}

// runClients is the process of a replica. It tells its parent when it has begun.
func runClients(ctx context.Context, plan []byte, tell func(any) error) (err error) {
	var p clientsPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	accounts, err := accountsOf(ctx, p.Store)
	if err != nil {
		return err
	}
	db, err := openStore(ctx, p.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	l, err := metering.Open(ctx, metering.Config{Store: db})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(ctx))) }()
	rec := newRecorder()
	errs := make([]error, len(accounts))
	var wg sync.WaitGroup
	for i, id := range accounts {
		group := 0
		if i < p.Marked {
			group = 1
		}
		wg.Go(func() {
			errs[i] = rec.client(ctx, group, func(ctx context.Context) error { return pair(ctx, l, id, false) })
		})
	}
	if err := tell(struct{}{}); err != nil {
		return err
	}
	wg.Wait()
	b, bad := json.Marshal(rec.timeline())
	if err := errors.Join(append(errs, bad)...); err != nil {
		return err
	}
	return os.WriteFile(p.Timeline, b, 0o600)
}

// afterRefusal is how long a client waits after a refusal.
const afterRefusal = 20 * time.Millisecond

// client asks again and again until ctx ends. A request that is under way then is finished.
func (r *recorder) client(ctx context.Context, group int, ask func(context.Context) error) error {
	for ctx.Err() == nil {
		err := ask(context.WithoutCancel(ctx))
		switch {
		case err == nil:
			r.pair(group)
		case errors.Is(err, metering.ErrUnavailable), errors.Is(err, metering.ErrBusy):
			r.refused.Add(1)
			time.Sleep(afterRefusal)
		default:
			return err
		}
	}
	return nil
}

// replica is a running process of clients.
type replica struct {
	*proc.Process
	timeline string // path of the file
}

// startClients starts a replica.
func (s *site) startClients(ctx context.Context, store string, marked int) (r replica, err error) {
	r.timeline = s.path(fmt.Sprintf("timeline-%d", s.count))
	plan := clientsPlan{Store: store, Marked: marked, Timeline: r.timeline}
	r.Process, err = s.child(ctx, "clients", plan, time.Minute, new(struct{}))
	return r, err
}

// endClients ends a replica and reads its timeline.
func (s *site) endClients(r replica) (t timeline, err error) {
	if err := s.stop(r.Process); err != nil {
		return t, err
	}
	b, err := os.ReadFile(r.timeline)
	if err != nil {
		return t, errors.Join(err, r.Exit())
	}
	return t, json.Unmarshal(b, &t)
}

// pause waits for d. It fails when ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
