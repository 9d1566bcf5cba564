package lightning

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
)

// State is the state of a payment.
type State string

// These are the states of a payment. Only succeeded and failed are final.
const (
	StateInFlight  State = "in_flight"
	StateSucceeded State = "succeeded"
	StateFailed    State = "failed"
)

// maxParts is how many parts lnd may split one payment into (lncli's default).
const maxParts = 16

// Payment is an outgoing payment as lnd reports it.
type Payment struct {
	Hash     l402.PaymentHash
	State    State
	Preimage l402.Preimage // set when State is succeeded
	Amount   l402.Msat     // in msat, without the routing fee
	Fee      l402.Msat     // routing fee in msat, paid on top of Amount
	Reason   string        // why the payment failed, in words
}

// Pay pays a BOLT11 invoice that names its amount. It pays at most feeLimit msat of routing fees on
// top of the amount. With a feeLimit of 0 it uses only routes without a fee. lnd looks for a route
// for at most timeout, rounded up to seconds.
//
// A nil error means that the payment succeeded, possibly in an earlier call. ErrPaymentFailed means
// that no money moved and none will. ErrPaymentUnknown means that the payment may still succeed,
// and the caller must use Track to find out. In every case lnd pays one hash at most once.
func (c *Client) Pay(ctx context.Context, invoice string, feeLimit l402.Msat, timeout time.Duration) (Payment, error) {
	inv, err := bolt11.Decode(invoice)
	if err != nil {
		return Payment{}, fmt.Errorf("pay: %w", err)
	}
	if !feeLimit.Valid() || timeout <= 0 {
		return Payment{}, fmt.Errorf("pay: fee limit %d msat or timeout %s out of range", int64(feeLimit), timeout)
	}
	call, cancel := context.WithTimeout(ctx, timeout+c.timeout)
	defer cancel()
	payment, err := c.send(call, &routerrpc.SendPaymentRequest{
		PaymentRequest:    invoice,
		FeeLimitMsat:      int64(feeLimit),
		TimeoutSeconds:    int32((timeout + time.Second - 1) / time.Second),
		MaxParts:          maxParts,
		NoInflightUpdates: true,
	})
	if err == nil {
		return outcome(payment)
	}
	return c.resolve(ctx, inv.Hash, err)
}

// send starts the payment and waits for its end.
func (c *Client) send(ctx context.Context, req *routerrpc.SendPaymentRequest) (Payment, error) {
	stream, err := c.router.SendPaymentV2(ctx, req)
	if err != nil {
		return Payment{}, err
	}
	for {
		update, err := stream.Recv()
		if err != nil {
			return Payment{}, err
		}
		payment, err := fromRPC(update)
		if err != nil || payment.State != StateInFlight {
			return payment, err
		}
	}
}

// resolve asks lnd for the outcome of a payment whose call ended with cause.
func (c *Client) resolve(ctx context.Context, hash l402.PaymentHash, cause error) (Payment, error) {
	// The call may have ended because the caller's context ended. resolve must ask even then.
	payment, err := c.Track(context.WithoutCancel(ctx), hash)
	switch {
	case err == nil:
		return outcome(payment)
	case errors.Is(err, ErrPaymentNotFound) && definite(cause):
		return Payment{Hash: hash, State: StateFailed}, &PaymentError{Reason: status.Convert(cause).Message()}
	default:
		return Payment{Hash: hash, State: StateInFlight}, fmt.Errorf("%w: %w", ErrPaymentUnknown, wrap("pay", cause))
	}
}

// definite reports whether lnd itself refused the request. An error that a broken connection can
// cause is not definite, because the request may still be on its way and lnd may not know the
// payment yet.
func definite(err error) bool {
	st, ok := status.FromError(err)
	if !ok {
		return false
	}
	switch st.Code() {
	case codes.Unknown, codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound, codes.OutOfRange,
		codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	return false
}

// Track returns the present state of the payment for hash, without waiting for the payment to end.
// ErrPaymentNotFound means that this lnd never began the payment.
func (c *Client) Track(ctx context.Context, hash l402.PaymentHash) (Payment, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	stream, err := c.router.TrackPaymentV2(ctx, &routerrpc.TrackPaymentRequest{PaymentHash: hash[:]})
	if err != nil {
		return Payment{}, wrap("track payment", err)
	}
	update, err := stream.Recv()
	if status.Code(err) == codes.NotFound {
		return Payment{}, fmt.Errorf("lnd: track payment: %w", ErrPaymentNotFound)
	}
	if err != nil {
		return Payment{}, wrap("track payment", err)
	}
	return fromRPC(update)
}

// outcome returns the payment with the error that Pay returns for its state.
func outcome(p Payment) (Payment, error) {
	switch p.State {
	case StateSucceeded:
		return p, nil
	case StateFailed:
		return p, &PaymentError{Reason: p.Reason}
	default:
		return p, fmt.Errorf("%w: lnd is still paying it", ErrPaymentUnknown)
	}
}

// fromRPC reads and checks a payment from lnd. A successful payment must come with the preimage
// that proves it.
func fromRPC(p *lnrpc.Payment) (Payment, error) {
	out := Payment{State: StateInFlight, Amount: l402.Msat(p.ValueMsat), Fee: l402.Msat(p.FeeMsat)}
	if n, err := hex.Decode(out.Hash[:], []byte(p.PaymentHash)); err != nil || n != len(out.Hash) {
		return out, errors.New("lnd: a payment without a payment hash")
	}
	switch p.Status {
	case lnrpc.Payment_SUCCEEDED:
		out.State = StateSucceeded
		n, err := hex.Decode(out.Preimage[:], []byte(p.PaymentPreimage))
		if err != nil || n != len(out.Preimage) || out.Preimage.Hash() != out.Hash {
			return out, errors.New("lnd: a payment whose preimage does not prove it")
		}
	case lnrpc.Payment_FAILED:
		out.State = StateFailed
		reason := strings.TrimPrefix(p.FailureReason.String(), "FAILURE_REASON_")
		out.Reason = strings.ReplaceAll(strings.ToLower(reason), "_", " ")
	}
	return out, nil
}
