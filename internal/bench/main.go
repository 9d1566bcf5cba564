// Bench measures the cost of Sluice and compares it with the cost of alternatives, on this
// machine's loopback:
//
//	go run ./internal/bench              # about twelve minutes, Markdown on stdout
//	go run ./internal/bench -short       # about three minutes
//	go run ./internal/bench -parts paid -conns 256 -profile profiles
//
// Every measured server and every load generator is a separate process, so that the CPU time and
// the memory of each can be measured. Each process is this program in a role, see roles. The
// targets take turns in short rounds, and a figure is the median of its rounds, so that other work
// on the machine affects all targets alike. All processes end when this process ends, whatever the
// reason.
//
// Each part is in the file with its name: paid (a paid, metered request), streams (many slow event
// streams at the same time), challenges (402 answers, with a real lnd), ledger (reserve and settle,
// without HTTP). The other parts compare a ledger in trouble, or a large ledger, with an ordinary
// ledger: stopped (one of three replicas is stopped), locked (some accounts are locked), holds (the
// table's size over millions of pairs), holders (more payments than the ledger remembers), history
// (millions of charges on record), audit (of that history).
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) == 5 && os.Args[1] == childCommand {
		err = runChild(ctx, os.Args[2], os.Args[3], os.Args[4])
	} else {
		err = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// options says what one run measures and for how long.
type options struct {
	parts    []string
	json     bool
	short    bool
	dir      string        // all temporary files are below this folder
	profile  string        // folder for profiles of the gateways; "": no profiles
	conns    []int         // numbers of connections in the paid part
	rounds   int           // per target and number of connections
	round    time.Duration // length of the measured part of a round
	streams  int
	watch    time.Duration // how long the streams are watched
	accounts []int         // numbers of accounts in the ledger part
	stops    int           // number of stops in the stopped part
	pairs    int           // number of pairs in the holds part
	charges  int           // charges on record in the history and audit parts
	audit    time.Duration // an audit is ended after this time
}

// part is one part of the benchmark.
type part struct {
	name    string
	measure func(context.Context, *site, options, *report) error
}

// allParts lists the parts in the order in which they run. The parts that leave the most data on
// the disk come last.
var allParts = []part{
	{"paid", measurePaid}, {"streams", measureStreams}, {"challenges", measureChallenges}, {"ledger", measureLedger},
	{"stopped", measureStopped}, {"locked", measureLocked}, {"holders", measureHolders}, {"holds", measureHolds},
	{"history", measureHistory}, {"audit", measureAudit},
}

func partNames() (names []string) {
	for _, p := range allParts {
		names = append(names, p.name)
	}
	return names
}

func parseOptions(args []string, stderr io.Writer) (o options, err error) {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	parts := set.String("parts", strings.Join(partNames(), ","), "what to measure")
	conns := set.String("conns", "1,32,256", "numbers of connections of the paid part")
	accounts := set.String("accounts", "1,1000,1000000", "numbers of accounts of the ledger part")
	set.BoolVar(&o.short, "short", false, "shorter and fewer rounds: a look, not a measurement")
	set.BoolVar(&o.json, "json", false, "print JSON instead of Markdown")
	set.StringVar(&o.dir, "dir", "", "folder for databases and logs, on the disk to be measured; empty: a temporary one")
	set.StringVar(&o.profile, "profile", "", "also profile the gateways under the most connections, into this folder")
	set.IntVar(&o.rounds, "rounds", 0, "rounds of each target; 0: 5, short 2")
	set.DurationVar(&o.round, "round", 0, "measured part of a round; 0: 1.2 s, short 0.4 s")
	set.IntVar(&o.streams, "streams", 1000, "concurrent event streams")
	set.IntVar(&o.stops, "stops", 0, "stops of the stopped part; 0: 10, short 3")
	set.IntVar(&o.pairs, "pairs", 0,
		fmt.Sprintf("pairs of the holds part; 0: 1000000, short 100000; its goal is meant for %d", holdsPairs))
	set.IntVar(&o.charges, "charges", 0, fmt.Sprintf("charges on record in the history and audit parts, "+
		"a multiple of %d; 0: 2000000, short 200000; their goals are meant for %d", historyAccounts, historyCharges))
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if set.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	o.parts = strings.Split(*parts, ",")
	for _, p := range o.parts {
		if !slices.Contains(partNames(), p) {
			return o, fmt.Errorf("-parts: there is no %q, only %s", p, strings.Join(partNames(), ", "))
		}
	}
	var badConns, badAccounts error
	o.conns, badConns = numbers(*conns)
	o.accounts, badAccounts = numbers(*accounts)
	if err := errors.Join(badConns, badAccounts); err != nil {
		return o, err
	}
	o.setDefaults()
	return o, o.check()
}

func (o *options) check() error {
	switch {
	case min(o.rounds, o.streams, o.stops, o.pairs) < 1 || o.round < 10*time.Millisecond:
		return errors.New("-rounds, -streams, -stops and -pairs must be at least 1, -round at least 10ms")
	case o.charges < historyAccounts || o.charges%historyAccounts != 0:
		return fmt.Errorf("-charges must be a multiple of %d", historyAccounts)
	}
	return nil
}

func (o *options) setDefaults() {
	rounds, round, stops, pairs, charges := 5, 1200*time.Millisecond, 10, 1_000_000, 2_000_000
	o.watch, o.audit = 8*time.Second, 50*time.Second
	if o.short {
		rounds, round, stops, pairs, charges = 2, 400*time.Millisecond, 3, 100_000, 200_000
		o.watch, o.audit = 3*time.Second, 10*time.Second
		o.accounts = slices.DeleteFunc(o.accounts, func(n int) bool { return n > 100_000 })
	}
	o.rounds, o.stops = cmp.Or(o.rounds, rounds), cmp.Or(o.stops, stops)
	o.pairs, o.charges = cmp.Or(o.pairs, pairs), cmp.Or(o.charges, charges)
	o.round = cmp.Or(o.round, round)
}

// numbers reads a comma-separated list of positive numbers.
func numbers(list string) (ns []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a list of positive numbers", list)
		}
		ns = append(ns, n)
	}
	return ns, nil
}

// report holds all results of one run.
type report struct {
	Machine    machine         `json:"machine"`
	Paid       []paidRow       `json:"paid,omitempty"`
	Streams    []streamsRow    `json:"streams,omitempty"`
	Challenges []challengesRow `json:"challenges,omitempty"`
	Ledger     []ledgerRow     `json:"ledger,omitempty"`
	Stopped    *stoppedRow     `json:"stopped,omitempty"`
	Locked     []lockedRow     `json:"locked,omitempty"`
	Holders    []holdersRow    `json:"holders,omitempty"`
	Holds      *holdsRow       `json:"holds,omitempty"`
	History    []historyRow    `json:"history,omitempty"`
	Audit      []auditRow      `json:"audit,omitempty"`
	Notes      []string        `json:"notes,omitempty"` // what was left out, and the reason
	Took       time.Duration   `json:"took_ns"`
	started    time.Time
}

func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	s, err := newSite(o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r := &report{started: time.Now()}
	if r.Machine, err = describeMachine(s.dir); err != nil {
		return err
	}
	for _, part := range allParts {
		if !slices.Contains(o.parts, part.name) {
			continue
		}
		fmt.Fprintf(stderr, "bench: %s …\n", part.name)
		if err = part.measure(ctx, s, o, r); err != nil {
			err = fmt.Errorf("%s: %w", part.name, err)
			break // the results of the parts before are still printed
		}
	}
	r.Took = time.Since(r.started)
	if o.json {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		return errors.Join(err, encoder.Encode(r))
	}
	return errors.Join(err, r.markdown(stdout))
}
