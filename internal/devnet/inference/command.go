package inference

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Main runs the server as a command until ctx ends or SIGTERM or SIGINT arrives. It returns the
// exit status: 0 after a normal end, 1 for a failure, 2 for wrong flags. It prints "listening on
// ADDR" once it accepts requests.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, addr, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // the flag set has printed the reason
	}
	if err := run(ctx, cfg, addr, stdout); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func run(ctx context.Context, cfg Config, addr string, stdout io.Writer) error {
	s, err := New(cfg)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("inference server: %w", err)
	}
	if _, err := fmt.Fprintf(stdout, "listening on %s\n", ln.Addr()); err != nil {
		return errors.Join(fmt.Errorf("inference server: %w", err), ln.Close())
	}
	return s.Serve(ctx, ln)
}

func parseFlags(args []string, stderr io.Writer) (cfg Config, addr string, err error) {
	fs := flag.NewFlagSet("demo-inference", flag.ContinueOnError)
	fs.SetOutput(stderr)
	var keyEnv string
	fs.StringVar(&addr, "listen", "127.0.0.1:0", "address to listen on; port 0 takes a free one")
	fs.StringVar(&cfg.Model, "model", "demo", "name of the model")
	fs.Float64Var(&cfg.TokensPerSecond, "tokens-per-second", 60, "pace of one sequence on an idle server")
	fs.Float64Var(&cfg.Slowdown, "slowdown", 0.25, "share of the pace that is lost when every slot is taken")
	fs.IntVar(&cfg.Slots, "slots", 64, "sequences that generate at the same time")
	fs.IntVar(&cfg.Queue, "queue", 256, "requests that may wait for a slot; negative: none")
	fs.DurationVar(&cfg.FirstTokenDelay, "first-token-delay", 40*time.Millisecond, "fixed time before the first token")
	fs.Float64Var(&cfg.PrefillPerSecond, "prefill-per-second", 8000, "prompt tokens read per second; 0: at once")
	fs.IntVar(&cfg.MaxModelLen, "max-model-len", 8192, "tokens of prompt and answer together")
	fs.Uint64Var(&cfg.Seed, "seed", 0, "seed of requests that bring none; 0: random")
	fs.StringVar(&cfg.SimulateGPU, "simulate-gpu", "", "file to keep the values of a simulated GPU in, for the stand-in of NVIDIA's library")
	fs.StringVar(&keyEnv, "api-key-env", "", "environment variable with the API key that requests must bring")
	if err := fs.Parse(args); err != nil {
		return cfg, "", err
	}
	if fs.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if keyEnv != "" {
		if cfg.APIKey = os.Getenv(keyEnv); cfg.APIKey == "" {
			err = fmt.Errorf("the environment variable %s, named by --api-key-env, is empty", keyEnv)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return cfg, addr, err
}
