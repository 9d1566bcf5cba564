package lightning

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrUnavailable reports that lnd cannot be reached, does not answer in
	// time, or is still starting or locked. Trying again later may help.
	ErrUnavailable = errors.New("lnd is unavailable")
	// ErrDenied reports that lnd does not take the macaroon, or that it lacks
	// a right that the call needs. Only the operator can help.
	ErrDenied = errors.New("lnd refuses the macaroon")
	// ErrPaymentNotFound reports that this lnd never began to pay the hash.
	ErrPaymentNotFound = errors.New("payment not found")
	// ErrPaymentFailed reports that a payment ended without money moving.
	// See PaymentError for lnd's reason.
	ErrPaymentFailed = errors.New("payment failed")
	// ErrPaymentUnknown reports that a payment may still succeed, or may have:
	// it must be tracked by its hash before anything else is paid for it.
	ErrPaymentUnknown = errors.New("the payment's outcome is unknown")
)

// PaymentError is a payment's definite end without money moving. It matches
// ErrPaymentFailed.
type PaymentError struct {
	// Reason is lnd's, in words, for example "no route".
	Reason string
}

func (e *PaymentError) Error() string { return "payment failed: " + e.Reason }

// Is makes errors.Is(err, ErrPaymentFailed) true.
func (e *PaymentError) Is(target error) bool { return target == ErrPaymentFailed }

// starting lists what lnd's own errors say while it is not ready to serve, and
// refused what they say about a macaroon. lnd 0.21 gives them no status code
// (rpcperms/interceptor.go, macaroons/service.go).
var (
	starting = []string{
		"waiting to start",
		"wallet not created",
		"wallet locked",
		"macaroon store is locked",
		"in the process of starting",
	}
	refused = []string{
		"permission denied",
		"verification failed",
		"cannot retrieve macaroon",
	}
)

// wrap names the operation and sorts an error of gRPC into the sentinels. The
// caller's own cancellation stays what it is.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		return fmt.Errorf("lnd: %s: %w", op, context.Canceled)
	}
	st, ok := status.FromError(err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("lnd: %s: %w: no answer in time", op, ErrUnavailable)
		}
		return fmt.Errorf("lnd: %s: %w", op, err)
	}
	switch st.Code() {
	case codes.Unavailable:
		return fmt.Errorf("lnd: %s: %w: %s", op, ErrUnavailable, st.Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("lnd: %s: %w: no answer in time", op, ErrUnavailable)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("lnd: %s: %w: %s", op, ErrDenied, st.Message())
	case codes.Unknown:
		if containsAny(st.Message(), starting) {
			return fmt.Errorf("lnd: %s: %w: %s", op, ErrUnavailable, st.Message())
		}
		if containsAny(st.Message(), refused) {
			return fmt.Errorf("lnd: %s: %w: %s", op, ErrDenied, st.Message())
		}
	}
	return fmt.Errorf("lnd: %s: %w", op, err)
}

func containsAny(s string, parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(s, part) })
}
