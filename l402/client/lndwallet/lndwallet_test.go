package lndwallet_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice/internal/lightning"
	"sluice/l402"
	"sluice/l402/client"
	"sluice/l402/client/lndwallet"
)

// node answers every call the same way.
type node struct {
	p   lightning.Payment
	err error
}

func (n node) Pay(context.Context, string, l402.Msat, time.Duration) (lightning.Payment, error) {
	return n.p, n.err
}

func (n node) Track(context.Context, l402.PaymentHash) (lightning.Payment, error) { return n.p, n.err }

func TestPay(t *testing.T) {
	preimage := l402.NewPreimage()
	paid, err := lndwallet.New(node{p: lightning.Payment{Preimage: preimage, Fee: 3}}).Pay(t.Context(), client.PayRequest{})
	if err != nil || paid.Preimage != preimage || paid.Fee != 3 {
		t.Errorf("%v %v", paid, err)
	}
	_, err = lndwallet.New(node{err: &lightning.PaymentError{Reason: "no route"}}).Pay(t.Context(), client.PayRequest{})
	if !errors.Is(err, client.ErrPaymentFailed) {
		t.Errorf("a definite failure became %v", err)
	}
	for _, doubt := range []error{lightning.ErrPaymentUnknown, lightning.ErrUnavailable, context.DeadlineExceeded} {
		if _, err = lndwallet.New(node{err: doubt}).Pay(t.Context(), client.PayRequest{}); errors.Is(err, client.ErrPaymentFailed) || err == nil {
			t.Errorf("%v became %v: a payment in doubt must not be dropped", doubt, err)
		}
	}
}

func TestTrack(t *testing.T) {
	for _, tc := range []struct {
		n    node
		want client.State
		err  bool
	}{
		{node{p: lightning.Payment{State: lightning.StateSucceeded}}, client.Succeeded, false},
		{node{p: lightning.Payment{State: lightning.StateInFlight}}, client.InFlight, false},
		{node{p: lightning.Payment{State: "of a later version"}}, client.InFlight, false},
		{node{p: lightning.Payment{State: lightning.StateFailed}}, client.Failed, false},
		{node{err: lightning.ErrPaymentNotFound}, client.Unknown, false},
		{node{err: lightning.ErrUnavailable}, client.Unknown, true},
	} {
		got, _, err := lndwallet.New(tc.n).Track(t.Context(), l402.PaymentHash{})
		if got != tc.want || (err != nil) != tc.err {
			t.Errorf("%+v: %v %v", tc.n, got, err)
		}
	}
}
