package lightning_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"gopkg.in/macaroon.v2"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

const fakeNode = "02fake"

// fakeLND behaves towards subscribers as lnd is documented to behave. A test can also choose what a
// real lnd does rarely: the order of a replay, broken subscriptions, and events between two calls.
type fakeLND struct {
	lnrpc.UnimplementedLightningServer

	replay      func([]*lnrpc.Invoice)                      // changes the order of a replay
	breakAfter  int                                         // events that a subscription sends before it breaks
	onSubscribe func(*lnrpc.InvoiceSubscription)            // before lnd serves a subscription
	onList      func(call int, _ *lnrpc.ListInvoiceRequest) // before lnd serves a listing

	mu       sync.Mutex
	life     byte             // number of times that the node was rebuilt
	invoices []*lnrpc.Invoice // by add index; an element is replaced, but never changed
	breaks   int              // number of the first subscriptions that break
	live     map[*subscriber]bool
	calls    []string // the calls that it received, in order
	listed   int      // number of listings that were answered
}

// subscriber is one subscription. fakeLND.mu guards it.
type subscriber struct {
	events      chan *lnrpc.Invoice
	gone        chan struct{}
	add, settle uint64 // the subscriber gets no event up to these indexes
}

func (f *fakeLND) GetInfo(context.Context, *lnrpc.GetInfoRequest) (*lnrpc.GetInfoResponse, error) {
	return &lnrpc.GetInfoResponse{IdentityPubkey: fakeNode}, nil
}

func (f *fakeLND) AddInvoice(_ context.Context, inv *lnrpc.Invoice) (*lnrpc.AddInvoiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "add")
	hash := sha256.Sum256(inv.RPreimage)
	added := f.append(&lnrpc.Invoice{RHash: hash[:], Memo: inv.Memo, ValueMsat: inv.ValueMsat})
	return &lnrpc.AddInvoiceResponse{RHash: hash[:], AddIndex: added.AddIndex}, nil
}

// append adds an invoice and sends it to the subscribers. The caller holds f.mu.
func (f *fakeLND) append(inv *lnrpc.Invoice) *lnrpc.Invoice {
	inv.AddIndex = uint64(len(f.invoices) + 1)
	if inv.CreationDate == 0 {
		inv.CreationDate = time.Now().Unix()
	}
	f.invoices = append(f.invoices, inv)
	f.tell(inv)
	return inv
}

// tell does what lnd's InvoiceRegistry.dispatchToClients does.
func (f *fakeLND) tell(inv *lnrpc.Invoice) {
	for s := range f.live {
		switch {
		case inv.IsAmp:
		case inv.State == lnrpc.Invoice_SETTLED:
			if inv.SettleIndex <= s.settle {
				continue
			}
			s.settle = inv.SettleIndex
		case inv.AddIndex <= s.add:
			continue
		}
		s.events <- inv
	}
}

// open adds an unpaid invoice and returns a function that settles it.
func (f *fakeLND) open() (hash l402.PaymentHash, settle func(index uint64)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hash = sha256.Sum256(binary.BigEndian.AppendUint64([]byte{'o', f.life}, uint64(len(f.invoices))))
	added := f.append(&lnrpc.Invoice{RHash: hash[:], ValueMsat: 1000})
	return hash, func(index uint64) {
		f.mu.Lock()
		defer f.mu.Unlock()
		inv := proto.Clone(added).(*lnrpc.Invoice)
		inv.State, inv.SettleIndex, inv.AmtPaidMsat = lnrpc.Invoice_SETTLED, index, 1000
		f.invoices[inv.AddIndex-1] = inv
		f.tell(inv)
	}
}

// unpaid adds invoices that nobody pays.
func (f *fakeLND) unpaid(n int) {
	for range n {
		f.open()
	}
}

// await polls until ok returns true. ok is called with f.mu held. await runs in the server, where
// it cannot end the test.
func (f *fakeLND) await(t *testing.T, ok func() bool) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		done := ok()
		f.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Error("lnd was not asked within ten seconds")
			return
		}
	}
}

// settled adds an invoice that is already settled and returns its hash.
func (f *fakeLND) settled(index uint64, change func(*lnrpc.Invoice)) l402.PaymentHash {
	f.mu.Lock()
	defer f.mu.Unlock()
	hash := f.hash(index)
	inv := &lnrpc.Invoice{
		RHash: hash[:], ValueMsat: 1000, AmtPaidMsat: 1000,
		State: lnrpc.Invoice_SETTLED, SettleIndex: index, SettleDate: time.Now().Unix(),
	}
	if change != nil {
		change(inv)
	}
	f.append(inv)
	return hash
}

// hash returns the hash of the invoice that settled makes with the index.
func (f *fakeLND) hash(index uint64) l402.PaymentHash {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte{f.life}, index))
}

// cursor returns the cursor of a ledger that has processed everything up to index.
func (f *fakeLND) cursor(index uint64) lightning.Cursor {
	return lightning.Cursor{Index: index, Hash: f.hash(index)}
}

// rebuild ends all subscriptions and forgets all invoices.
func (f *fakeLND) rebuild() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life++
	f.invoices = nil
	f.hangUp()
}

// hangUp ends all subscriptions. The caller holds f.mu.
func (f *fakeLND) hangUp() {
	for s := range f.live {
		close(s.gone)
	}
	f.live = nil
}

// asked returns the calls received so far and clears the list.
func (f *fakeLND) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *fakeLND) LookupInvoice(_ context.Context, req *lnrpc.PaymentHash) (*lnrpc.Invoice, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, inv := range f.invoices {
		if bytes.Equal(inv.RHash, req.RHash) {
			return inv, nil
		}
	}
	return nil, status.Error(codes.NotFound, "unable to locate invoice")
}

func (f *fakeLND) ListInvoices(_ context.Context, req *lnrpc.ListInvoiceRequest) (*lnrpc.ListInvoiceResponse, error) {
	f.mu.Lock()
	f.calls = append(f.calls, "list")
	call := 0
	for _, name := range f.calls {
		if name == "list" {
			call++
		}
	}
	hook := f.onList
	f.mu.Unlock()
	if hook != nil {
		hook(call, req)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !req.Reversed || req.CreationDateStart != 0 {
		return nil, status.Error(codes.Unimplemented, "the fake lists backwards only")
	}
	f.listed++
	answer := &lnrpc.ListInvoiceResponse{}
	for _, inv := range slices.Backward(f.invoices) {
		below := req.IndexOffset == 0 || inv.AddIndex < req.IndexOffset
		if below && uint64(len(answer.Invoices)) < req.NumMaxInvoices {
			answer.Invoices = append(answer.Invoices, inv)
			answer.FirstIndexOffset = inv.AddIndex
		}
	}
	slices.Reverse(answer.Invoices)
	return answer, nil
}

// backlog returns what lnd replays. An AMP invoice comes once for each paid set.
func (f *fakeLND) backlog(settle uint64) (all []*lnrpc.Invoice) {
	if settle == 0 {
		return nil
	}
	for _, inv := range f.invoices {
		if inv.SettleIndex > settle {
			all = append(all, inv)
		}
		for _, set := range inv.AmpInvoiceState {
			if set.SettleIndex > settle {
				all = append(all, inv)
			}
		}
	}
	if f.replay != nil {
		f.replay(all)
	}
	return all
}

func (f *fakeLND) SubscribeInvoices(
	req *lnrpc.InvoiceSubscription, stream lnrpc.Lightning_SubscribeInvoicesServer,
) error {
	if f.onSubscribe != nil {
		f.onSubscribe(req)
	}
	f.mu.Lock()
	f.calls = append(f.calls, fmt.Sprint("subscribe ", req.SettleIndex))
	limit := 0
	if f.breaks > 0 {
		f.breaks--
		limit = f.breakAfter
	}
	s := &subscriber{
		events: make(chan *lnrpc.Invoice, 10_000), gone: make(chan struct{}), add: req.AddIndex, settle: req.SettleIndex,
	}
	for _, inv := range f.backlog(req.SettleIndex) {
		s.events <- inv
	}
	if f.live == nil {
		f.live = make(map[*subscriber]bool)
	}
	f.live[s] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.live, s)
		f.mu.Unlock()
	}()
	for sent := 0; ; {
		select {
		case inv := <-s.events:
			if err := stream.Send(inv); err != nil {
				return err
			}
			if sent++; sent == limit {
				return nil
			}
		case <-s.gone:
			return nil
		case <-stream.Context().Done():
			return nil
		}
	}
}

// serve runs the fake on the loopback and returns a client with short waiting times.
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
	c, err := lightning.Dial(lightning.Config{
		Address: listener.Addr().String(), TLSCert: certPEM, Macaroon: someMacaroon(t),
		Timeout: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
	})
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
