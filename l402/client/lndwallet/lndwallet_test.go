package lndwallet

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

// fake gives the same answer to every call.
type fake struct {
	p   lightning.Payment
	err error
}

func (n fake) Pay(context.Context, string, l402.Msat, time.Duration) (lightning.Payment, error) {
	return n.p, n.err
}

func (n fake) Track(context.Context, l402.PaymentHash) (lightning.Payment, error) { return n.p, n.err }

func onNode(n node) *Wallet { return &Wallet{node: n} }

func TestPay(t *testing.T) {
	preimage := l402.NewPreimage()
	paid, err := onNode(fake{p: lightning.Payment{Preimage: preimage, Fee: 3}}).Pay(t.Context(), client.PayRequest{})
	if err != nil || paid.Preimage != preimage || paid.Fee != 3 {
		t.Errorf("%v %v", paid, err)
	}
	_, err = onNode(fake{err: &lightning.PaymentError{Reason: "no route"}}).Pay(t.Context(), client.PayRequest{})
	if !errors.Is(err, client.ErrPaymentFailed) {
		t.Errorf("a definite failure became %v", err)
	}
	for _, doubt := range []error{lightning.ErrPaymentUnknown, lightning.ErrUnavailable, context.DeadlineExceeded} {
		if _, err = onNode(fake{err: doubt}).Pay(t.Context(), client.PayRequest{}); errors.Is(err, client.ErrPaymentFailed) || err == nil {
			t.Errorf("%v became %v: a payment in doubt must not be dropped", doubt, err)
		}
	}
}

func TestTrack(t *testing.T) {
	for _, tc := range []struct {
		n    fake
		want client.State
		err  bool
	}{
		{fake{p: lightning.Payment{State: lightning.StateSucceeded}}, client.Succeeded, false},
		{fake{p: lightning.Payment{State: lightning.StateInFlight}}, client.InFlight, false},
		{fake{p: lightning.Payment{State: "of a later version"}}, client.InFlight, false},
		{fake{p: lightning.Payment{State: lightning.StateFailed}}, client.Failed, false},
		{fake{err: lightning.ErrPaymentNotFound}, client.Unknown, false},
		{fake{err: lightning.ErrUnavailable}, client.Unknown, true},
	} {
		got, _, err := onNode(tc.n).Track(t.Context(), l402.PaymentHash{})
		if got != tc.want || (err != nil) != tc.err {
			t.Errorf("%+v: %v %v", tc.n, got, err)
		}
	}
}
