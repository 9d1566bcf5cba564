package problem

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Dialect is how a problem looks to the SDKs of the API whose route was called.
type Dialect int

const (
	Plain     Dialect = iota // RFC 9457 alone: routes of our own
	OpenAI                   // and an error member as OpenAI's SDKs show it
	Anthropic                // and as Anthropic's do
	GRPC                     // one HEADERS frame with a status
)

// openAIProblem is a problem with the member that the SDKs of OpenAI's API show.
// Its code is text: some of them fail on a number.
type openAIProblem struct {
	*Problem
	// Message is what Anthropic's SDK shows of a body that is not its own API's. Only
	// unknown routes have it: there the caller may be any SDK.
	Message string `json:"message,omitempty"`
	Error   struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	} `json:"error"`
}

// anthropicProblem is a problem as the SDKs of Anthropic's API show it. They go by
// the type "error", so that the problem's own type is in URN; and one of them
// shows a clean text only where Message is at the top too.
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

// in returns what is encoded in a dialect.
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

// anthropicType is what Anthropic's API calls an error of this status.
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

// IsGRPC says whether a request is gRPC's own, which HTTP/2 carries. gRPC for web
// pages ends in a frame of the body and is not sold.
func IsGRPC(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+")
}

// gRPC's status codes. Source: grpc/doc/statuscodes.md.
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

// grpcPaymentRequired is the text by which deployed interceptors know a 402.
const grpcPaymentRequired = "payment required"

// writeGRPC sends the problem in one HEADERS frame (trailers-only), which gRPC
// reads as the whole answer. The headers of describe are set.
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

// grpcStatus is the status of gRPC that says the same.
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

// grpcEncode percent-encodes a status message, as gRPC over HTTP/2 wants it.
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
