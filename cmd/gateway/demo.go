package main

import (
	"context"
	"fmt"

	"sluice.example/sluice/internal/demo"
	"sluice.example/sluice/internal/devnet/inference"
)

func runDemo(ctx context.Context, e env, args []string) error {
	set := flags(e, "demo")
	dir := set.String("dir", "", "folder for all files; made if missing (default: a temporary one)")
	once := set.Bool("once", false, "end after the story instead of serving until interrupted")
	store := set.String("store", "", "URL of a PostgreSQL database for the ledger (default: SQLite in the folder)")
	replicas := set.Int("replicas", 1, "gateways that share the store, 1 to 8; more than one needs --store")
	if err := parse(set, args, 0); err != nil {
		return err
	}
	if *replicas < 1 || *replicas > 8 {
		fmt.Fprintln(e.stderr, "gateway demo: --replicas must be 1 to 8")
		return errUsage
	}
	program, err := executable()
	if err != nil {
		return err
	}
	return demo.Run(ctx, demo.Config{Dir: *dir, Once: *once, Gateway: program, StoreURL: *store, Replicas: *replicas, Out: e.stdout})
}

// runInference is the demo's inference server, as a child of the demo.
func runInference(ctx context.Context, e env, args []string) error {
	switch inference.Main(ctx, args, e.stdout, e.stderr) {
	case exitOK:
		return nil
	case exitUsage:
		return errUsage
	}
	return fmt.Errorf("the inference server failed")
}
