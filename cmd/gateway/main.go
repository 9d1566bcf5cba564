// Command gateway sells access to inference servers for Lightning payments (L402). `gateway serve
// --config FILE` runs the gateway. `gateway demo` shows it with a local Lightning network and needs
// no setup.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
)

// version is set by the linker. When it is "", the version comes from Go's build info.
var version = ""

// These are the exit codes of every subcommand.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// env is the part of its process that a subcommand may use.
type env struct {
	stdout, stderr io.Writer
	getenv         func(string) string
}

// commands returns the subcommands. They run in e.
func commands(e env) []cli.Command {
	in := func(setup func(env, *pflag.FlagSet) cli.Run) func(*pflag.FlagSet) cli.Run {
		return func(set *pflag.FlagSet) cli.Run { return setup(e, set) }
	}
	return []cli.Command{
		{Name: "serve", Args: "--config FILE", Summary: "run the gateway", Setup: in(serve)},
		{Name: "demo", Args: "[--dir D] [--once] [--store URL] [--replicas N]", Summary: "a local Lightning network, a gateway, a model and an agent that pays", Setup: in(runDemo)},
		{Name: "check-config", Args: "FILE", Summary: "read a configuration and say what is wrong with it", Least: 1, Most: 1, Setup: in(checkConfig)},
		{Name: "reload", Args: "--config FILE [--admin HOST:PORT] [--json]", Summary: "have the running gateway read its configuration again, and say what changed or why not", Setup: in(reload)},
		{Name: "diff-config", Args: "--config FILE [--admin HOST:PORT]", Summary: "say what a configuration would change of the running gateway, and change nothing", Setup: in(diffConfig)},
		{Name: "verify-ledger", Args: "--config FILE [--full] [--pause FACTOR]", Summary: "recompute every balance from its lines and compare with lnd, since the last closed month or all", Setup: in(verifyLedger)},
		{Name: "gpu-exporter", Args: "[--listen ADDR] [--nvml-library PATH]", Summary: "serve what NVML reads of this machine's GPUs as Prometheus text", Setup: in(runExporter)},
		{Name: "simulate", Args: "--scenario surge|FILE --policy NAME[,NAME…] [--seed N] [--json] [--plot FILE]", Summary: "try prices out on a surge or on recorded load", Setup: in(runSimulate)},
		{Name: "version", Summary: "print the version", Setup: in(printVersion)},
		{Name: "demo-inference", Hidden: true, Raw: true, Setup: in(runInference)},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once, because stop restores the default handling.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, env{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}, os.Args[1:]))
}

// run runs the subcommand that args name and returns the exit code.
func run(ctx context.Context, e env, args []string) int {
	p := cli.Program{Name: "gateway", Commands: commands(e), Overview: usage, Stdout: e.stdout, Stderr: e.stderr}
	name, err := p.Run(ctx, args)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(e.stderr, "%s: %v\n", strings.TrimSpace("gateway "+name), err)
	var wrong *cli.UsageError
	if errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailed
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: gateway SUBCOMMAND [arguments]")
	for _, c := range commands(env{}) {
		if !c.Hidden {
			fmt.Fprintf(w, "\n  gateway %s %s\n      %s\n", c.Name, c.Args, c.Summary)
		}
	}
	fmt.Fprintln(w, "\n  gateway completion bash|zsh|fish|powershell\n      print a script that completes subcommands and flags in a shell")
}

func printVersion(e env, _ *pflag.FlagSet) cli.Run {
	return func(context.Context, []string) error {
		_, err := fmt.Fprintln(e.stdout, "gateway", buildVersion())
		return err
	}
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
