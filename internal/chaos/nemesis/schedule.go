package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// lease is the tellers' lease: short, so that a schedule outlives several.
const lease = 1500 * time.Millisecond

// The ledger's defaults for this lease.
const (
	renewEvery = lease / 3
	sweepEvery = lease / 5
)

// length is how long clients and faults run. Healing and the last look take
// about half as long again.
const length = 7 * time.Second

// The kinds of faults.
const (
	faultKill     = "kill"     // kill -9 of a teller, which is started again
	faultRestart  = "restart"  // SIGTERM instead
	faultStop     = "stop"     // SIGSTOP of a teller, for less or for more than a lease
	faultCut      = "cut"      // a teller's connections to the database end, and no new ones are made
	faultFreeze   = "freeze"   // a teller's connections stay, and nothing gets through
	faultDeaf     = "deaf"     // a teller is heard by the database and cut off before it hears the answer, again and again
	faultCrash    = "crash"    // immediate stop of the database, which is started again
	faultStall    = "stall"    // SIGSTOP of all of the database's processes
	faultFailover = "failover" // the primary ends, and the standby is promoted, with or without what came last
	faultLag      = "lag"      // the standby is cut off for a while; with a synchronous one, commits wait for it
	faultClock    = "clock"    // the database's clock steps
	faultNode     = "lnd"      // the Lightning node is rebuilt: same key, settle indexes from 1, all invoices gone
	faultFull     = "full"     // the database's disk is full
	faultSlow     = "slow"     // the database's disk is slow
)

// The lanes in which faults run one after the other. Faults of different lanes
// overlap.
const (
	laneProcess  = "process of %d"
	laneWire     = "wire of %d"
	laneDatabase = "database"
	laneClock    = "clock"
	laneNode     = "lnd"
)

// kindsOf lists what can be done to each store.
var kindsOf = map[string][]string{
	storePostgres: {faultKill, faultStop, faultCut, faultFreeze, faultDeaf, faultCrash, faultStall,
		faultFailover, faultLag, faultClock, faultNode, faultFull, faultSlow},
	storeSQLite: {faultKill, faultRestart, faultStop, faultClock, faultNode, faultFull, faultSlow},
}

// fault is one thing that goes wrong.
type fault struct {
	kind   string
	at     time.Duration // after the schedule's begin
	lasts  time.Duration
	target int           // teller, from 0
	by     time.Duration // of clock: the step; of failover: for how long the standby lacked everything
}

func (f fault) lane() string {
	switch f.kind {
	case faultKill, faultRestart, faultStop:
		return fmt.Sprintf(laneProcess, f.target)
	case faultCut, faultFreeze, faultDeaf:
		return fmt.Sprintf(laneWire, f.target)
	case faultClock:
		return laneClock
	case faultNode:
		return laneNode
	}
	return laneDatabase
}

// String is how a schedule is printed.
func (f fault) String() string {
	s := fmt.Sprintf("%s@%dms", f.kind, f.at.Milliseconds())
	if f.lasts > 0 {
		s += fmt.Sprintf("+%dms", f.lasts.Milliseconds())
	}
	if strings.HasPrefix(f.lane(), "process") || strings.HasPrefix(f.lane(), "wire") {
		s += fmt.Sprintf(":t%d", f.target+1)
	}
	if f.by != 0 {
		s += fmt.Sprintf("(%s)", f.by)
	}
	return s
}

// schedule is what a seed stands for, but for the moments at which processes
// happen to run.
type schedule struct {
	seed        uint64
	store       string
	replicas    int
	synchronous bool // the standby
	faults      []fault
}

// steps of the database's clock.
var steps = []time.Duration{2 * time.Second, 20 * time.Second, time.Minute, 10 * time.Minute, 2 * time.Hour}

// draw makes the schedule of a seed out of the kinds of faults that are wanted.
func draw(seed uint64, store string, kinds []string) schedule {
	rng := rand.New(rand.NewPCG(seed, uint64(len(store))))
	s := schedule{seed: seed, store: store, replicas: 1}
	if store == storePostgres {
		s.replicas, s.synchronous = 3, rng.IntN(5) < 2
	}
	if len(kinds) == 0 {
		return s
	}
	for range 3 + rng.IntN(4) {
		f := fault{kind: kinds[rng.IntN(len(kinds))], at: between(rng, 300*time.Millisecond,
			length-1500*time.Millisecond), target: rng.IntN(s.replicas)}
		f.measure(rng)
		if again := func(g fault) bool { return g.kind == f.kind }; (f.kind == faultFailover || f.kind == faultNode) &&
			slices.ContainsFunc(s.faults, again) {
			continue // there is one standby; and a node that is rebuilt twice shows nothing new
		}
		s.faults = append(s.faults, f)
	}
	slices.SortFunc(s.faults, func(a, b fault) int { return int(a.at - b.at) })
	return s
}

// measure draws how long a fault lasts, and how large it is.
func (f *fault) measure(rng *rand.Rand) {
	short, long := between(rng, lease/5, lease*3/4), between(rng, lease*6/5, lease*5/2)
	f.lasts = short
	switch f.kind {
	case faultStop, faultCut, faultFreeze, faultStall:
		if rng.IntN(2) == 0 {
			f.lasts = long
		}
	case faultDeaf:
		f.lasts = between(rng, lease/4, lease*3/2)
	case faultLag:
		f.lasts = between(rng, lease/3, 4*lease) // beyond the ledger's limit for one attempt, too
	case faultKill, faultRestart, faultCrash:
		f.lasts = between(rng, 0, lease*3/2)
	case faultFull, faultSlow:
		f.lasts = between(rng, lease/3, lease*4/3)
	case faultClock:
		f.lasts = 0
		f.by = steps[rng.IntN(len(steps))]
		if rng.IntN(2) == 0 {
			f.by = -f.by
		}
	case faultNode:
		f.lasts = 0
	case faultFailover:
		f.lasts = between(rng, 0, lease/2)
		if rng.IntN(2) == 0 {
			f.by = between(rng, lease/10, lease)
		}
	}
}

func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

// lanes sorts the faults by what they are done to.
func (s *schedule) lanes() map[string][]fault {
	all := map[string][]fault{}
	for _, f := range s.faults {
		all[f.lane()] = append(all[f.lane()], f)
	}
	return all
}

// strings lists the faults.
func (s *schedule) strings() (list []string) {
	for _, f := range s.faults {
		list = append(list, f.String())
	}
	return list
}
