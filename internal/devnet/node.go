package devnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"google.golang.org/grpc"

	"sluice.example/sluice/internal/lab/proc"
	"sluice.example/sluice/internal/lightning"
)

// stopGrace is how long a daemon may take to stop before it is killed. Usually a daemon takes less
// than a second.
const stopGrace = 10 * time.Second

// Node is one lnd of the network. Its paths and addresses remain the same when the node is stopped
// and started again.
type Node struct {
	Name                string // "gateway" or "agent"
	GRPC                string // host:port
	P2P                 string // host:port
	PubKey              string // hex
	Dir                 string // folder of this lnd
	TLSCertPath         string
	AdminMacaroonPath   string // all rights
	InvoiceMacaroonPath string // has invoices:read, invoices:write and info:read, which is all that a seller needs

	network *Network
	lnd     string // path of the program
	args    []string
	log     string

	mu      sync.Mutex // guards the fields that change when the node stops or starts
	process *proc.Process
	conn    *grpc.ClientConn
}

// newNode prepares a node's folder. It starts no process.
func (n *Network) newNode(name, lnd, dir string, ports []string, extra ...string) (*Node, error) {
	macaroons := filepath.Join(dir, "data", "chain", "bitcoin", "regtest")
	node := &Node{
		Name: name, GRPC: ports[1], P2P: ports[0], Dir: dir,
		TLSCertPath:         filepath.Join(dir, "tls.cert"),
		AdminMacaroonPath:   filepath.Join(macaroons, "admin.macaroon"),
		InvoiceMacaroonPath: filepath.Join(dir, "sell.macaroon"),
		network:             n, lnd: lnd, log: filepath.Join(dir, "lnd.log"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "lnd.conf")
	text := fmt.Sprintf("[btcd]\nbtcd.rpcuser=%s\nbtcd.rpcpass=%s\n", n.chain.user, n.chain.password)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	node.args = append([]string{
		"--lnddir=" + dir, "--configfile=" + config, "--alias=" + name, "--listen=" + node.P2P, "--rpclisten=" + node.GRPC, "--norest",
		"--tlsdisableautofill", "--logging.file.disable",
		"--bitcoin.regtest", "--bitcoin.node=btcd", "--btcd.rpchost=" + n.chain.rpc, "--btcd.rpccert=" + n.chain.certPath,
		"--nobootstrap", "--bitcoin.defaultchanconfs=1", "--protocol.wumbo-channels", "--trickledelay=50", "--db.backend=sqlite",
		"--healthcheck.diskspace.attempts=0", "--gossip.sub-batch-delay=5ms",
		"--gc-canceled-invoices-on-startup", "--gc-canceled-invoices-on-the-fly",
	}, extra...)
	return node, nil
}

// Pid returns the process id of the running lnd, or 0 while the node is stopped.
func (n *Node) Pid() int {
	if p := n.running(); p != nil {
		return p.Pid()
	}
	return 0
}

// AdminConfig returns a configuration for lightning.Dial with all rights on the node.
func (n *Node) AdminConfig() (lightning.Config, error) { return n.config(n.AdminMacaroonPath) }

// SellerConfig returns a configuration for lightning.Dial with only the rights that a seller needs.
func (n *Node) SellerConfig() (lightning.Config, error) { return n.config(n.InvoiceMacaroonPath) }

func (n *Node) config(macaroonPath string) (lightning.Config, error) {
	cert, certErr := os.ReadFile(n.TLSCertPath)
	mac, macErr := os.ReadFile(macaroonPath)
	if err := errors.Join(certErr, macErr); err != nil {
		return lightning.Config{}, fmt.Errorf("credentials of the %s node: %w", n.Name, err)
	}
	return lightning.Config{Address: n.GRPC, TLSCert: cert, Macaroon: mac}, nil
}

// Stop ends the node's lnd. Its data, ports and credentials remain.
func (n *Node) Stop() error {
	n.mu.Lock()
	p, conn := n.process, n.conn
	n.process, n.conn = nil, nil
	n.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	if p == nil {
		return nil
	}
	return p.Stop(stopGrace)
}

// Start starts the node again after Stop. It returns once the channel works. While the other node
// is stopped, it returns once this node serves.
func (n *Node) Start(ctx context.Context) error {
	if n.running() != nil {
		return nil
	}
	err := n.launch()
	if err == nil {
		err = n.ready(ctx)
	}
	if err == nil && n.network.Gateway.running() != nil && n.network.Agent.running() != nil {
		err = n.network.awaitChannel(ctx)
	}
	if err != nil {
		return fmt.Errorf("start the %s node: %w", n.Name, err)
	}
	return nil
}

// ready waits until lnd serves, and prepares the credentials of the node.
func (n *Node) ready(ctx context.Context) error {
	if err := n.awaitState(ctx, lnrpc.WalletState_SERVER_ACTIVE); err != nil {
		return err
	}
	if err := n.connect(); err != nil {
		return err
	}
	if isFile(n.InvoiceMacaroonPath) {
		return nil
	}
	// lnd writes macaroons that its group can read, and an invoice macaroon that everybody can
	// read.
	written, err := filepath.Glob(filepath.Join(filepath.Dir(n.AdminMacaroonPath), "*.macaroon"))
	if err != nil {
		return err
	}
	for _, path := range written {
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
	}
	return n.bakeSeller(ctx)
}

func (n *Node) running() *proc.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process
}

// launch starts the lnd process.
func (n *Node) launch() error {
	p, err := n.network.launcher.Start(proc.Spec{Name: "lnd (" + n.Name + ")", Path: n.lnd, Args: n.args, Log: n.log})
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.process = p
	n.mu.Unlock()
	n.network.report(p, func() bool { return n.running() == p })
	return nil
}

// awaitState waits until lnd's wallet has reached the state want.
func (n *Node) awaitState(ctx context.Context, want lnrpc.WalletState) error {
	p := n.running()
	if p == nil {
		return fmt.Errorf("the %s node is stopped", n.Name)
	}
	return until(ctx, fmt.Sprintf("the %s node reaches %s", n.Name, want), p, func(ctx context.Context) error {
		conn, err := n.bare()
		if err != nil {
			return err // lnd has written no certificate yet
		}
		defer conn.Close()
		state, err := lnrpc.NewStateClient(conn).GetState(ctx, &lnrpc.GetStateRequest{})
		if err != nil {
			return err
		}
		if state.State != want {
			return fmt.Errorf("it is at %s", state.State)
		}
		return nil
	})
}

// bare connects to the node without a macaroon. This works before the node has a wallet.
func (n *Node) bare() (*grpc.ClientConn, error) {
	cert, err := os.ReadFile(n.TLSCertPath)
	if err != nil {
		return nil, err
	}
	return lightning.Connect(lightning.Config{Address: n.GRPC, TLSCert: cert})
}

// connect opens the network's own connection to the node. The connection has all rights.
func (n *Node) connect() error {
	cfg, err := n.AdminConfig()
	if err != nil {
		return err
	}
	conn, err := lightning.Connect(cfg)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.conn = conn
	n.mu.Unlock()
	return nil
}

// rpc returns clients of lnd's services that use the network's own connection.
func (n *Node) rpc() (lnrpc.LightningClient, routerrpc.RouterClient) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return lnrpc.NewLightningClient(n.conn), routerrpc.NewRouterClient(n.conn)
}
