// Package devnet runs a Lightning network of real daemons on this machine: one
// btcd that mines a regtest chain and two lnds with a funded channel between
// them, all on the loopback. The demo lives on it, and the tests.
//
//	network, err := devnet.Start(ctx, devnet.Config{Dir: dir, Out: os.Stderr})
//	defer network.Stop()
//	// sell through network.Gateway, buy through network.Agent
//
// The daemons are built from pinned Go modules the first time (see Daemons).
// They end with Stop; on Linux they also end when this process is killed (see
// package proc).
package devnet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/internal/lab/loopback"
	"sluice.example/sluice/internal/lab/proc"
)

// marker is the file by which a folder is known as a network's own, so that
// nothing else is ever wiped.
const marker = "sluice-devnet"

// Config says where the network lives.
type Config struct {
	// Dir is made if missing. The network keeps its files in the subfolder
	// "lightning" and wipes that of an earlier network.
	Dir string
	// Out takes one line per step for people to read; nil for silence.
	Out io.Writer
}

// Network is a running network.
type Network struct {
	Gateway *Node // sells; 0.3 BTC of the channel are its
	Agent   *Node // buys; 0.7 BTC of the channel, less the commitment's cost, are its

	launcher *proc.Launcher
	chain    *chain
	unlock   func()
	failed   chan error
	stopping atomic.Bool
	stopOnce sync.Once
	stopErr  error
}

// Start builds or finds the daemons and starts the network; about ten seconds
// with built daemons. When it fails or ctx ends before it is done, nothing is
// left running. Afterwards ctx has no part in the network's life.
func Start(ctx context.Context, cfg Config) (*Network, error) {
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	btcd, lnd, err := Daemons(ctx, cfg.Out)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start the Lightning network: %w", err)
	}
	unlock, err := claim(ctx, cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start the Lightning network: %w", err)
	}
	// A free port may be taken by someone else before its daemon has it.
	const attempts = 3
	for attempt := 1; ; attempt++ {
		n := &Network{launcher: proc.NewLauncher(), failed: make(chan error, 1)}
		err := n.start(ctx, cfg, btcd, lnd)
		if err == nil {
			n.unlock = unlock
			return n, nil
		}
		n.Stop()
		if attempt == attempts || !errors.Is(err, errPortTaken) {
			unlock()
			return nil, fmt.Errorf("start the Lightning network: %w", err)
		}
	}
}

// claim makes sure that no other network runs in the folder.
func claim(ctx context.Context, dir string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	unlock, err = lock(ctx, filepath.Join(dir, "lightning.lock"), func() {})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("another network runs in %s; stop it or use another folder", dir)
	}
	return unlock, err
}

// prepare empties the network's own folder.
func prepare(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, marker)); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s holds files that are no network's; remove it or use another folder", dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), []byte("A local Lightning network's files. They are wiped when it starts.\n"), 0o600)
}

func (n *Network) start(ctx context.Context, cfg Config, btcd, lnd string) error {
	begin := time.Now()
	root, err := filepath.Abs(filepath.Join(cfg.Dir, "lightning"))
	if err != nil {
		return err
	}
	if err := prepare(root); err != nil {
		return err
	}
	ports, err := loopback.FreeAddresses(6)
	if err != nil {
		return err
	}
	miner, err := newMinerWallet(begin)
	if err != nil {
		return err
	}
	if n.chain, err = startChain(ctx, n.launcher, btcd, filepath.Join(root, "btcd"), miner.address, ports[:2]); err != nil {
		return err
	}
	n.report(n.chain.process, func() bool { return !n.stopping.Load() })
	fmt.Fprintf(cfg.Out, "btcd (pid %d) mines a regtest chain at %s\n", n.chain.process.Pid(), n.chain.rpc)
	if err := n.startNodes(ctx, lnd, root, ports[2:], miner); err != nil {
		return err
	}
	for _, node := range []*Node{n.Gateway, n.Agent} {
		fmt.Fprintf(cfg.Out, "lnd of the %s (pid %d) serves gRPC at %s\n", node.Name, node.Pid(), node.GRPC)
	}
	if err := n.fund(ctx, miner); err != nil {
		return err
	}
	if err := n.openChannel(ctx); err != nil {
		return err
	}
	fmt.Fprintf(cfg.Out, "a channel of %d sat is open, %d of them the gateway's; the network took %s\n",
		channelSats, pushedSats, time.Since(begin).Round(100*time.Millisecond))
	return nil
}

// startNodes starts both lnds, makes the agent's wallet and waits until both
// serve.
func (n *Network) startNodes(ctx context.Context, lnd, root string, ports []string, miner minerWallet) error {
	// The agent's wallet has a password, as a fixed root key needs one; lnd
	// unlocks it by itself when it is started again.
	password := rand.Text()
	passwordFile := filepath.Join(root, "agent-password")
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		return err
	}
	var err error
	if n.Gateway, err = n.newNode("gateway", lnd, filepath.Join(root, "gateway"), ports[:2], "--noseedbackup"); err != nil {
		return err
	}
	n.Agent, err = n.newNode("agent", lnd, filepath.Join(root, "agent"), ports[2:4],
		"--wallet-unlock-password-file="+passwordFile, "--wallet-unlock-allow-create")
	if err != nil {
		return err
	}
	if err := errors.Join(n.Gateway.launch(), n.Agent.launch()); err != nil {
		return err
	}
	if err := n.Mine(ctx, segwitBlocks); err != nil {
		return err
	}
	if err := n.makeWallet(ctx, miner, []byte(password)); err != nil {
		return err
	}
	for _, node := range []*Node{n.Agent, n.Gateway} {
		if err := node.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Mine makes blocks at once; the coins go to the agent.
func (n *Network) Mine(ctx context.Context, blocks int) error { return n.chain.mine(ctx, blocks) }

// Pids are the process ids of the running daemons by role: btcd, lnd_gateway and
// lnd_agent.
func (n *Network) Pids() map[string]int {
	pids := map[string]int{"btcd": n.chain.process.Pid()}
	for _, node := range []*Node{n.Gateway, n.Agent} {
		if pid := node.Pid(); pid != 0 {
			pids["lnd_"+node.Name] = pid
		}
	}
	return pids
}

// Failed delivers the reason, with the end of its log, when a daemon ends that
// nobody stopped. It delivers the first one only.
func (n *Network) Failed() <-chan error { return n.failed }

// report watches a process; expected says whether it should still be running.
func (n *Network) report(p *proc.Process, expected func() bool) {
	go func() {
		<-p.Done()
		if !expected() {
			return
		}
		select {
		case n.failed <- p.Exit():
		default:
		}
	}()
}

// died explains the end of a daemon during the start.
func died(p *proc.Process) error {
	err := p.Exit()
	if strings.Contains(err.Error(), "address already in use") {
		return fmt.Errorf("%w: %w", errPortTaken, err)
	}
	return err
}

// Stop ends all daemons, the nodes first, and waits for them: usually under a
// second, at most half a minute. The error says which of them had to be killed.
func (n *Network) Stop() error {
	n.stopOnce.Do(func() { n.stopErr = n.stop() })
	return n.stopErr
}

func (n *Network) stop() error {
	n.stopping.Store(true)
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i, node := range []*Node{n.Gateway, n.Agent} {
		if node != nil {
			wg.Go(func() { errs[i] = node.Stop() })
		}
	}
	wg.Wait()
	if n.chain != nil && n.chain.process != nil {
		errs[2] = n.chain.process.Stop(stopGrace)
	}
	n.launcher.Close()
	if n.unlock != nil {
		n.unlock()
	}
	return errors.Join(errs...)
}
