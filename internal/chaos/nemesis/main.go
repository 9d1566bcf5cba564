// Command nemesis plays random schedules of faults, each drawn from a seed, to
// the money ledger, and checks what its clients were told against the ledger's
// promises, in the manner of Jepsen.
//
//	nemesis -seeds 200                       # each seed on PostgreSQL and on SQLite
//	nemesis -seed 123 -store postgres        # one schedule again
//	nemesis -seeds 20 -faults kill,failover  # these faults only
//
// Tellers are processes of their own, each with a metering.Ledger: three of them
// on a PostgreSQL with a streaming standby, or one on SQLite. Clients reserve,
// extend, settle, repeat idempotency keys, delegate budgets, pay and present
// payments; a Lightning node reports what was paid, late, twice and out of order.
// Meanwhile the faults of the schedule come over them (see the kinds in
// schedule.go). Then everything is healed, all payments are presented again, and
// package history checks the history: every answer, not only the last balance.
//
// A seed fixes which faults come when, and what clients draw; how the processes
// interleave it does not fix. So a schedule with a finding may need to be played a few
// times until it is found again.
//
// The checker is tested with histories by hand, one or more for each rule
// (history/bad_test.go). The whole was tried on a ledger that was broken on
// purpose, each change alone and found within six schedules of the faults named:
//
//	a settlement whose commit nobody heard of spends again     deaf
//	each presentation of a payment adds it                     none
//	a charged idempotency key is taken anew                    none
//	sweeps do not wait a lease after the store was away        crash,stall
//	a charge is answered before its commit is on the disk      crash
//	a presented deposit is answered before that                crash
//
// Every sitting has a folder with a line for each seed. The full history of a
// seed with a finding stays there, with the logs of its processes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

// options are the command line.
type options struct {
	seeds    int
	seed     uint64
	first    uint64
	stores   []string
	faults   []string
	folder   string
	parallel int
	keep     bool
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "nemesis:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] { // this program is its own helpers, too
		case "teller":
			return serveTeller(args[1:])
		case "slow":
			if len(args) != 3 {
				return errors.New("usage: nemesis slow FOLDER TIME")
			}
			lasts, err := time.ParseDuration(args[2])
			if err != nil {
				return err
			}
			return slowDisk(args[1], lasts)
		}
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	return sit(o, out)
}

func parse(args []string) (o options, err error) {
	set := flag.NewFlagSet("nemesis", flag.ContinueOnError)
	var store, faults string
	set.IntVar(&o.seeds, "seeds", 10, "how many schedules to play on each store")
	set.Uint64Var(&o.seed, "seed", 0, "play this one schedule; 0: random ones")
	set.Uint64Var(&o.first, "from", 0, "the first of the seeds, the others follow; 0: a random one")
	set.StringVar(&store, "store", "both", "postgres, sqlite or both")
	set.StringVar(&faults, "faults", "",
		"kinds of faults, with commas; none: no fault; empty: all of "+strings.Join(kindsOf[storePostgres], ","))
	set.StringVar(&o.folder, "log", "nemesis", "folder for the sittings' logs")
	set.IntVar(&o.parallel, "parallel", 2, "schedules that run at the same time")
	set.BoolVar(&o.keep, "keep", false, "keep the histories without a finding, too")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	switch store {
	case "both", "":
		o.stores = []string{storePostgres, storeSQLite}
	case storePostgres, storeSQLite:
		o.stores = []string{store}
	default:
		return o, fmt.Errorf("no such store: %q", store)
	}
	if o.seed != 0 {
		o.first, o.seeds = o.seed, 1
	}
	if o.first == 0 {
		o.first = 1 + rand.Uint64N(1_000_000)
	}
	if o.parallel < 1 || o.seeds < 1 {
		return o, errors.New("-seeds and -parallel are at least 1")
	}
	o.faults, err = parseFaults(faults)
	return o, err
}

// parseFaults returns nil for all kinds of faults.
func parseFaults(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	chosen := []string{}
	for name := range strings.SplitSeq(list, ",") {
		known := slices.Contains(kindsOf[storePostgres], name) || slices.Contains(kindsOf[storeSQLite], name)
		if !known && name != "none" {
			return nil, fmt.Errorf("no such fault: %q", name)
		}
		chosen = append(chosen, name)
	}
	return chosen, nil
}

// kinds are the wanted kinds of faults that there are for a store.
func (o *options) kinds(store string) []string {
	if o.faults == nil {
		return kindsOf[store]
	}
	return slices.DeleteFunc(slices.Clone(kindsOf[store]), func(k string) bool { return !slices.Contains(o.faults, k) })
}
