package problem

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// problemBase begins every problem type. Clients match what follows it.
const problemBase = "urn:sluice:problem:"

// These are the problem types of the wire contract.
const (
	PaymentRequired      = "payment-required"
	InsufficientBalance  = "insufficient-balance"
	InvalidCredential    = "invalid-credential"
	CaveatViolation      = "caveat-violation"
	CostAboveMaximum     = "cost-above-maximum"
	QueueFull            = "queue-full"
	RateLimited          = "rate-limited"
	LightningUnavailable = "lightning-unavailable"
	BackendUnavailable   = "backend-unavailable"
	InvalidRequest       = "invalid-request"
	UnknownRoute         = "unknown-route"
	DuplicateRequest     = "duplicate-request"
)

// Problem is an answer that the gateway itself gives, in the form of RFC 9457. It is an error, so
// that every step of a request can return one.
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	RequestID string `json:"request_id,omitempty"`
	Param     string `json:"param,omitempty"` // the field, header or parameter that is refused

	Amount      *l402.Msat      `json:"amount_msat,omitempty"`
	Required    *l402.Msat      `json:"required_msat,omitempty"`
	Balance     *l402.Msat      `json:"balance_msat,omitempty"`
	Maximum     *l402.Msat      `json:"maximum_msat,omitempty"`
	Model       string          `json:"model,omitempty"`
	Rates       *pricing.Rates  `json:"rates,omitempty"`
	Epoch       *int64          `json:"price_epoch,omitempty"`
	QuoteExpiry *time.Time      `json:"quote_expires_at,omitempty"`
	Multiplier  *float64        `json:"multiplier,omitempty"`
	Signal      *float64        `json:"signal,omitempty"`
	BoundBy     string          `json:"bound_by,omitempty"`
	Reusable    bool            `json:"reusable,omitempty"`
	PaymentHash string          `json:"payment_hash,omitempty"`
	Macaroon    string          `json:"macaroon,omitempty"`
	Invoice     string          `json:"invoice,omitempty"`
	Entry       *metering.Entry `json:"entry,omitempty"`

	retryAfter  time.Duration // the Retry-After header, rounded up to seconds; 0: no header
	Challenge   string        `json:"-"` // the WWW-Authenticate header of a 402; "": no header
	NoRetry     bool          `json:"-"` // tells SDKs that a retry is pointless
	CloseClient bool          `json:"-"` // the connection is closed after the answer
	Expected    bool          `json:"-"` // caused by load, not by a defect; not logged, or a flood would fill the log
	Cause       error         `json:"-"` // for the log only; nil: the log gets the error itself
}

// Error returns the text that the client reads.
func (p *Problem) Error() string { return p.Detail }

// New returns a problem. It is not inlined, because each inlined call would take room on the stack
// of a stream; see (*call).stream in package gateway.
//
//go:noinline
func New(status int, kind, detail string) *Problem {
	return &Problem{Type: problemBase + kind, Title: titles[kind], Status: status, Detail: detail}
}

// Kind returns the problem type without problemBase. The types are a fixed set, so that they can
// be a label of metrics.
func (p *Problem) Kind() string { return p.Type[len(problemBase):] }

var titles = map[string]string{
	PaymentRequired:      "Payment required",
	InsufficientBalance:  "The balance does not cover this request",
	InvalidCredential:    "The credential is not valid",
	CaveatViolation:      "A caveat of the token forbids this",
	CostAboveMaximum:     "The request costs more than the maximum",
	QueueFull:            "The queue is full",
	RateLimited:          "Too many requests",
	LightningUnavailable: "The Lightning node is unavailable",
	BackendUnavailable:   "No backend is available",
	InvalidRequest:       "The request is not valid",
	UnknownRoute:         "There is no such route",
	DuplicateRequest:     "The request was made before",
}

// BusyRetry is how long callers are told to wait if an internal queue or the store is busy. Both
// recover within a second or two.
const BusyRetry = 2 * time.Second

// For returns the problem for an error. An error that is not listed becomes an internal error,
// whose text the client does not get.
func For(err error) *Problem {
	var (
		p         *Problem
		caveat    *l402.CaveatError
		limited   *metering.RateLimitedError
		duplicate *metering.DuplicateError
		request   *format.RequestError
		full      *gpu.FullError
		tooLarge  *http.MaxBytesError
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, l402.ErrConflictingCredentials):
		return New(http.StatusBadRequest, InvalidRequest, "the request carries two different credentials; send one")
	case errors.Is(err, l402.ErrPreimage):
		return New(http.StatusUnauthorized, InvalidCredential, "the preimage does not belong to this macaroon; send the preimage of the invoice that came with it")
	case errors.As(err, &caveat):
		return New(http.StatusForbidden, CaveatViolation, caveat.Error())
	case errors.Is(err, metering.ErrTooManyBudgets):
		return New(http.StatusForbidden, CaveatViolation, "the account has too many live budgets; let some finish")
	case errors.As(err, &limited):
		return Retryable(New(http.StatusTooManyRequests, RateLimited, "the token's requests per minute are used up"), limited.RetryAfter)
	case errors.Is(err, metering.ErrFrozen):
		return New(http.StatusForbidden, InvalidCredential, "the account is frozen or revoked; ask the operator")
	case errors.Is(err, metering.ErrForeignDeposit):
		return New(http.StatusForbidden, InvalidCredential, "this payment belongs to another account")
	case errors.As(err, &duplicate):
		return duplicateProblem(duplicate)
	case errors.As(err, &request):
		return InvalidParam(request.Param, request.Error())
	case errors.As(err, &tooLarge):
		p := New(http.StatusRequestEntityTooLarge, InvalidRequest, "the body is larger than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes")
		p.CloseClient = true
		return p
	case errors.As(err, &full):
		detail := "all slots and the queue of this model are taken"
		if full.Own {
			detail = "as many requests of this account wait as may; nothing was charged"
		}
		return Retryable(New(http.StatusTooManyRequests, QueueFull, detail), full.RetryAfter)
	case errors.Is(err, gpu.ErrQueueTimeout):
		return Retryable(New(http.StatusServiceUnavailable, QueueFull, "no slot became free in time; nothing was charged"), BusyRetry)
	case errors.Is(err, gpu.ErrTooDear):
		return Retryable(New(http.StatusServiceUnavailable, BackendUnavailable, "no backend takes the request at its price now; nothing was charged"), 2*BusyRetry)
	case errors.Is(err, gpu.ErrNoBackend), errors.Is(err, gpu.ErrNotTaken):
		return Retryable(New(http.StatusServiceUnavailable, BackendUnavailable, "no backend of this model takes requests; nothing was charged"), 2*BusyRetry)
	case errors.Is(err, gpu.ErrFirstByteTimeout):
		return New(http.StatusGatewayTimeout, BackendUnavailable, "the backend did not answer in time; nothing was charged")
	case errors.Is(err, metering.ErrBusy):
		return Retryable(New(http.StatusServiceUnavailable, QueueFull, "the ledger is busy; nothing was charged"), BusyRetry)
	case errors.Is(err, metering.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return Retryable(New(http.StatusServiceUnavailable, BackendUnavailable, "the ledger is unavailable; nothing was charged"), BusyRetry)
	}
	return &Problem{Type: problemBase + BackendUnavailable, Title: "Internal error",
		Status: http.StatusInternalServerError, Detail: "the gateway failed; nothing was charged for this answer"}
}

// duplicateProblem returns the problem for a repeated Idempotency-Key.
func duplicateProblem(d *metering.DuplicateError) *Problem {
	switch d.State {
	case metering.DuplicateMismatch:
		return New(http.StatusUnprocessableEntity, DuplicateRequest, "this Idempotency-Key was used with another body; use a new key")
	case metering.DuplicateCharged:
		p := New(http.StatusConflict, DuplicateRequest, "this request was answered and charged before; its ledger entry is attached")
		p.Entry, p.NoRetry = d.Entry, true
		return p
	}
	return Retryable(New(http.StatusConflict, DuplicateRequest, "a request with this Idempotency-Key is running"), BusyRetry)
}

// Retryable tells the client to retry after a wait of at least one second, and returns p.
func Retryable(p *Problem, after time.Duration) *Problem {
	p.retryAfter = max(after, time.Second)
	return p
}

// Because sets the error that caused the problem, for the log, and returns p.
func (p *Problem) Because(cause error) *Problem {
	p.Cause = cause
	return p
}

// Reason returns what the log says about p: its Cause or, without one, err, of which p was made.
func (p *Problem) Reason(err error) error {
	if p.Cause != nil {
		return p.Cause
	}
	return err
}

// Invalid returns a 400. detail tells the client what to do.
func Invalid(detail string) *Problem {
	return New(http.StatusBadRequest, InvalidRequest, detail)
}

// InvalidParam returns a 400 about one field, header or query parameter. An empty param names none.
func InvalidParam(param, detail string) *Problem {
	p := Invalid(detail)
	p.Param = param
	return p
}

// Write sends the problem in the form of RFC 9457. No part of an answer may have been written
// before.
func (p *Problem) Write(w http.ResponseWriter) { p.WriteAs(w, Plain) }

// WriteAs sends the problem in a dialect. No part of an answer may have been written before.
func (p *Problem) WriteAs(w http.ResponseWriter, d Dialect) {
	h := w.Header()
	p.describe(h, d)
	if d == GRPC {
		p.writeGRPC(w)
		return
	}
	body, err := json.Marshal(p.in(d))
	if err != nil { // cannot happen, but the client must get an answer
		body = []byte(`{"type":"` + p.Type + `","status":` + strconv.Itoa(p.Status) + `}`)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)+1)) // shows where the body ends
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

// describe sets the headers of a problem.
func (p *Problem) describe(h http.Header, d Dialect) {
	for _, name := range []string{"Content-Length", "Content-Encoding", "Trailer", "ETag", "Last-Modified"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((p.retryAfter+time.Second-1)/time.Second), 10))
	}
	if p.Challenge != "" {
		// The spelling is that of RFC 9110, because some clients compare it as text.
		h["WWW-Authenticate"] = []string{p.Challenge}
	}
	if p.NoRetry {
		h.Set("X-Should-Retry", "false")
	}
	if p.RequestID != "" {
		NameAnswer(h, p.RequestID, d == Anthropic)
	}
	if p.CloseClient {
		h.Set("Connection", "close")
	}
}

// NameAnswer sets the header in which SDKs look for the id of an answer. Anthropic's SDKs look in
// a header of another name, which NameAnswer sets too if anthropic is true.
func NameAnswer(h http.Header, id string, anthropic bool) {
	name := []string{id}
	h["X-Request-Id"] = name
	if anthropic {
		h["Request-Id"] = name
	}
}
