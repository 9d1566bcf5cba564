package problem

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Dialect is the form of a problem for the SDKs of the API whose route was called.
type Dialect int

const (
	Plain     Dialect = iota // RFC 9457 alone, for the gateway's own routes
	OpenAI                   // Plain, and the error member that OpenAI's SDKs show
	Anthropic                // Plain, and the members that Anthropic's SDKs show
	GRPC                     // one HEADERS frame with a status of gRPC
)

// openAIProblem is a problem with the error member that the SDKs of OpenAI's API show. The code in
// that member is text, because some SDKs fail on a number.
type openAIProblem struct {
	*Problem
	// Message is for Anthropic's SDK, which shows it of a body that is not in the form of
	// Anthropic's API. Only unknown routes have it, because there the caller may use any SDK.
	Message string `json:"message,omitempty"`
	Error   struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	} `json:"error"`
}

// anthropicProblem is a problem as the SDKs of Anthropic's API show it. These SDKs expect the type
// "error", so URN has the problem's own type. One of the SDKs shows a clean text only if Message is
// at the top level too.
type anthropicProblem struct {
	*Problem
	Type    string `json:"type"`
	URN     string `json:"problem"`
	Message string `json:"message"`
	Error   struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	} `json:"error"`
}

// in returns the value that is encoded for a dialect.
func (p *Problem) in(d Dialect) any {
	switch d {
	case OpenAI:
		o := openAIProblem{Problem: p}
		o.Error.Message, o.Error.Type = p.Detail, p.Kind()
		o.Error.Code = strings.ReplaceAll(p.Kind(), "-", "_")
		if p.Param != "" {
			o.Error.Param = &p.Param
		}
		if p.Kind() == UnknownRoute {
			o.Message = p.Detail
		}
		return o
	case Anthropic:
		a := anthropicProblem{Problem: p, Type: "error", URN: p.Type, Message: p.Detail}
		a.Error.Type, a.Error.Message = anthropicType(p.Status), p.Detail
		return a
	}
	return p
}

// anthropicType returns the name of Anthropic's API for an error with this status.
func anthropicType(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "authentication_error"
	case http.StatusPaymentRequired:
		return "billing_error"
	case http.StatusForbidden:
		return "permission_error"
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return "not_found_error"
	case http.StatusRequestEntityTooLarge:
		return "request_too_large"
	case http.StatusTooManyRequests:
		return "rate_limit_error"
	case http.StatusServiceUnavailable:
		return "overloaded_error"
	case http.StatusGatewayTimeout:
		return "timeout_error"
	}
	if status >= http.StatusInternalServerError {
		return "api_error"
	}
	return "invalid_request_error"
}

// IsGRPC reports whether a request is one of gRPC over HTTP/2. Requests of gRPC for web pages do
// not count; the gateway does not sell them.
func IsGRPC(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+")
}

// These are gRPC's status codes. Source: grpc/doc/statuscodes.md.
const (
	grpcUnknown           = 2
	grpcInvalidArgument   = 3
	grpcDeadlineExceeded  = 4
	grpcNotFound          = 5
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcFailedPrecond     = 9
	grpcAborted           = 10
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// grpcPaymentRequired is the message by which deployed interceptors recognise a 402.
const grpcPaymentRequired = "payment required"

// writeGRPC sends the problem in one HEADERS frame (trailers-only), which gRPC reads as the whole
// answer. The caller has set the headers of describe.
func (p *Problem) writeGRPC(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	code, message := p.grpcStatus()
	h.Set("Grpc-Status", strconv.Itoa(code))
	h.Set("Grpc-Message", grpcEncode(message))
	if p.retryAfter > 0 {
		h.Set("Grpc-Retry-Pushback-Ms", strconv.FormatInt(int64(p.retryAfter/time.Millisecond), 10))
	}
	w.WriteHeader(http.StatusOK)
}

// grpcStatus returns the status code of gRPC and the message that correspond to the problem.
func (p *Problem) grpcStatus() (code int, message string) {
	switch p.Status {
	case http.StatusPaymentRequired:
		return grpcInternal, grpcPaymentRequired
	case http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return grpcInvalidArgument, p.Detail
	case http.StatusUnauthorized:
		return grpcUnauthenticated, p.Detail
	case http.StatusForbidden:
		return grpcPermissionDenied, p.Detail
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		if p.Kind() == UnknownRoute {
			return grpcUnimplemented, p.Detail
		}
		return grpcNotFound, p.Detail
	case http.StatusConflict:
		return grpcAborted, p.Detail
	case http.StatusPreconditionFailed:
		return grpcFailedPrecond, p.Detail
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return grpcDeadlineExceeded, p.Detail
	case http.StatusTooManyRequests:
		if p.Kind() == QueueFull {
			return grpcUnavailable, p.Detail
		}
		return grpcResourceExhausted, p.Detail
	case http.StatusRequestEntityTooLarge:
		return grpcResourceExhausted, p.Detail
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return grpcUnavailable, p.Detail
	}
	return grpcUnknown, p.Detail
}

// grpcEncode percent-encodes a status message, as gRPC over HTTP/2 requires.
func grpcEncode(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
