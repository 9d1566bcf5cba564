// Command prepare builds the Lightning daemons for the demo and the tests, if they are not built
// yet, and prints where they are. Tests also build them when needed, but then the minutes of the
// build count as time of the test.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"sluice.example/sluice/internal/devnet"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	btcd, lnd, err := devnet.Daemons(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
	fmt.Printf("%s\n%s\n", btcd, lnd)
}
