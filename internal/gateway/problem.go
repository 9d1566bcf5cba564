package gateway

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

// problemBase precedes every problem type. Clients match the part after it.
const problemBase = "urn:sluice:problem:"

// The problem types of the wire contract.
const (
	typePaymentRequired      = "payment-required"
	typeInsufficientBalance  = "insufficient-balance"
	typeInvalidCredential    = "invalid-credential"
	typeCaveatViolation      = "caveat-violation"
	typeCostAboveMaximum     = "cost-above-maximum"
	typeQueueFull            = "queue-full"
	typeRateLimited          = "rate-limited"
	typeLightningUnavailable = "lightning-unavailable"
	typeBackendUnavailable   = "backend-unavailable"
	typeInvalidRequest       = "invalid-request"
	typeUnknownRoute         = "unknown-route"
	typeDuplicateRequest     = "duplicate-request"
)

// problem is an answer of the gateway itself (RFC 9457). It is an error, so
// that every step of a request can return one.
type problem struct {
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

	retryAfter  time.Duration // > 0: the Retry-After header, rounded up to seconds
	challenge   string        // the WWW-Authenticate value of a 402
	noRetry     bool          // tells SDKs that repeating is pointless
	closeClient bool          // the connection is not worth keeping
	expected    bool          // by load, not by a defect: not logged, or a flood would fill the log
	cause       error         // for the log only; nil: the detail says it all
}

// Error makes a problem an error; the text is what the client reads.
func (p *problem) Error() string { return p.Detail }

// newProblem is kept out of its callers: inlined, each of its uses would take
// room on the stack of a stream, see (*call).stream.
//
//go:noinline
func newProblem(status int, kind, detail string) *problem {
	return &problem{Type: problemBase + kind, Title: titles[kind], Status: status, Detail: detail}
}

// kind is the last part of the type: a bounded set, fit for a metric label.
func (p *problem) kind() string { return p.Type[len(problemBase):] }

var titles = map[string]string{
	typePaymentRequired:      "Payment required",
	typeInsufficientBalance:  "The balance does not cover this request",
	typeInvalidCredential:    "The credential is not valid",
	typeCaveatViolation:      "A caveat of the token forbids this",
	typeCostAboveMaximum:     "The request costs more than the maximum",
	typeQueueFull:            "The queue is full",
	typeRateLimited:          "Too many requests",
	typeLightningUnavailable: "The Lightning node is unavailable",
	typeBackendUnavailable:   "No backend is available",
	typeInvalidRequest:       "The request is not valid",
	typeUnknownRoute:         "There is no such route",
	typeDuplicateRequest:     "The request was made before",
}

// busyRetry is what callers are told to wait when an internal queue or the
// store is the bottleneck: both recover within a second or two.
const busyRetry = 2 * time.Second

// problemFor is the one table from errors to answers. What is not in it is an
// internal error, whose text stays here.
func problemFor(err error) *problem {
	var (
		p         *problem
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
		return newProblem(http.StatusBadRequest, typeInvalidRequest, "the request carries two different credentials; send one")
	case errors.Is(err, l402.ErrPreimage):
		return newProblem(http.StatusUnauthorized, typeInvalidCredential, "the preimage does not belong to this macaroon; send the preimage of the invoice that came with it")
	case errors.As(err, &caveat):
		return newProblem(http.StatusForbidden, typeCaveatViolation, caveat.Error())
	case errors.Is(err, metering.ErrTooManyBudgets):
		return newProblem(http.StatusForbidden, typeCaveatViolation, "the account has too many live budgets; let some finish")
	case errors.As(err, &limited):
		return retryable(newProblem(http.StatusTooManyRequests, typeRateLimited, "the token's requests per minute are used up"), limited.RetryAfter)
	case errors.Is(err, metering.ErrFrozen):
		return newProblem(http.StatusForbidden, typeInvalidCredential, "the account is frozen or revoked; ask the operator")
	case errors.Is(err, metering.ErrForeignDeposit):
		return newProblem(http.StatusForbidden, typeInvalidCredential, "this payment belongs to another account")
	case errors.As(err, &duplicate):
		return duplicateProblem(duplicate)
	case errors.As(err, &request):
		return invalidParam(request.Param, request.Error())
	case errors.As(err, &tooLarge):
		p := newProblem(http.StatusRequestEntityTooLarge, typeInvalidRequest, "the body is larger than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes")
		p.closeClient = true
		return p
	case errors.As(err, &full):
		detail := "all slots and the queue of this model are taken"
		if full.Own {
			detail = "as many requests of this account wait as may; nothing was charged"
		}
		return retryable(newProblem(http.StatusTooManyRequests, typeQueueFull, detail), full.RetryAfter)
	case errors.Is(err, gpu.ErrQueueTimeout):
		return retryable(newProblem(http.StatusServiceUnavailable, typeQueueFull, "no slot became free in time; nothing was charged"), busyRetry)
	case errors.Is(err, gpu.ErrTooDear):
		return retryable(newProblem(http.StatusServiceUnavailable, typeBackendUnavailable, "no backend takes the request at its price now; nothing was charged"), 2*busyRetry)
	case errors.Is(err, gpu.ErrNoBackend), errors.Is(err, gpu.ErrNotTaken):
		return retryable(newProblem(http.StatusServiceUnavailable, typeBackendUnavailable, "no backend of this model takes requests; nothing was charged"), 2*busyRetry)
	case errors.Is(err, gpu.ErrFirstByteTimeout):
		return newProblem(http.StatusGatewayTimeout, typeBackendUnavailable, "the backend did not answer in time; nothing was charged")
	case errors.Is(err, metering.ErrBusy):
		return retryable(newProblem(http.StatusServiceUnavailable, typeQueueFull, "the ledger is busy; nothing was charged"), busyRetry)
	case errors.Is(err, metering.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return retryable(newProblem(http.StatusServiceUnavailable, typeBackendUnavailable, "the ledger is unavailable; nothing was charged"), busyRetry)
	}
	return &problem{Type: problemBase + typeBackendUnavailable, Title: "Internal error",
		Status: http.StatusInternalServerError, Detail: "the gateway failed; nothing was charged for this answer"}
}

// duplicateProblem answers a repeated Idempotency-Key.
func duplicateProblem(d *metering.DuplicateError) *problem {
	switch d.State {
	case metering.DuplicateMismatch:
		return newProblem(http.StatusUnprocessableEntity, typeDuplicateRequest, "this Idempotency-Key was used with another body; use a new key")
	case metering.DuplicateCharged:
		p := newProblem(http.StatusConflict, typeDuplicateRequest, "this request was answered and charged before; its ledger entry is attached")
		p.Entry, p.noRetry = d.Entry, true
		return p
	}
	return retryable(newProblem(http.StatusConflict, typeDuplicateRequest, "a request with this Idempotency-Key is running"), busyRetry)
}

func retryable(p *problem, after time.Duration) *problem {
	p.retryAfter = max(after, time.Second)
	return p
}

// because notes what led to the problem, for the log.
func (p *problem) because(cause error) *problem {
	p.cause = cause
	return p
}

// reason is what the log says of the problem that err was made into.
func (p *problem) reason(err error) error {
	if p.cause != nil {
		return p.cause
	}
	return err
}

// invalid is a 400 that says what to do.
func invalid(detail string) *problem {
	return newProblem(http.StatusBadRequest, typeInvalidRequest, detail)
}

// invalidParam is a 400 about one field, header or query parameter; empty: about
// none in particular.
func invalidParam(param, detail string) *problem {
	p := invalid(detail)
	p.Param = param
	return p
}

// write sends the problem as RFC 9457 has it. Nothing of the answer may have been
// written before.
func (p *problem) write(w http.ResponseWriter) { p.writeAs(w, plainDialect) }

// writeAs is write in the words of an API's SDKs.
func (p *problem) writeAs(w http.ResponseWriter, d dialect) {
	h := w.Header()
	p.describe(h)
	if d == grpcDialect {
		p.writeGRPC(w)
		return
	}
	body, err := json.Marshal(p.in(d))
	if err != nil { // no member can fail to encode; an answer is owed all the same
		body = []byte(`{"type":"` + p.Type + `","status":` + strconv.Itoa(p.Status) + `}`)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)+1)) // whole at once, however long the connection stays
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

// describe sets the headers that say what a problem is about.
func (p *problem) describe(h http.Header) {
	for _, name := range []string{"Content-Length", "Content-Encoding", "Trailer", "ETag", "Last-Modified"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((p.retryAfter+time.Second-1)/time.Second), 10))
	}
	if p.challenge != "" {
		// In the spelling of RFC 9110: some clients match it as text.
		h["WWW-Authenticate"] = []string{p.challenge}
	}
	if p.noRetry {
		h.Set("X-Should-Retry", "false")
	}
	if p.RequestID != "" {
		nameAnswer(h, p.RequestID)
	}
	if p.closeClient {
		h.Set("Connection", "close")
	}
}
