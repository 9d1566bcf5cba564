package gateway_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
)

// clock is the gateway's clock. It runs, and the test can move it.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// lockedBuffer collects the log for concurrent use.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// fakeNode makes invoices that are no real invoices, and keeps their preimages. A test "pays" by
// asking it for a preimage.
type fakeNode struct {
	mu       sync.Mutex
	invoices map[string]gateway.Invoice // by the invoice in BOLT11
	down     atomic.Bool
	gate     chan struct{} // if not nil, AddInvoice first receives one element
	takes    time.Duration // how long each AddInvoice takes
}

func newFakeNode() *fakeNode { return &fakeNode{invoices: map[string]gateway.Invoice{}} }

var errNodeAway = errors.New("node is away")

func (n *fakeNode) AddInvoice(ctx context.Context, invoice gateway.Invoice) (string, error) {
	if n.down.Load() {
		return "", errNodeAway
	}
	if n.gate != nil {
		select {
		case <-n.gate:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	if n.takes > 0 {
		time.Sleep(n.takes)
	}
	hash := invoice.Preimage.Hash()
	bolt11 := fmt.Sprintf("lnbcrt%dn1p%s", int64(invoice.Amount)/100, hash)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.invoices[bolt11] = invoice
	return bolt11, nil
}

func (n *fakeNode) Ready(context.Context) error {
	if n.down.Load() {
		return errNodeAway
	}
	return nil
}

func (n *fakeNode) pay(t testing.TB, bolt11 string) gateway.Invoice {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	invoice, ok := n.invoices[bolt11]
	if !ok {
		t.Fatalf("the node never made the invoice %q", bolt11)
	}
	return invoice
}

func (n *fakeNode) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.invoices)
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// selfSigned writes a self-signed certificate and its key to files of the test.
func selfSigned(t testing.TB) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
