package main

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/internal/demo"
	"sluice.example/sluice/internal/devnet/inference"
)

func runDemo(e env, set *pflag.FlagSet) cli.Run {
	dir := set.String("dir", "", "folder for all files; made if missing (default: a temporary one)")
	once := set.Bool("once", false, "end after the story instead of serving until interrupted")
	store := set.String("store", "", "URL of a PostgreSQL database for the ledger (default: SQLite in the folder)")
	replicas := set.Int("replicas", 1, "gateways that share the store, 1 to 8; more than one needs --store")
	return func(ctx context.Context, _ []string) error {
		if *replicas < 1 || *replicas > 8 {
			return cli.Usagef("--replicas must be 1 to 8")
		}
		program, err := executable()
		if err != nil {
			return err
		}
		return demo.Run(ctx, demo.Config{Dir: *dir, Once: *once, Gateway: program, StoreURL: *store, Replicas: *replicas, Out: e.stdout})
	}
}

// runInference runs the demo's inference server. The demo starts it as a child process.
func runInference(e env, _ *pflag.FlagSet) cli.Run {
	return func(ctx context.Context, args []string) error {
		switch inference.Main(ctx, args, e.stdout, e.stderr) {
		case exitOK:
			return nil
		case exitUsage:
			return cli.Usagef("wrong flags")
		}
		return errors.New("the inference server failed")
	}
}
