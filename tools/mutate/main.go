// Command mutate breaks the money code on purpose, one small change at a time,
// and runs the tests on each change: a change that no test notices is a gap in
// the tests.
//
//	go run ./tools/mutate -hand                        # the hand-written mutants
//	go run ./tools/mutate -sample 100 -seed 7          # and a sample of the mechanical ones
//	go run ./tools/mutate -only 'decide_.*compare'     # those whose text matches
//	go run ./tools/mutate -resume bin/all.jsonl        # all of them, continued after a stop
//
// There are two kinds of mutants. Mechanical ones come from operators over the
// syntax of Go (operators.go) and of SQL (sqltext.go). Hand-written ones are in
// mutants.txt, because no operator makes a fault of liveness or durability.
//
// The tests see a mutant through the overlay of the go command, so the working
// tree never changes. Which tests guard which file is a table (targets.go). The
// cheapest tests run first. A mutant is killed when a test fails or exceeds its
// time limit. A mutant that does not compile is none.
//
// A mutant that survives must be explained in survivors.txt, otherwise the exit
// status is 1. A mutant is named by its file, function, operator and text, never
// by a line number, so that the explanations outlast edits elsewhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"syscall"
)

// options are the flags.
type options struct {
	seed      uint64
	sample    int // -1: all
	only      *regexp.Regexp
	hand      bool
	list      bool
	postgres  bool
	lnd       bool
	parallel  int
	nice      int
	memoryMiB int
	tmp       string
	resume    string
}

// Where the tool finds and keeps its files, from the repository's root.
const (
	handFile      = "tools/mutate/mutants.txt"
	survivorsFile = "tools/mutate/survivors.txt"
	resultsFile   = "bin/mutate.jsonl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parseFlags(os.Args[1:])
	if err != nil {
		os.Exit(2)
	}
	switch err := run(ctx, ".", o, os.Stdout); {
	case errors.Is(err, errReported):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (o options, err error) {
	f := flag.NewFlagSet("mutate", flag.ContinueOnError)
	f.Uint64Var(&o.seed, "seed", 1, "which sample")
	f.IntVar(&o.sample, "sample", -1, "how many of the mechanical mutants to run (-1: all)")
	f.Func("only", "run only the mutants whose text matches this `regexp`", func(s string) (err error) {
		o.only, err = regexp.Compile(s)
		return err
	})
	f.BoolVar(&o.hand, "hand", false, "run the hand-written mutants only")
	f.BoolVar(&o.list, "list", false, "list the mutants and run nothing")
	f.BoolVar(&o.postgres, "postgres", false, "also run the tests on PostgreSQL, and the mutants that only these can kill")
	f.BoolVar(&o.lnd, "lnd", false, "also run the tests against a real lnd (three minutes for each survivor)")
	f.IntVar(&o.parallel, "parallel", max(1, runtime.NumCPU()/2), "how many mutants at once")
	f.IntVar(&o.nice, "nice", 10, "niceness of the tests")
	f.IntVar(&o.memoryMiB, "memory", 4096, "most memory that one test process may use, in MiB")
	f.StringVar(&o.tmp, "tmp", "", "`folder` for the tests' files (empty: the system's; /dev/shm is faster)")
	f.StringVar(&o.resume, "resume", "",
		"append the results to this `file`, and skip the mutants that it already has for the same sources")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return o, nil
}

// run does everything that main does, on the repository at root.
func run(ctx context.Context, root string, o options, out io.Writer) error {
	if _, err := os.Stat(filepath.Join(root, handFile)); err != nil {
		return fmt.Errorf("run it from the repository's root: %w", err)
	}
	all, err := collect(root, moneyCode)
	if err != nil {
		return err
	}
	known, err := readExplained(filepath.Join(root, survivorsFile))
	if err != nil {
		return err
	}
	chosen := choose(all, o)
	if o.list {
		for _, m := range chosen {
			fmt.Fprintln(out, m.id)
		}
		fmt.Fprintf(out, "%d of %d mutants\n", len(chosen), len(all))
		return nil
	}
	c := &campaign{root: root, targets: moneyCode, options: o, out: out, resultsPath: filepath.Join(root, resultsFile)}
	if o.resume != "" {
		c.resultsPath = o.resume
	}
	results, err := c.run(ctx, chosen)
	report(out, results, known, all)
	if err != nil {
		return err
	}
	if len(unexplained(results, known)) > 0 || len(broken(results)) > 0 {
		return errReported
	}
	return nil
}

// errReported: the report has told what is wrong.
var errReported = errors.New("unexplained survivors, or hand-written mutants that do not compile")

// choose applies the flags to the mutants: hand-written ones first, then the
// mechanical ones in the order of the sources.
func choose(all []*mutant, o options) []*mutant {
	var hand, mechanical []*mutant
	for _, m := range all {
		switch {
		case o.only != nil && !o.only.MatchString(m.id):
		case m.hand:
			hand = append(hand, m)
		case !o.hand:
			mechanical = append(mechanical, m)
		}
	}
	if o.sample >= 0 && o.sample < len(mechanical) {
		mechanical = sample(mechanical, o.seed, o.sample)
	}
	return slices.Concat(hand, mechanical)
}
