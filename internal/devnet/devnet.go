// Package devnet runs a Lightning network of real daemons on this machine: one btcd that mines a
// regtest chain, and two lnds with a funded channel between them. All of them listen only on the
// loopback. The demo and many tests use it.
//
//	network, err := devnet.Start(ctx, devnet.Config{Dir: dir, Out: os.Stderr})
//	defer network.Stop()
//	// sell through network.Gateway, buy through network.Agent
//
// The first start builds the daemons from pinned Go modules (see Daemons). Stop ends them. On Linux
// they also end when this process is killed (see package proc).
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

// marker is a file in each folder of a network. A folder without it is never wiped.
const marker = "sluice-devnet"

// Config says where the network keeps its files.
type Config struct {
	// Dir is created if it does not exist. The network keeps its files in the subfolder
	// "lightning". It wipes the files of an earlier network there.
	Dir string
	// Out gets one line of text per step. nil means no output.
	Out io.Writer
}

// Network is a running network.
type Network struct {
	Gateway *Node // the seller; owns 0.3 BTC of the channel
	Agent   *Node // the buyer; owns 0.7 BTC of the channel, less the cost of the commitment transaction

	launcher *proc.Launcher
	chain    *chain
	unlock   func()
	failed   chan error
	stopping atomic.Bool
	stopOnce sync.Once
	stopErr  error
}

// Start finds or builds the daemons and starts the network, which takes about ten seconds with
// built daemons. When Start fails, or ctx ends before Start returns, no process is left. After
// Start has returned, the end of ctx does not affect the network.
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
	// Another process may take a free port before the daemon listens on it.
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

// claim locks the folder, so that no other network runs in it.
func claim(ctx context.Context, dir string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	unlock, err = lock(ctx, filepath.Join(dir, "lightning.lock"), func() {})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("another network runs in %s; stop it or use another folder", dir)
	}
	return unlock, err
}

// prepare removes all files from the network's folder. It fails when the folder is not a network's.
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

// startNodes starts both lnds, creates the agent's wallet and waits until both lnds serve.
func (n *Network) startNodes(ctx context.Context, lnd, root string, ports []string, miner minerWallet) error {
	// The agent's wallet needs a password, because it is created from a given root key. lnd reads
	// the password from a file and unlocks the wallet at each start.
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

// Mine mines blocks at once. Their coins go to the agent.
func (n *Network) Mine(ctx context.Context, blocks int) error { return n.chain.mine(ctx, blocks) }

// Pids returns the process ids of the running daemons by role: btcd, lnd_gateway and lnd_agent.
func (n *Network) Pids() map[string]int {
	pids := map[string]int{"btcd": n.chain.process.Pid()}
	for _, node := range []*Node{n.Gateway, n.Agent} {
		if pid := node.Pid(); pid != 0 {
			pids["lnd_"+node.Name] = pid
		}
	}
	return pids
}

// Failed delivers an error when a daemon ends that nobody stopped. The error contains the end of
// the daemon's log. Only the first such error is delivered.
func (n *Network) Failed() <-chan error { return n.failed }

// report waits for the end of a process and reports the end on failed, if expected says that the
// process should still run.
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

// died returns why a daemon ended during the start.
func died(p *proc.Process) error {
	err := p.Exit()
	if strings.Contains(err.Error(), "address already in use") {
		return fmt.Errorf("%w: %w", errPortTaken, err)
	}
	return err
}

// Stop ends all daemons, the nodes first, and waits for them. It takes less than a second, and at
// most half a minute. The error names the daemons that had to be killed.
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
