package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice.example/sluice/internal/chaos/nemesis/history"
	"sluice.example/sluice/internal/lab/proc"
	"sluice.example/sluice/internal/store/pgtest"
)

// play is one schedule while it runs.
type play struct {
	schedule
	site     site
	record   *recorder
	node     *node
	replicas []*replica
	accounts []*account
	budgets  map[string]int64
	launcher *proc.Launcher

	began   time.Time     // of clients and faults
	done    chan struct{} // closed when clients and faults are to end
	names   atomic.Int64
	secrets atomic.Int64 // ids of requests that are no part of the history, below zero
	busy    atomic.Int64 // that clean up behind clients

	mu      sync.Mutex
	skipped []string // faults that the machine cannot do
}

// stage is what all schedules of a sitting share.
type stage struct {
	template *pgtest.Template // nil without PostgreSQL
	disks    bool             // file systems in files work here
}

// newPlay starts the database and the tellers. dir takes the logs.
func newPlay(st *stage, s schedule, dir, files string) (p *play, err error) {
	p = &play{schedule: s, node: &node{}, budgets: map[string]int64{}, done: make(chan struct{}),
		launcher: proc.NewLauncher()}
	if p.record, err = newRecorder(filepath.Join(dir, "history.jsonl")); err != nil {
		return nil, err
	}
	if s.store == storePostgres {
		p.site, err = newPostgresSite(st.template, &s, files, st.disks)
	} else {
		p.site, err = newSQLiteSite(files, st.disks)
	}
	if err != nil {
		return nil, err
	}
	for i := range s.replicas {
		r := &replica{name: "t" + strconv.Itoa(i+1), dir: files, logs: dir, args: p.site.tellerArgs(i), wire: p.site.wire(i),
			launcher: p.launcher, record: p.record, late: p.late}
		p.replicas = append(p.replicas, r)
		if err := r.start(); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

// close ends all processes.
func (p *play) close() error {
	for _, r := range p.replicas {
		r.signal(syscall.SIGCONT)
		r.end(true)
	}
	p.launcher.Close()
	return p.site.close()
}

func (p *play) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait waits, also beyond the schedule's end: a fault has its length.
func (p *play) wait(d time.Duration) { time.Sleep(d) }

// name makes a name that this schedule has not used.
func (p *play) name(prefix string) string { return prefix + strconv.FormatInt(p.names.Add(1), 10) }

// private gives a request that is no part of the history an id.
func (p *play) private(q request) request {
	q.ID = int(p.secrets.Add(-1))
	return q
}

// any picks a teller that runs; nil: none does.
func (p *play) any(rng *rand.Rand) *replica {
	first := rng.IntN(len(p.replicas))
	for i := range p.replicas {
		if r := p.replicas[(first+i)%len(p.replicas)]; r.now() != "" {
			return r
		}
	}
	return nil
}

// do asks a teller and writes both sides down. Without a teller in the request
// the incarnation that runs is asked.
func (p *play) do(r *replica, q request) *history.Op {
	op := q.Op
	if op.Teller == "" {
		op.Teller = r.now()
	}
	if op.Teller == "" {
		op.Status, op.Reason = history.Fail, history.Gone
		return &op
	}
	p.record.begin(&op)
	q.Op = op
	a := r.ask(op.Teller, q)
	p.record.end(&op, a)
	return &op
}

// paid notes a payment, which no teller takes part in.
func (p *play) paid(op *history.Op) {
	p.record.begin(op)
	p.record.end(op, reply{Status: history.OK})
}

// settleLimit bounds how often a settlement is asked for.
const settleLimit = 30 * time.Second

// settle asks until the teller has answered or is gone. The ledger takes
// repetitions for the same settlement.
func (p *play) settle(r *replica, q request) {
	for deadline := time.Now().Add(settleLimit); time.Now().Before(deadline); time.Sleep(30 * time.Millisecond) {
		if op := p.do(r, q); op.Status == history.OK || op.Reason == history.Gone || op.Reason == history.Ended {
			return
		}
	}
}

// late releases a hold that was made after its client had left, as a gateway
// does whose client has hung up.
func (p *play) late(r *replica, op history.Op) {
	if op.Kind != history.Reserve {
		return
	}
	p.busy.Add(1)
	go func() {
		defer p.busy.Add(-1)
		p.settle(r, request{Within: 1500, Op: history.Op{Client: "janitor", Teller: op.Teller, Kind: history.Settle,
			Account: op.Account, Hold: op.Hold}})
	}()
}

func (p *play) outage(o history.Outage) {
	p.record.with(func(h *history.History) { h.Outages = append(h.Outages, o) })
}

// skip notes a fault that the machine cannot do.
func (p *play) skip(f fault, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skipped = append(p.skipped, fmt.Sprintf("%s: %v", f.kind, err))
	p.record.note("skipped "+f.String(), err.Error())
}

// run plays the schedule, heals everything and takes the last look.
func (p *play) run() (*history.History, error) {
	accounts, clients := people(p)
	p.accounts, p.began = accounts, time.Now()
	watching := p.watch()
	var working, failing sync.WaitGroup
	for i, r := range p.replicas {
		s := &stream{play: p, replica: r, rng: rand.New(rand.NewPCG(p.seed, uint64(200+i)))}
		working.Go(s.run)
	}
	for _, c := range clients {
		working.Go(c.run)
	}
	broken := make(chan error, 64)
	for _, lane := range p.lanes() {
		failing.Go(func() { p.wreck(lane, broken) })
	}
	time.Sleep(length)
	close(p.done)
	failing.Wait()
	select {
	case err := <-broken:
		return nil, err
	default:
	}
	if err := p.finish(&working, watching); err != nil && !errors.Is(err, errStuck) {
		return nil, err
	}
	p.record.with(func(h *history.History) {
		h.Seed, h.Store, h.Faults, h.Budgets = p.seed, p.store, p.strings(), p.budgets
		h.Lease, h.RenewEvery, h.SweepEvery = lease.Microseconds(), renewEvery.Microseconds(), sweepEvery.Microseconds()
	})
	return p.record.close()
}

// folder makes a folder with a short path for one schedule's files: unix sockets
// lie there.
func folder() (string, error) {
	dir, err := os.MkdirTemp("", "nemesis-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // PostgreSQL runs as another user
}
