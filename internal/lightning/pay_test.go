package lightning_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402/bolt11"
)

func (w world) pay(t *testing.T) {
	ctx := t.Context()
	invoice, hash, err := w.seller.PlainInvoice(ctx, 42_000, "once")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.buyer.Track(ctx, hash); !errors.Is(err, lightning.ErrPaymentNotFound) {
		t.Errorf("tracking what was never paid: %v", err)
	}
	before, err := w.buyer.Balance(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds the first
		p, err := w.buyer.Pay(ctx, invoice, 0, 10*time.Second)
		if err != nil || p.State != lightning.StateSucceeded || p.Preimage.Hash() != hash || p.Amount != 42_000 || p.Fee != 0 {
			t.Errorf("got %+v, %v", p, err)
		}
	}
	after, err := w.buyer.Balance(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if before.Local-after.Local != 42_000 {
		t.Errorf("the channel moved by %d", before.Local-after.Local)
	}
	if p, err := w.buyer.Track(ctx, hash); err != nil || p.State != lightning.StateSucceeded {
		t.Errorf("got %+v, %v", p, err)
	}
	tooMuch, hash, err := w.seller.PlainInvoice(ctx, 90_000_000_000, "more than the channel has")
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.buyer.Pay(ctx, tooMuch, 0, 5*time.Second)
	var failed *lightning.PaymentError
	if !errors.Is(err, lightning.ErrPaymentFailed) || !errors.As(err, &failed) || p.State != lightning.StateFailed {
		t.Errorf("got %+v, %v", p, err)
	}
	if p, err := w.buyer.Track(ctx, hash); err != nil || p.State != lightning.StateFailed || p.Reason == "" {
		t.Errorf("got %+v, %v", p, err)
	}
	// One's own invoice is refused before there is a payment.
	own, _, err := w.buyer.PlainInvoice(ctx, 1_000, "own")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.buyer.Pay(ctx, own, 0, 5*time.Second); !errors.Is(err, lightning.ErrPaymentFailed) {
		t.Errorf("got %v", err)
	}
	end := "q" // of an invoice whose checksum is wrong
	if strings.HasSuffix(invoice, end) {
		end = "p"
	}
	for _, bad := range []string{"", "lnbc1", "lnxy10n1p", invoice[:len(invoice)-1] + end, "http://example.com"} {
		if _, err := w.buyer.Pay(ctx, bad, 0, time.Second); !errors.Is(err, bolt11.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := w.buyer.Pay(ctx, invoice, -1, time.Second); err == nil {
		t.Error("a negative fee limit passed")
	}
	info, err := w.buyer.Info(ctx)
	if err != nil || info.PubKey != w.n.Agent.PubKey || info.Network != "regtest" || info.Alias != "agent" || !info.Synced {
		t.Errorf("got %+v, %v", info, err)
	}
}

// payerAway ends the caller's patience at once: the outcome must read as
// unknown, or as what it became, and never as failed.
func (w world) payerAway(t *testing.T) {
	invoice, hash, err := w.seller.PlainInvoice(t.Context(), 11_000, "impatient")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Millisecond)
	defer cancel()
	if _, err := w.buyer.Pay(ctx, invoice, 0, 10*time.Second); err != nil && !errors.Is(err, lightning.ErrPaymentUnknown) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the payment is known", func() bool {
		p, err := w.buyer.Track(t.Context(), hash)
		if errors.Is(err, lightning.ErrPaymentNotFound) {
			return true // the request never left
		}
		return err == nil && p.State == lightning.StateSucceeded
	})
}
