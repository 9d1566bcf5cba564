// Command gateway sells access to inference servers for Lightning payments
// (L402). `gateway serve --config FILE` runs it; `gateway demo` shows it with
// a local Lightning network and needs nothing set up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is set by the linker; a plain go build leaves it to build info.
var version = ""

// Exit codes of every subcommand.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// env is what a subcommand may touch of the process it runs in.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
}

// command is one subcommand. run returns errUsage for wrong arguments; any
// other error is a failure.
type command struct {
	name, args, summary string
	hidden              bool
	run                 func(ctx context.Context, e env, args []string) error
}

// errUsage reports wrong arguments; the flag package has already said which.
var errUsage = errors.New("wrong arguments")

func commands() []command {
	return []command{
		{name: "serve", args: "--config FILE", summary: "run the gateway", run: serve},
		{name: "demo", args: "[--dir D] [--once] [--store URL] [--replicas N]", summary: "a local Lightning network, a gateway, a model and an agent that pays", run: runDemo},
		{name: "check-config", args: "FILE", summary: "read a configuration and say what is wrong with it", run: checkConfig},
		{name: "reload", args: "--config FILE [--admin HOST:PORT] [--json]", summary: "have the running gateway read its configuration again, and say what changed or why not", run: reload},
		{name: "diff-config", args: "--config FILE [--admin HOST:PORT]", summary: "say what a configuration would change of the running gateway, and change nothing", run: diffConfig},
		{name: "verify-ledger", args: "--config FILE [--full] [--pause FACTOR]", summary: "recompute every balance from its lines and compare with lnd, since the last closed month or all", run: verifyLedger},
		{name: "gpu-exporter", args: "[--listen ADDR] [--nvml-library PATH]", summary: "serve what NVML reads of this machine's GPUs as Prometheus text", run: runExporter},
		{name: "simulate", args: "--scenario surge|FILE --policy NAME[,NAME…] [--seed N] [--json] [--plot FILE]", summary: "try prices out on a surge or on recorded load", run: runSimulate},
		{name: "version", summary: "print the version", run: printVersion},
		{name: "demo-inference", hidden: true, run: runInference},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, env{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}, os.Args[1:]))
}

// run finds the subcommand and maps its error to an exit code.
func run(ctx context.Context, e env, args []string) int {
	if len(args) == 0 {
		usage(e.stderr)
		return exitUsage
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		usage(e.stdout)
		return exitOK
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, e, args[1:])
		switch {
		case err == nil, errors.Is(err, flag.ErrHelp):
			return exitOK
		case errors.Is(err, errUsage):
			return exitUsage
		}
		fmt.Fprintf(e.stderr, "gateway %s: %v\n", c.name, err)
		return exitFailed
	}
	fmt.Fprintf(e.stderr, "gateway: there is no subcommand %q\n", args[0])
	usage(e.stderr)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: gateway SUBCOMMAND [arguments]")
	for _, c := range commands() {
		if !c.hidden {
			fmt.Fprintf(w, "\n  gateway %s %s\n      %s\n", c.name, c.args, c.summary)
		}
	}
}

// flags returns a flag set that prints to stderr and reports errUsage.
func flags(e env, name string) *flag.FlagSet {
	set := flag.NewFlagSet("gateway "+name, flag.ContinueOnError)
	set.SetOutput(e.stderr)
	return set
}

// parse reads args into set and checks the number of positional arguments.
func parse(set *flag.FlagSet, args []string, positional int) error {
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return errUsage
	}
	if set.NArg() != positional {
		fmt.Fprintf(set.Output(), "%s: want %d arguments besides flags, got %d\n", set.Name(), positional, set.NArg())
		set.Usage()
		return errUsage
	}
	return nil
}

func printVersion(_ context.Context, e env, args []string) error {
	if err := parse(flags(e, "version"), args, 0); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, "gateway", buildVersion())
	return nil
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "dev"
}
