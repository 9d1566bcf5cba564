package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/pricing/simulate"
)

// simulation holds the flags of the command line.
type simulation struct {
	scenario, policies, plot string
	seed                     uint64
	json, csv                bool
	base, factor             float64
	pool                     simulate.Pool
	slotsGiven               bool
}

func runSimulate(e env, set *pflag.FlagSet) cli.Run {
	sim := simulateFlags(set)
	return func(context.Context, []string) error {
		if err := sim.check(set); err != nil {
			return err
		}
		scenario, err := sim.load()
		if err != nil {
			return err
		}
		var results []simulate.Result
		for name := range strings.SplitSeq(sim.policies, ",") {
			policy, err := findPolicy(strings.TrimSpace(name))
			if err != nil {
				return err
			}
			warnings, err := policy.Params.Validate()
			if err != nil {
				return fmt.Errorf("policy %s: %w", policy.Name, err)
			}
			for _, w := range warnings {
				fmt.Fprintf(e.stderr, "policy %s: %s\n", policy.Name, w)
			}
			result, err := simulate.Run(scenario, policy, sim.seed)
			if err != nil {
				return err
			}
			results = append(results, result)
		}
		return sim.write(e.stdout, scenario, results)
	}
}

func simulateFlags(set *pflag.FlagSet) *simulation {
	sim := &simulation{pool: simulate.DefaultPool()}
	set.StringVar(&sim.scenario, "scenario", "", "surge, or a `FILE` with recorded load: CSV, Prometheus range query JSON, stored epochs as JSON (required)")
	set.StringVar(&sim.policies, "policy", "default", "policies to compare, by `NAME`, separated by commas: "+strings.Join(simulate.Names(), ", ")+", or a YAML file")
	set.Uint64Var(&sim.seed, "seed", 1, "of the random numbers")
	set.BoolVar(&sim.json, "json", false, "print results as JSON")
	set.BoolVar(&sim.csv, "csv", false, "print every interval as CSV")
	set.StringVar(&sim.plot, "plot", "", "draw price, load and queue into this SVG `FILE`")
	set.IntVar(&sim.pool.Slots, "slots", sim.pool.Slots, "requests that run at once (default for a trace: its largest capacity)")
	set.DurationVar(&sim.pool.Service, "service", sim.pool.Service, "mean time that a request runs")
	set.Float64Var(&sim.pool.Elasticity, "elasticity", sim.pool.Elasticity, "relative fall of demand per relative rise of the price")
	set.DurationVar(&sim.pool.Reaction, "reaction", sim.pool.Reaction, "until buyers act on a new price, as with locked quotes")
	set.Float64Var(&sim.pool.KV, "kv", sim.pool.KV, "share of the KV cache that full slots fill; above 1 it limits what runs")
	set.IntVar(&sim.pool.Queue, "queue", sim.pool.Queue, "requests that may wait; 0: any number")
	set.DurationVar(&sim.pool.QueueTimeout, "queue-timeout", sim.pool.QueueTimeout, "longest wait; 0: any")
	set.Float64Var(&sim.base, "load", simulate.DefaultBase, "demand before the surge, as a share of capacity")
	set.Float64Var(&sim.factor, "surge", simulate.DefaultFactor, "how many times as much in the surge")
	return sim
}

// check refuses flags that contradict each other.
func (s *simulation) check(set *pflag.FlagSet) error {
	s.slotsGiven = set.Changed("slots")
	switch {
	case s.scenario == "":
		return cli.Usagef("--scenario is required: surge, or a file with recorded load")
	case s.json && s.csv:
		return cli.Usagef("--json and --csv both print to standard output: choose one")
	}
	return nil
}

// load returns the scenario. The name surge means the built-in scenario, even if a file has that
// name.
func (s *simulation) load() (simulate.Scenario, error) {
	if s.scenario == "surge" {
		return simulate.Surge(s.pool, s.base, s.factor), nil
	}
	f, err := os.Open(s.scenario)
	if errors.Is(err, os.ErrNotExist) {
		return simulate.Scenario{}, fmt.Errorf("there is no scenario and no file %q; want surge or a recording", s.scenario)
	}
	if err != nil {
		return simulate.Scenario{}, fmt.Errorf("read the recording: %w", err)
	}
	defer f.Close()
	trace, err := simulate.ReadTrace(filepath.Base(s.scenario), f)
	if err != nil {
		return simulate.Scenario{}, err
	}
	if slots := trace.Slots(); slots > 0 && !s.slotsGiven {
		s.pool.Slots = slots
	}
	return trace.Scenario(s.pool)
}

// findPolicy returns a built-in policy, or the policy in a YAML file. The policy of a file has the
// file's name.
func findPolicy(name string) (simulate.Policy, error) {
	if p, ok := simulate.Named(name); ok {
		return p, nil
	}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return simulate.Policy{}, fmt.Errorf("there is no policy and no file %q; the policies are %s", name, strings.Join(simulate.Names(), ", "))
	}
	if err != nil {
		return simulate.Policy{}, fmt.Errorf("read the policy: %w", err)
	}
	defer f.Close()
	return simulate.ParsePolicy(strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)), f)
}

func (s *simulation) write(stdout io.Writer, scenario simulate.Scenario, results []simulate.Result) error {
	if s.plot != "" {
		if err := writePlot(s.plot, scenario, results); err != nil {
			return fmt.Errorf("draw the plot: %w", err)
		}
	}
	switch {
	case s.json:
		return simulate.WriteJSON(stdout, results)
	case s.csv:
		return simulate.WriteCSV(stdout, results)
	default:
		return simulate.WriteTable(stdout, scenario, results)
	}
}

func writePlot(path string, scenario simulate.Scenario, results []simulate.Result) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(simulate.WritePlot(f, scenario, results), f.Close())
}
