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
	// ErrUnavailable reports that lnd cannot be reached, does not answer in time, is still
	// starting, or is locked. A later attempt may succeed.
	ErrUnavailable = errors.New("lnd is unavailable")
	// ErrDenied reports that lnd refuses the macaroon, or that the macaroon lacks a right that the
	// call needs. Only the operator can change this.
	ErrDenied = errors.New("lnd refuses the macaroon")
	// ErrPaymentNotFound reports that this lnd never began a payment for the hash.
	ErrPaymentNotFound = errors.New("payment not found")
	// ErrPaymentFailed reports that a payment ended and no money moved. PaymentError has lnd's
	// reason.
	ErrPaymentFailed = errors.New("payment failed")
	// ErrPaymentUnknown reports that a payment may have succeeded or may still succeed. The caller
	// must track the payment by its hash before it pays anything else for the same purpose.
	ErrPaymentUnknown = errors.New("the payment's outcome is unknown")
)

// PaymentError reports that a payment has ended for good and no money moved. It matches
// ErrPaymentFailed.
type PaymentError struct {
	// Reason is lnd's reason in words, for example "no route".
	Reason string
}

func (e *PaymentError) Error() string { return "payment failed: " + e.Reason }

// Is reports whether target is ErrPaymentFailed.
func (e *PaymentError) Is(target error) bool { return target == ErrPaymentFailed }

// starting lists texts in lnd's errors while lnd is not ready to serve. refused lists texts in
// lnd's errors about a macaroon. lnd 0.21 gives these errors no status code of their own
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

// wrap adds the operation to an error of gRPC and makes it match one of the sentinel errors. When
// the caller cancelled the call, the result matches context.Canceled.
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
