package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// envChild names the variable that makes this test binary serve a ledger until it is killed.
const envChild = "SLUICE_TEST_LEDGER"

func TestMain(m *testing.M) {
	if path := os.Getenv(envChild); path != "" {
		if err := serve(path); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve reserves and settles until it is killed, and prints what was settled.
func serve(path string) error {
	ctx := context.Background()
	db, err := sqlite.Open(ctx, path)
	if err != nil {
		return err
	}
	l, err := metering.Open(ctx, metering.Config{Store: db})
	if err != nil {
		return err
	}
	id := l402.NewTokenID()
	if _, err := l.Deposit(ctx, metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: id, Amount: 1e9}); err != nil {
		return err
	}
	fmt.Println("account", id)
	for range 32 {
		go func() {
			for {
				h, err := l.Reserve(ctx, metering.Reservation{ID: metering.NewHoldID(), Account: id, Amount: 100, Rates: pricing.Rates{pricing.Calls: 1}})
				if err != nil {
					return
				}
				h.Progress(pricing.Units{pricing.Calls: 5}, metering.SourceRunning)
				if _, err := h.Settle(ctx, metering.Settlement{Usage: pricing.Units{pricing.Calls: 7}}); err != nil {
					return
				}
				fmt.Println("settled", h.ID())
			}
		}()
	}
	select {}
}

// TestKill checks that acknowledged settlements survive kill -9, that open holds are swept, and that the lock ends with
// the process.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), envChild+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })

	var account l402.TokenID
	settled := map[metering.HoldID]bool{}
	refused := false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		what, value, _ := strings.Cut(lines.Text(), " ")
		switch what {
		case "account":
			if account, err = l402.ParseTokenID(value); err != nil {
				t.Fatal(err)
			}
			if _, err := sqlite.Open(context.Background(), path); err == nil || !strings.Contains(err.Error(), "another process") {
				t.Errorf("a second process opened the ledger: %v", err)
			}
			refused = true
		case "settled":
			id, err := metering.ParseHoldID(value)
			if err != nil {
				break // the last line, which was cut
			}
			settled[id] = true
		default:
			t.Fatal(lines.Text())
		}
		if len(settled) == 2000 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(settled) < 2000 || !refused {
		t.Fatalf("the child ended after %d settlements", len(settled))
	}

	db, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// The child's lease of 15 s runs out by the clock of this test.
	passed := time.Duration(0)
	l, err := metering.Open(context.Background(), metering.Config{Store: db, SweepEvery: time.Hour,
		Now: func() time.Time { return time.Now().Add(passed) }})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	for id := range settled {
		if c, found, err := db.Charge(context.Background(), id); err != nil || !found || c.Charged != 7 {
			t.Fatalf("settlement %s was answered and lost: %v, %v", id, found, err)
		}
	}
	for ; passed < 20*time.Second; passed += 4 * time.Second {
		if _, err := l.Sweep(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := l.Balance(context.Background(), account, nil)
	if err != nil || b.Held != 0 || b.Charged < l402.Msat(7*len(settled)) || b.Available+b.Charged != 1e9 {
		t.Errorf("balance: %+v, %v", b, err)
	}
	if r, err := l.Audit(context.Background()); err != nil || !r.OK() {
		t.Errorf("audit: %q, %v", r.Mismatches, err)
	}
}

// TestReader checks that verify-ledger can read while a gateway serves, and afterwards.
func TestReader(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "ledger.db")
	if _, err := sqlite.OpenReader(ctx, path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("read a ledger that does not exist: %v", err)
	}
	db := open(t, path)
	l, err := metering.Open(ctx, metering.Config{Store: db})
	if err != nil {
		t.Fatal(err)
	}
	id := l402.NewTokenID()
	look := func(want l402.Msat) {
		t.Helper()
		rdb, err := sqlite.OpenReader(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		defer rdb.Close()
		r, err := metering.NewReader(ctx, rdb)
		if err != nil {
			t.Fatal(err)
		}
		report, err := r.Audit(ctx)
		if err != nil || !report.OK() || report.Deposited != want || r.ID() != l.ID() {
			t.Errorf("audit: %+v, %v", report, err)
		}
		if err := rdb.Apply(ctx, &metering.Batch{}, func() {}); err == nil {
			t.Error("a reader wrote")
		}
	}
	for i := range 3 {
		if _, err := l.Deposit(ctx, metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: id, Amount: 10}); err != nil {
			t.Fatal(err)
		}
		look(l402.Msat(10 * (i + 1)))
	}
	if err := errors.Join(l.Close(ctx), db.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	look(30)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again := open(t, path) // the file can be served again
	if got, _, err := again.Meta(ctx); err != nil || got != l.ID() {
		t.Errorf("id %v, %v", got, err)
	}
	if _, err := db.Charges(ctx, id, l402.ChainID{}, metering.NewHoldID(), 1); err == nil {
		t.Error("read from a closed store")
	}
}
