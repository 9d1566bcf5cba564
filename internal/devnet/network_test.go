package devnet_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.example/sluice/internal/devnet"
	"sluice.example/sluice/internal/devnet/devnettest"
	"sluice.example/sluice/internal/lightning"
)

// TestNetwork runs all its checks on one network, because each network takes ten seconds to start.
func TestNetwork(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	begin := time.Now()
	n, err := devnet.Start(ctx, devnet.Config{Dir: dir, Out: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Stop()
	t.Logf("up after %s", time.Since(begin))

	agent, gateway := devnettest.Wallet(t, n.Agent), devnettest.Wallet(t, n.Gateway)
	seller := devnettest.Seller(t, n)

	t.Run("money on both sides and no settled invoice", func(t *testing.T) {
		a, err := agent.Balance(ctx)
		if err != nil {
			t.Fatal(err)
		}
		g, err := gateway.Balance(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if a.Local < 69_000_000_000 || g.Local != 30_000_000_000 || a.Remote != g.Local {
			t.Errorf("agent %+v, gateway %+v", a, g)
		}
		err = gateway.SettledSince(ctx, time.Time{}, func(s lightning.SettledInvoice) error {
			t.Errorf("the gateway's node starts with a settled invoice: %+v", s)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("the seller's macaroon sells and does no more", func(t *testing.T) {
		if err := seller.Ready(ctx); err != nil {
			t.Error(err)
		}
		if _, err := seller.Balance(ctx); !errors.Is(err, lightning.ErrDenied) {
			t.Errorf("balance with the selling macaroon: %v", err)
		}
	})
	t.Run("files are private", func(t *testing.T) { checkModes(t, filepath.Join(dir, "lightning")) })
	t.Run("a second network keeps away", func(t *testing.T) {
		_, err := devnet.Start(ctx, devnet.Config{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "another network runs") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a node stops and starts", func(t *testing.T) {
		both := []*devnet.Node{n.Gateway, n.Agent}
		for _, node := range both {
			if err := node.Stop(); err != nil {
				t.Fatal(err)
			}
		}
		if pids := n.Pids(); len(pids) != 1 || pids["btcd"] == 0 {
			t.Errorf("with both nodes stopped there run %v", pids)
		}
		for _, node := range both {
			if err := node.Start(ctx); err != nil {
				t.Fatal(err)
			}
		}
		pay(t, seller, agent)
	})
	t.Run("a killed daemon is reported", func(t *testing.T) {
		select {
		case err := <-n.Failed():
			t.Fatalf("stopping a node counted as a failure: %v", err)
		default:
		}
		if err := syscall.Kill(n.Agent.Pid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-n.Failed():
			if !strings.Contains(err.Error(), "lnd (agent)") || !strings.Contains(err.Error(), "killed") {
				t.Errorf("got %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("nothing reported")
		}
	})
	begin = time.Now()
	if err := n.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("stopped in %s", time.Since(begin))
	if pid := n.Gateway.Pid(); pid != 0 {
		t.Errorf("the gateway's node still has pid %d", pid)
	}
}

func checkModes(t *testing.T, root string) {
	info, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("%s has mode %o", root, info.Mode().Perm())
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		secret := strings.HasSuffix(path, ".macaroon") || strings.HasSuffix(path, ".conf") || strings.HasSuffix(path, "password")
		info, err := d.Info()
		if err == nil && secret && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// pay pays a new invoice of the seller from the buyer's node.
func pay(t *testing.T, seller, buyer *lightning.Client) {
	t.Helper()
	bolt11, hash, err := seller.PlainInvoice(t.Context(), 5_000, "test")
	if err != nil {
		t.Fatal(err)
	}
	p, err := buyer.Pay(t.Context(), bolt11, 0, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if p.Hash != hash || p.Preimage.Hash() != hash || p.Amount != 5_000 || p.Fee != 0 {
		t.Errorf("paid %+v for %s", p, hash)
	}
}

func TestStartRefusesForeignFolder(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "lightning")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(own, "wallet.db")
	if err := os.WriteFile(precious, []byte("money"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := devnet.Start(t.Context(), devnet.Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "no network's") {
		t.Fatalf("got %v", err)
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "money" {
		t.Errorf("the folder was touched: %q, %v", b, err)
	}
}

func TestStartStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	out := &trigger{word: "btcd (pid", pull: cancel}
	_, err := devnet.Start(ctx, devnet.Config{Dir: dir, Out: out})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	// The lock of the folder is free, and the folder is that of an earlier network.
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := devnet.Start(ctx, devnet.Config{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

// trigger is a writer that calls pull when word is written to it.
type trigger struct {
	word string
	pull func()
}

func (w *trigger) Write(b []byte) (int, error) {
	if strings.Contains(string(b), w.word) {
		w.pull()
	}
	return len(b), nil
}
