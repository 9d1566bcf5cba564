package lightning_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"gopkg.in/macaroon.v2"

	"sluice/internal/lightning"
	"sluice/l402"
)

// fakeLND keeps lnd's documented behaviour towards subscribers, and lets a test
// choose what a real one does rarely: the order of a replay, and breaks.
type fakeLND struct {
	lnrpc.UnimplementedLightningServer

	mu         sync.Mutex
	invoices   []*lnrpc.Invoice // by add index
	replay     func([]*lnrpc.Invoice)
	breakAfter int // events that a subscription sends before it breaks
	breaks     int // so many subscriptions break, the first ones
	live       []chan *lnrpc.Invoice
}

func (f *fakeLND) GetInfo(context.Context, *lnrpc.GetInfoRequest) (*lnrpc.GetInfoResponse, error) {
	return &lnrpc.GetInfoResponse{IdentityPubkey: "02fake"}, nil
}

func (f *fakeLND) AddInvoice(_ context.Context, inv *lnrpc.Invoice) (*lnrpc.AddInvoiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hash := sha256.Sum256(inv.RPreimage)
	added := f.append(&lnrpc.Invoice{RHash: hash[:], Memo: inv.Memo, ValueMsat: inv.ValueMsat})
	return &lnrpc.AddInvoiceResponse{RHash: hash[:], AddIndex: added.AddIndex}, nil
}

// append adds an invoice and tells the subscribers. f.mu is held.
func (f *fakeLND) append(inv *lnrpc.Invoice) *lnrpc.Invoice {
	inv.AddIndex = uint64(len(f.invoices) + 1)
	inv.CreationDate = time.Now().Unix()
	f.invoices = append(f.invoices, inv)
	for _, ch := range f.live {
		ch <- inv
	}
	return inv
}

// settled adds an invoice that is settled already and returns its hash.
func (f *fakeLND) settled(index uint64, change func(*lnrpc.Invoice)) l402.PaymentHash {
	f.mu.Lock()
	defer f.mu.Unlock()
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(nil, index))
	inv := &lnrpc.Invoice{
		RHash: hash[:], ValueMsat: 1000, AmtPaidMsat: 1000, State: lnrpc.Invoice_SETTLED, SettleIndex: index, SettleDate: time.Now().Unix(),
	}
	if change != nil {
		change(inv)
	}
	f.append(inv)
	return hash
}

func (f *fakeLND) ListInvoices(_ context.Context, req *lnrpc.ListInvoiceRequest) (*lnrpc.ListInvoiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &lnrpc.ListInvoiceResponse{}
	for _, inv := range f.invoices {
		if inv.AddIndex > req.IndexOffset && uint64(len(answer.Invoices)) < req.NumMaxInvoices {
			answer.Invoices = append(answer.Invoices, inv)
			answer.LastIndexOffset = inv.AddIndex
		}
	}
	return answer, nil
}

func (f *fakeLND) SubscribeInvoices(req *lnrpc.InvoiceSubscription, stream lnrpc.Lightning_SubscribeInvoicesServer) error {
	f.mu.Lock()
	limit := 0
	if f.breaks > 0 {
		f.breaks--
		limit = f.breakAfter
	}
	events := make(chan *lnrpc.Invoice, 10_000)
	var backlog []*lnrpc.Invoice
	for _, inv := range f.invoices {
		if req.SettleIndex > 0 && inv.SettleIndex > req.SettleIndex {
			backlog = append(backlog, inv)
		}
	}
	if f.replay != nil {
		f.replay(backlog)
	}
	for _, inv := range backlog {
		events <- inv
	}
	f.live = append(f.live, events)
	f.mu.Unlock()
	for sent := 0; ; {
		select {
		case inv := <-events:
			if inv.State == lnrpc.Invoice_OPEN && !inv.IsAmp && inv.AddIndex <= req.AddIndex {
				continue
			}
			if err := stream.Send(inv); err != nil {
				return err
			}
			if sent++; sent == limit {
				return nil
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

// serve runs the fake on the loopback and returns a client in a hurry.
func serve(t *testing.T, f *fakeLND) *lightning.Client {
	t.Helper()
	cert, certPEM := selfSigned(t)
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	lnrpc.RegisterLightningServer(server, f)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	c, err := lightning.Dial(lightning.Config{Address: listener.Addr().String(), TLSCert: certPEM, Macaroon: someMacaroon(t), Timeout: 5 * time.Second, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.Hurry(time.Millisecond, 20*time.Millisecond, 5*time.Second, 10*time.Second)
	return c
}

func someMacaroon(t *testing.T) []byte {
	t.Helper()
	m, err := macaroon.New([]byte("key"), []byte("id"), "lnd", macaroon.LatestVersion)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func selfSigned(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
