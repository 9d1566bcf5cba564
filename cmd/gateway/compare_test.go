package main

import (
	"bytes"
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/internal/store/sqlite"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// fakeNode is an lnd that knows which invoices were paid.
type fakeNode struct {
	mu   sync.Mutex
	list []lightning.SettledInvoice
	made map[l402.PaymentHash]time.Time
}

const fakeKey = "02aaaaaaaaaaaaaaaaaa"

func (f *fakeNode) NodeKey(context.Context) (string, error) { return fakeKey, nil }

func (f *fakeNode) SettledSince(_ context.Context, since time.Time, fn func(lightning.SettledInvoice) error) error {
	f.mu.Lock()
	list := f.list
	f.mu.Unlock()
	for _, inv := range list {
		f.mu.Lock()
		recent := !f.made[inv.Hash].Before(since)
		f.mu.Unlock()
		if recent {
			if err := fn(inv); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fakeNode) Settled(_ context.Context, h l402.PaymentHash) (lightning.SettledInvoice, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, inv := range f.list {
		if inv.Hash == h {
			return inv, true, nil
		}
	}
	return lightning.SettledInvoice{}, false, nil
}

// booth sells credit. It has a node, a ledger and the parts between them.
type booth struct {
	t      *testing.T
	path   string // path of the database
	node   *fakeNode
	ledger *metering.Ledger
	keys   *l402.Keyring
}

func newBooth(t *testing.T) *booth {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	db, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	b := &booth{t: t, path: path, node: &fakeNode{made: make(map[l402.PaymentHash]time.Time)}}
	if b.ledger, err = metering.Open(t.Context(), metering.Config{Store: db, AuditEvery: -1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.ledger.Close(context.Background()); err != nil {
			t.Error(err)
		}
		db.Close()
	})
	b.keys, err = l402.NewKeyring(b.ledger.ID(), []l402.MasterKey{{ID: "k", State: l402.KeyMint, Secret: [32]byte{1}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pay settles an invoice of the ledger at the node, at the given time.
func (b *booth) pay(account l402.TokenID, amount l402.Msat, at time.Time) metering.Settled {
	hash := l402.NewPreimage().Hash()
	b.node.mu.Lock()
	defer b.node.mu.Unlock()
	b.node.made[hash] = at
	b.node.list = append(b.node.list, lightning.SettledInvoice{Hash: hash, Amount: amount, Paid: amount, At: at.Truncate(time.Second),
		Memo: "credit " + b.keys.SealMemo(account, hash, amount), SettleIndex: uint64(len(b.node.list) + 1)})
	return metering.Settled{Deposit: metering.Deposit{Hash: hash, Account: account, Amount: amount}, Node: fakeKey, At: at.Truncate(time.Second)}
}

func (b *booth) credit(s metering.Settled) {
	b.t.Helper()
	if _, err := b.ledger.CreditSettled(b.t.Context(), s); err != nil {
		b.t.Error(err)
	}
}

func (b *booth) compare(sealed int64) (differences int, text string) {
	b.t.Helper()
	var out bytes.Buffer
	c := &comparison{out: &out, ledger: b.ledger.Reader, node: b.node, keys: b.keys, expiry: time.Minute, wait: time.Second}
	if err := c.run(b.t.Context(), sealed); err != nil {
		b.t.Fatal(err)
	}
	return c.differences, out.String()
}

// TestCompareBesideTopUps checks that payments which settle and are credited during the comparison
// are not differences, whether the stream or a presentation credits them first.
func TestCompareBesideTopUps(t *testing.T) {
	b := newBooth(t)
	working, stop := context.WithCancel(t.Context())
	var top sync.WaitGroup
	for i := range 4 {
		top.Go(func() {
			for working.Err() == nil {
				s := b.pay(l402.NewTokenID(), 1000, time.Now())
				if i%2 == 0 {
					if _, err := b.ledger.Deposit(t.Context(), s.Deposit); err != nil {
						t.Error(err)
					}
				}
				b.credit(s)
			}
		})
	}
	for range 20 {
		if n, text := b.compare(0); n != 0 {
			t.Errorf("%d differences:\n%s", n, text)
		}
		if n, text := b.compare(time.Now().UnixMicro()); n != 0 {
			t.Errorf("since a seal: %d differences:\n%s", n, text)
		}
	}
	stop()
	top.Wait()
}

// TestCompareFindsDifferences checks that each kind of difference is found. Differences before a
// seal are found only when everything is compared.
func TestCompareFindsDifferences(t *testing.T) {
	b := newBooth(t)
	long := time.Now().Add(-90 * 24 * time.Hour)
	account := l402.NewTokenID()
	b.credit(b.pay(account, 700, long))
	forged := metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: account, Amount: 5000}
	uncredited := b.pay(account, 900, long)
	less := b.pay(account, 800, time.Now().Add(-time.Hour))
	less.Amount = 300
	b.credit(less)
	b.node.list = append(b.node.list, lightning.SettledInvoice{Hash: l402.NewPreimage().Hash(), Amount: 1, Paid: 1, At: long, Memo: "coffee"})
	more := metering.Settled{Deposit: metering.Deposit{Hash: l402.NewPreimage().Hash(), Account: account, Amount: 60}, Node: "03bb", At: time.Now()}
	b.credit(more) // this payment went to a node that was replaced
	n, text := b.compare(time.Now().UnixMicro())
	if n != 1 || !strings.Contains(text, less.Hash.String()) || !strings.Contains(text, "not compared: 60 msat") {
		t.Errorf("since a seal: %d differences:\n%s", n, text)
	}
	if _, err := b.ledger.Deposit(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	n, text = b.compareAll()
	if n != 3 {
		t.Errorf("%d differences:\n%s", n, text)
	}
	for _, want := range []string{forged.Hash.String() + ": the ledger credited 5000 msat that lnd never received",
		uncredited.Hash.String() + ": lnd received 900 msat that the ledger has not credited",
		less.Hash.String() + ": lnd received 800 msat, the ledger credited 300"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("what was just presented was not waited for: %s", took)
	}
}

// TestCompareFindsOwed checks that a debt is found. Only lnd knows what arrived, so no audit of the
// ledger can find it.
func TestCompareFindsOwed(t *testing.T) {
	b := newBooth(t)
	right, wrong := b.pay(l402.NewTokenID(), 700, time.Now()), b.pay(l402.NewTokenID(), 900, time.Now().Add(-time.Hour))
	b.credit(right)
	b.credit(wrong)
	if n, text := b.compareAll(); n != 0 {
		t.Fatalf("%d differences:\n%s", n, text)
	}
	db, err := sql.Open("sqlite", b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "UPDATE deposits SET owed = 1 WHERE hash = ?", wrong.Hash[:]); err != nil {
		t.Fatal(err)
	}
	n, text := b.compareAll()
	if want := wrong.Hash.String() + ": lnd received 900 msat, the ledger credited 900, and says that 1 of them are owed"; n != 1 || !strings.Contains(text, want) {
		t.Errorf("%d differences, and not %q:\n%s", n, want, text)
	}
}

// compareAll compares everything since the beginning.
func (b *booth) compareAll() (int, string) {
	for h := range b.node.made {
		b.node.made[h] = time.Now()
	}
	return b.compare(0)
}
