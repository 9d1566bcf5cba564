// Bench measures what Sluice costs, beside what else could stand in its place,
// on this machine's loopback:
//
//	go run ./internal/bench              # about five minutes, Markdown on stdout
//	go run ./internal/bench -short       # under a minute
//	go run ./internal/bench -parts paid -conns 256 -profile profiles
//
// Every server it measures, and every generator of load, is a process of its
// own (this program again, in a role, see roles), so that its CPU time and
// memory can be told apart. Targets take turns in short rounds, and a figure is
// the median of its rounds: what else the machine does meanwhile hits all of
// them alike. All processes end with this one, however it ends.
//
// The parts, each in the file named for it: paid (a paid, metered request),
// streams (many slow event streams at once), challenges (402s, on a real lnd),
// ledger (reserve and settle, without HTTP).
package main

import (
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

// options are what one run measures, and for how long.
type options struct {
	parts    []string
	json     bool
	short    bool
	dir      string        // everything temporary goes below it
	profile  string        // folder for profiles of the gateways; empty: none
	conns    []int         // of the paid part
	rounds   int           // per target and number of connections
	round    time.Duration // the measured part of a round
	streams  int
	watch    time.Duration // how long streams are watched
	accounts []int         // sizes of the ledger part
}

var allParts = []string{"paid", "streams", "challenges", "ledger"}

func parseOptions(args []string, stderr io.Writer) (o options, err error) {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	parts := set.String("parts", strings.Join(allParts, ","), "what to measure")
	conns := set.String("conns", "1,32,256", "numbers of connections of the paid part")
	accounts := set.String("accounts", "1,1000,1000000", "numbers of accounts of the ledger part")
	set.BoolVar(&o.short, "short", false, "shorter and fewer rounds: a look, not a measurement")
	set.BoolVar(&o.json, "json", false, "print JSON instead of Markdown")
	set.StringVar(&o.dir, "dir", "", "folder for databases and logs, on the disk to be measured; empty: a temporary one")
	set.StringVar(&o.profile, "profile", "", "also profile the gateways under the most connections, into this folder")
	set.IntVar(&o.rounds, "rounds", 0, "rounds of each target; 0: 5, short 2")
	set.DurationVar(&o.round, "round", 0, "measured part of a round; 0: 1.2 s, short 0.4 s")
	set.IntVar(&o.streams, "streams", 1000, "concurrent event streams")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if set.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	o.parts = strings.Split(*parts, ",")
	for _, p := range o.parts {
		if !slices.Contains(allParts, p) {
			return o, fmt.Errorf("-parts: there is no %q, only %s", p, strings.Join(allParts, ", "))
		}
	}
	var badConns, badAccounts error
	o.conns, badConns = numbers(*conns)
	o.accounts, badAccounts = numbers(*accounts)
	if err := errors.Join(badConns, badAccounts); err != nil {
		return o, err
	}
	o.setDefaults()
	if o.rounds < 1 || o.round < 10*time.Millisecond || o.streams < 1 {
		return o, errors.New("-rounds and -streams must be at least 1, -round at least 10ms")
	}
	return o, nil
}

func (o *options) setDefaults() {
	rounds, round := 5, 1200*time.Millisecond
	o.watch = 8 * time.Second
	if o.short {
		rounds, round = 2, 400*time.Millisecond
		o.watch = 3 * time.Second
		o.accounts = slices.DeleteFunc(o.accounts, func(n int) bool { return n > 100_000 })
	}
	if o.rounds == 0 {
		o.rounds = rounds
	}
	if o.round == 0 {
		o.round = round
	}
}

// numbers reads a list of positive numbers.
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

// report is everything that one run found out.
type report struct {
	Machine    machine         `json:"machine"`
	Paid       []paidRow       `json:"paid,omitempty"`
	Streams    []streamsRow    `json:"streams,omitempty"`
	Challenges []challengesRow `json:"challenges,omitempty"`
	Ledger     []ledgerRow     `json:"ledger,omitempty"`
	Notes      []string        `json:"notes,omitempty"` // what was left out, and why
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
	for _, part := range []struct {
		name    string
		measure func(context.Context, *site, options, *report) error
	}{{"paid", measurePaid}, {"streams", measureStreams}, {"challenges", measureChallenges}, {"ledger", measureLedger}} {
		if !slices.Contains(o.parts, part.name) {
			continue
		}
		fmt.Fprintf(stderr, "bench: %s …\n", part.name)
		if err = part.measure(ctx, s, o, r); err != nil {
			err = fmt.Errorf("%s: %w", part.name, err)
			break // what was measured before is shown all the same
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
