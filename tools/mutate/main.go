// Command mutate breaks the money code on purpose, one small change at a time, and runs the tests
// on each change. A change that no test notices shows a gap in the tests.
//
//	go run ./tools/mutate -hand                        # the hand-written mutants
//	go run ./tools/mutate -sample 100 -seed 7          # and a sample of the mechanical ones
//	go run ./tools/mutate -only 'decide_.*compare'     # those whose text matches
//	go run ./tools/mutate -resume bin/all.jsonl        # all of them, continued after a stop
//
// There are two kinds of mutants. Operators over the syntax of Go (operators.go) and of SQL
// (sqltext.go) make the mechanical mutants. The hand-written mutants are in mutants.txt, because no
// operator makes a fault of liveness or durability.
//
// The tests see a mutant through the overlay of the go command, so the working tree never changes.
// A table (targets.go) says which tests guard which file. The cheapest tests run first. A mutant is
// killed when a test fails or exceeds its time limit. A change that does not compile does not count
// as a mutant.
//
// A mutant that survives must be explained in survivors.txt. Otherwise the exit status is 1. The
// name of a mutant has its file, function, operator and text, but no line number, so that an
// explanation remains valid when other code changes.
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

// options holds the values of the flags.
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

// These are the tool's files, relative to the repository's root.
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

// run does the work of main, for the repository at root.
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

// errReported is the error when the report has already told what is wrong.
var errReported = errors.New("unexplained survivors, or hand-written mutants that do not compile")

// choose returns the mutants that the flags select: the hand-written mutants first, then the
// mechanical mutants in the order of the sources.
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
