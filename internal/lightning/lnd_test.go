package lightning_test

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"

	"sluice.example/sluice/internal/devnet"
	"sluice.example/sluice/internal/devnet/devnettest"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
)

var network devnettest.Shared

func TestMain(m *testing.M) { os.Exit(network.Main(m)) }

// TestRealNode runs against one network, in this order: the first parts need a
// node that never had an invoice.
func TestRealNode(t *testing.T) {
	n := network.Start(t)
	w := world{n: n, seller: devnettest.Seller(t, n), buyer: devnettest.Wallet(t, n.Agent)}
	t.Run("a node without invoices tells its key", w.emptyNode)
	t.Run("down at the very first settlement", w.firstSettlement)
	t.Run("an invoice says what was asked for", w.invoice)
	t.Run("resume from the cursor", w.resume)
	t.Run("a node is rebuilt from its seed and settles more", w.rebuilt)
	t.Run("a cursor beyond the node's history", w.regress)
	t.Run("joining amid payments", w.joinAmidPayments)
	t.Run("overpaid", w.overpaid)
	t.Run("the store is away", w.storeAway)
	t.Run("pay", w.pay)
	t.Run("the wallet's node is stopped amid a payment", w.payerAway)
	t.Run("lnd stops and starts", w.restart)
	t.Run("macaroons that do not do", w.denied)
}

type world struct {
	n             *devnet.Network
	seller, buyer *lightning.Client
}

// poor connects with lnd's own invoice macaroon, which has no info:read.
func (w world) poor(t *testing.T) *lightning.Client {
	cfg, err := w.n.Gateway.SellerConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Macaroon, err = os.ReadFile(filepath.Join(filepath.Dir(w.n.Gateway.AdminMacaroonPath), "invoice.macaroon"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := lightning.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// settle sells and pays one invoice.
func (w world) settle(t *testing.T, amount l402.Msat) l402.PaymentHash {
	t.Helper()
	invoice, hash, err := w.seller.PlainInvoice(t.Context(), amount, "test "+amount.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.buyer.Pay(t.Context(), invoice, 0, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	return hash
}

func (w world) emptyNode(t *testing.T) {
	c, sink := w.poor(t), newLedger()
	if _, err := c.Info(t.Context()); !errors.Is(err, lightning.ErrDenied) {
		t.Fatalf("info with lnd's invoice macaroon: %v", err)
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Errorf("ready with lnd's invoice macaroon: %v", err)
	}
	stop := watch(t, c, sink)
	eventually(t, "Watch is live on an empty node", live(c))
	stop()
	if len(sink.all()) != 0 {
		t.Errorf("an empty node has settled invoices: %+v", sink.all())
	}
}

func (w world) firstSettlement(t *testing.T) {
	sink := newLedger()
	hash := w.settle(t, 1_000) // nobody watches
	c := w.poor(t)
	watch(t, c, sink)
	sink.has(t, hash)
	got := sink.get(hash)
	if got.Node != w.n.Gateway.PubKey || got.SettleIndex != 1 || got.Cursor.Index != 0 || got.Paid != 1_000 || got.Amount != 1_000 {
		t.Errorf("got %+v, want node %s", got, w.n.Gateway.PubKey)
	}
	eventually(t, "Watch is live", live(c))
	if got := sink.cursor(got.Node); got != (lightning.Cursor{Index: 1, Hash: hash}) {
		t.Errorf("after the listing the cursor is %v", got)
	}
	second := w.settle(t, 2_000)
	sink.has(t, second)
	want := lightning.Cursor{Index: 2, Hash: second}
	if got := sink.get(second); got.Cursor != want || got.SettleIndex != 2 || sink.cursor(got.Node) != want {
		t.Errorf("got %+v and cursor %v", got, sink.cursor(got.Node))
	}
}

func (w world) invoice(t *testing.T) {
	preimage, memo := l402.NewPreimage(), "Sluice: prepaid inference c2VhbGVk-_"
	invoice, err := w.seller.AddInvoice(t.Context(), lightning.Invoice{Preimage: preimage, Amount: 123_456, Memo: memo, Expiry: 7 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	inv, err := bolt11.Decode(invoice)
	if err != nil {
		t.Fatal(err)
	}
	if inv.Network != bolt11.Regtest || inv.Hash != preimage.Hash() || inv.Amount != 123_456 || inv.Description != memo || inv.ExpiresAt.Sub(inv.At) != 7*time.Minute {
		t.Errorf("invoice %s: %+v", invoice, inv)
	}
	bad := []lightning.Invoice{
		{Preimage: preimage, Amount: 0, Expiry: time.Hour},
		{Preimage: preimage, Amount: -1, Expiry: time.Hour},
		{Preimage: preimage, Amount: l402.MaxMsat + 1, Expiry: time.Hour},
		{Preimage: preimage, Amount: 1, Expiry: time.Millisecond},
		{Preimage: preimage, Amount: 1, Expiry: time.Hour, Memo: strings.Repeat("x", 1025)},
		{Preimage: preimage, Amount: 1, Expiry: time.Hour}, // the hash exists already
	}
	for _, inv := range bad {
		if _, err := w.seller.AddInvoice(t.Context(), inv); err == nil || errors.Is(err, lightning.ErrUnavailable) {
			t.Errorf("%+v: %v", inv, err)
		}
	}
}

func (w world) resume(t *testing.T) {
	sink := newLedger()
	sink.cursors[w.n.Gateway.PubKey] = w.cursorAt(t, 2)
	hashes := []l402.PaymentHash{w.settle(t, 3_000), w.settle(t, 4_000), w.settle(t, 5_000)}
	stop := watch(t, w.seller, sink)
	sink.has(t, hashes...)
	for i, inv := range sink.all()[1:] { // the first is the cursor's own
		want := lightning.Cursor{Index: uint64(i + 3), Hash: hashes[i]}
		if inv.SettleIndex != want.Index || inv.Cursor != want {
			t.Errorf("invoice %d: %+v", i, inv)
		}
	}
	if ok, since := w.seller.Watching(); !ok || !since.IsZero() {
		t.Errorf("live %v; the history goes on, and the stream is said to show all since %s", ok, since)
	}
	stop()
	// And once more from there, with something new meanwhile.
	hash := w.settle(t, 6_000)
	watch(t, w.seller, sink)
	sink.has(t, hash)
	if got := sink.cursor(w.n.Gateway.PubKey); got != (lightning.Cursor{Index: 6, Hash: hash}) {
		t.Errorf("cursor %v", got)
	}
}

// joinAmidPayments starts watchers without a cursor while invoices settle one
// after the other: between subscribing and listing, none may be lost.
func (w world) joinAmidPayments(t *testing.T) {
	var sinks []*ledger
	var all []l402.PaymentHash
	for i := range 24 {
		sink := newLedger()
		sinks = append(sinks, sink)
		watch(t, w.poor(t), sink)
		all = append(all, w.settle(t, l402.Msat(10_000+i)))
	}
	for _, sink := range sinks {
		sink.has(t, all...)
	}
}

// overpaid pays more than was asked for, as a payer's wallet may.
func (w world) overpaid(t *testing.T) {
	sink := newLedger()
	watch(t, w.seller, sink)
	invoice, hash, err := w.seller.PlainInvoice(t.Context(), 20_000, "overpaid")
	if err != nil {
		t.Fatal(err)
	}
	inv, err := bolt11.Decode(invoice)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := w.n.Agent.AdminConfig()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := lightning.Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	dest, err := hex.DecodeString(inv.Payee)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := routerrpc.NewRouterClient(conn).SendPaymentV2(t.Context(), &routerrpc.SendPaymentRequest{
		Dest: dest, AmtMsat: 33_333, PaymentHash: hash[:], PaymentAddr: inv.Secret[:],
		FinalCltvDelta: int32(inv.FinalCLTV), TimeoutSeconds: 10, NoInflightUpdates: true,
		DestFeatures: []lnrpc.FeatureBit{lnrpc.FeatureBit_TLV_ONION_OPT, lnrpc.FeatureBit_PAYMENT_ADDR_REQ},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := stream.Recv(); err != nil || p.Status != lnrpc.Payment_SUCCEEDED {
		t.Fatalf("%v, %v", p, err)
	}
	sink.has(t, hash)
	if got := sink.get(hash); got.Amount != 20_000 || got.Paid != 33_333 || got.Memo != "overpaid" {
		t.Errorf("got %+v", got)
	}
}

func (w world) storeAway(t *testing.T) {
	sink := newLedger()
	sink.fail = 3
	c := devnettest.Seller(t, w.n)
	c.Hurry(time.Millisecond, 10*time.Millisecond, time.Second, time.Second)
	watch(t, c, sink)
	sink.has(t, w.settle(t, 9_000))
	seen := 0
	err := c.SettledSince(t.Context(), sink.born, func(inv lightning.SettledInvoice) error {
		seen++
		sink.has(t, inv.Hash)
		return nil
	})
	if err != nil || seen < 20 {
		t.Errorf("listed %d, %v", seen, err)
	}
	stop := errors.New("enough")
	if err := c.SettledSince(t.Context(), sink.born, func(lightning.SettledInvoice) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("listing went on after an error: %v", err)
	}
	later := 0
	err = c.SettledSince(t.Context(), time.Now().Add(3*time.Hour), func(lightning.SettledInvoice) error { later++; return nil })
	if err != nil || later != 0 {
		t.Errorf("listed %d of the future, %v", later, err)
	}
}

func (w world) restart(t *testing.T) {
	ctx := t.Context()
	sink := newLedger()
	c := devnettest.Seller(t, w.n)
	c.Hurry(50*time.Millisecond, time.Second, 5*time.Second, time.Second)
	watch(t, c, sink)
	eventually(t, "Watch is live", live(c))
	before := w.settle(t, 12_000)
	sink.has(t, before)
	if err := w.n.Gateway.Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Watch notices", func() bool { return !live(c)() })
	_, err := c.AddInvoice(ctx, lightning.Invoice{Preimage: l402.NewPreimage(), Amount: 1, Expiry: time.Hour})
	if !errors.Is(err, lightning.ErrUnavailable) {
		t.Errorf("an invoice while lnd is away: %v", err)
	}
	eventually(t, "readiness notices", func() bool { return errors.Is(c.Ready(ctx), lightning.ErrUnavailable) })
	started, asked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		askAllTheWhile(t, w.seller, started)
	}()
	err = w.n.Gateway.Start(ctx)
	close(started)
	<-asked
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "readiness returns", func() bool { return c.Ready(ctx) == nil })
	eventually(t, "Watch is live again", live(c))
	eventually(t, "lnd takes invoices again", func() bool {
		_, err := w.seller.AddInvoice(ctx, lightning.Invoice{Preimage: l402.NewPreimage(), Amount: 1, Expiry: time.Hour})
		return err == nil
	})
	sink.has(t, w.settle(t, 13_000))

	if err := w.n.Agent.Stop(); err != nil {
		t.Fatal(err)
	}
	invoice, _, err := w.seller.PlainInvoice(ctx, 1_000, "payer away")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.buyer.Pay(ctx, invoice, 0, time.Second); !errors.Is(err, lightning.ErrPaymentUnknown) {
		t.Errorf("paying through an lnd that is away: %v", err)
	}
	if err := w.n.Agent.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// askAllTheWhile asks a starting lnd for invoices: whatever it answers must
// read as unavailable, so that nobody takes it for a fault of the operator's.
func askAllTheWhile(t *testing.T, c *lightning.Client, started <-chan struct{}) {
	for {
		select {
		case <-started:
			return
		case <-time.After(2 * time.Millisecond):
		}
		_, err := c.AddInvoice(t.Context(), lightning.Invoice{Preimage: l402.NewPreimage(), Amount: 1, Expiry: time.Hour})
		if err != nil && !errors.Is(err, lightning.ErrUnavailable) {
			t.Errorf("while lnd starts: %v", err)
		}
	}
}

func (w world) denied(t *testing.T) {
	cfg, err := w.n.Gateway.SellerConfig()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := w.n.Agent.AdminConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Macaroon = foreign.Macaroon // of another lnd
	c, err := lightning.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Ready(t.Context())
	if !errors.Is(err, lightning.ErrDenied) || strings.Contains(err.Error(), hex.EncodeToString(cfg.Macaroon)) {
		t.Errorf("got %v", err)
	}
	cfg.TLSCert = foreign.TLSCert // not this node's
	c, err = lightning.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Ready(t.Context())
	if !errors.Is(err, lightning.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}
