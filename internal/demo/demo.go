// Package demo shows the whole product on one machine: a local Lightning network of real daemons, a
// demo inference server, a gateway in front of it, and an agent that pays for its requests.
//
//	err := demo.Run(ctx, demo.Config{Dir: dir, Gateway: os.Args[0], Out: os.Stdout})
//
// All processes listen only on the loopback and end when Run returns.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"sluice.example/sluice/internal/devnet"
	"sluice.example/sluice/internal/lab/proc"
	"sluice.example/sluice/l402/client/lndwallet"
)

// Config says how to run the demo.
type Config struct {
	// Dir is the folder for all files of the demo. It is created if it does not exist. A folder of
	// an earlier demo is wiped and used again. Empty means a temporary folder that is removed when
	// the demo ends.
	Dir string
	// Once makes the demo end after the story. Otherwise the demo serves until ctx ends.
	Once bool
	// Gateway is the path of the gateway binary, which the demo starts in child processes.
	Gateway string
	// StoreURL names a PostgreSQL database for the ledger. Empty means SQLite in Dir.
	StoreURL string
	// Replicas is how many gateways share the store. More than one needs PostgreSQL. Zero means
	// one.
	Replicas int
	// Out gets the text of the story.
	Out io.Writer
}

// marker is a file in the folder of a demo. A folder without it belongs to somebody else.
const marker = "sluice-demo"

// stopGrace is how long a gateway may take to drain when the demo ends.
const stopGrace = 20 * time.Second

// demo is one run of the demo. Only one goroutine uses it.
type demo struct {
	cfg        Config
	story      *story
	launcher   *proc.Launcher
	network    *devnet.Network
	place      place
	adminToken string
	backendAt  string // host:port
	backend    *proc.Process
	exporterAt string        // host:port
	exporter   *proc.Process // nil: this system cannot simulate a GPU
	replicas   []*replica    // at least one
	wallet     *lndwallet.Wallet
	agents     []*agent // in the order in which they were made
}

// Run runs the demo until the story has ended (with Once), until ctx ends, or until something
// fails. It returns nil when it did what the caller asked. It leaves no process behind.
func Run(ctx context.Context, cfg Config) (err error) {
	if cfg.Replicas > 1 && cfg.StoreURL == "" {
		return errors.New("several gateways need a store that they can share: name a PostgreSQL database with --store URL")
	}
	d := &demo{cfg: cfg, story: newStory(cfg.Out), launcher: proc.NewLauncher()}
	defer d.launcher.Close()
	cleanup, err := d.openDir()
	if err != nil {
		return err
	}
	defer cleanup()
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.start(ctx); err != nil {
		return interrupted(ctx, err)
	}
	if err := d.tell(ctx); err != nil {
		return interrupted(ctx, err)
	}
	if err := d.writeSummary(); err != nil {
		return err
	}
	if cfg.Once {
		return nil
	}
	return d.serve(ctx)
}

// interrupted returns the error "interrupted" when ctx has ended, because the other errors then
// only follow from that. Otherwise it returns err.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

// openDir creates the folder, or takes over the folder of an earlier demo.
func (d *demo) openDir() (cleanup func(), err error) {
	cleanup = func() {}
	dir := d.cfg.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sluice-demo-"); err != nil {
			return nil, err
		}
		cleanup = func() { os.RemoveAll(dir) }
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d.place = place(dir)
	if err := d.choosePorts(); err != nil {
		return nil, err
	}
	return cleanup, d.place.prepare()
}

// start starts all processes in the order in which they depend on each other.
func (d *demo) start(ctx context.Context) (err error) {
	d.story.chapter("A Lightning network, on this machine only")
	if d.network, err = devnet.Start(ctx, devnet.Config{Dir: string(d.place), Out: d.story}); err != nil {
		return err
	}
	d.story.chapter("An inference server, its GPU, and the gateway in front of it")
	if err := d.startBackend(ctx); err != nil {
		return err
	}
	if err := d.startGPU(ctx); err != nil {
		return err
	}
	return d.startGateways(ctx)
}

// serve waits until the demo must end. The end of a gateway does not end the demo, because a user
// may kill a gateway and start it again.
func (d *demo) serve(ctx context.Context) error {
	d.story.chapter("Ready")
	for _, r := range d.replicas {
		d.story.say("gateway   %s", r.URL)
	}
	d.story.say("facts     %s", d.place.path("demo.json"))
	d.story.say("try       agent-client --config %s chat --url %s --model %s \"What is a sluice?\"",
		d.place.path("agent.yaml"), d.gatewayURL(), model)
	d.story.say("It serves until it is interrupted (Ctrl-C).")
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.network.Failed():
		return err
	case <-d.backend.Done():
		return d.backend.Exit()
	}
}

// stop ends all processes in reverse order.
func (d *demo) stop() error {
	var errs []error
	for _, r := range d.replicas {
		if p := r.Process(); p != nil {
			errs = append(errs, p.Stop(stopGrace))
		}
	}
	for _, p := range []*proc.Process{d.exporter, d.backend} {
		if p != nil {
			errs = append(errs, p.Stop(stopGrace))
		}
	}
	if d.network != nil {
		errs = append(errs, d.network.Stop())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop the demo: %w", err)
	}
	return nil
}
