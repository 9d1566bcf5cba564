package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
)

// exchange is one request of the public listener, and the writer of its answer. It is the
// http.ResponseWriter that handlers get. It belongs to the goroutine that serves the request.
type exchange struct {
	http.ResponseWriter
	g       *Gateway
	cat     *catalog // the catalog in force when the request began
	r       *http.Request
	control *http.ResponseController
	started time.Time // when the request began, by the configured clock
	arrived time.Time // when the request began, by the clock of the connection

	status    int             // the status that was sent; 0: no header was sent
	deadline  time.Time       // when a client that takes nothing counts as stalled; each write moves it
	bodyUntil time.Time       // when the body must have come, as the connection was told last
	body      intake.BodyUse  // what the request takes of the memory for bodies
	presence  intake.Presence // whether the client is still there

	service *service    // the service of the host; nil until reach has found it
	prefs   preferences // the client's own limits and wishes; see readPreferences

	route     string      // the name of the route, for the metrics
	token     *l402.Token // proven genuine and paid; authorize checks its caveats; nil: no such token
	tokenErr  error       // why there is no token; nil: no credential was sent, or the token is good
	who       standing    // what the credential is worth for the service; see identify
	credited  bool        // the token's deposit is known to be in the ledger
	billed    bool        // a call of this request was charged
	requestID string      // of the hold; "": no hold was made
	failureID string      // names an answer without a hold; "": the answer has no name yet
	origin    string      // the origin whose pages may read the answer; "": none may
	varies    bool        // the answer depends on the request's origin
	model     string      // a configured model, for the metrics; "": not known
	backend   string      // the backend that got the request last, for the log; "": none did
}

// Unwrap lets http.ResponseController find the connection's own writer.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader sends the header at its first call with a final status. It ignores later calls,
// because gin calls it after each handler.
func (x *exchange) WriteHeader(status int) {
	if x.status != 0 {
		return
	}
	if status >= 200 {
		x.presence.Begin()
		x.status = status
		x.share()
	}
	x.roll()
	x.ResponseWriter.WriteHeader(status)
	x.rest()
}

// Write writes a part of the answer's body.
func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	x.roll()
	defer x.rest()
	n, err := x.ResponseWriter.Write(p)
	x.dropStalled(err)
	return n, err
}

// FlushError sends to the client what was written so far.
func (x *exchange) FlushError() error {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	x.roll()
	defer x.rest()
	err := x.control.Flush()
	x.dropStalled(err)
	return err
}

// dropStalled makes the kernel drop the bytes that a stalled client has not taken. Otherwise the
// kernel would keep these bytes for as long as the client's machine is up.
func (x *exchange) dropStalled(err error) {
	if err != nil && x.r.ProtoMajor < 2 && errors.Is(err, os.ErrDeadlineExceeded) {
		if conn := intake.ConnectionOf(x.r); conn != nil {
			_ = conn.SetLinger(0) // the connection is closed after this error
		}
	}
}

// roll gives the client another WriteStall to take what is written next. It does not move a
// deadline of which most of the time is left, which saves a system call per event. It ignores
// errors, because the next write reports them.
func (x *exchange) roll() {
	stall := x.cat.WriteStall
	now := time.Now() // the connection's clock, not the configured clock
	if x.deadline.Sub(now) < stall*3/4 {
		x.deadline = now.Add(stall)
		_ = x.control.SetWriteDeadline(x.deadline)
	}
}

// rest removes the deadline between writes to an HTTP/2 stream. There a deadline resets the
// stream when it passes, even if nothing is being written, and an answer may take longer to
// come than WriteStall.
func (x *exchange) rest() {
	if x.r.ProtoMajor >= 2 {
		x.deadline = time.Time{}
		_ = x.control.SetWriteDeadline(x.deadline)
	}
}

// serve is the outermost handler of the public listener. It proves the credential, answers for
// handlers that panicked, and bounds and counts requests.
func (g *Gateway) serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = withTidyPath(r)
		if ctx := g.observer.Began(r); ctx != r.Context() {
			r = r.WithContext(ctx)
		}
		x := &exchange{ResponseWriter: w, g: g, cat: g.catalog(), r: r, control: http.NewResponseController(w), started: g.now(), arrived: time.Now()}
		if r.ProtoMajor < 2 {
			x.roll() // the connection may still have the deadline of its last request
		}
		if r.ContentLength != 0 {
			// The body gets a deadline even if no handler reads it, because net/http reads the body
			// before it answers. readBody moves the deadline while the body comes, and removes it when
			// the whole body has come.
			x.awaitBody(0)
		}
		watched, end := x.presence.Watch(r, x.cat.WriteStall)
		defer end()
		x.r = watched
		defer func() { x.served(recover()) }()
		x.authenticate()
		x.readOrigin()
		if r.URL.Path != pathAlive { // liveness probes need no place, or Kubernetes would restart the pod
			if !g.places.Take(x.token != nil) {
				x.route = "overload"
				x.fail(x.overloaded())
				return
			}
			defer g.places.Give(x.token != nil)
		}
		if x.isPreflight() {
			x.preflight()
			return
		}
		next.ServeHTTP(x, x.r)
		x.creditAnyway()
		if x.status == statusClientGone {
			// If the handler returned, net/http would send an empty 200. A client that has closed
			// only its sending side would take that for its answer.
			panic(http.ErrAbortHandler)
		}
	})
}

var errPanic = errors.New("panic while serving")

// served ends the exchange after its handler has returned or panicked. panicked is the value
// of the panic; nil: the handler returned.
func (x *exchange) served(panicked any) {
	ctx := x.r.Context()
	if panicked != nil && panicked != http.ErrAbortHandler {
		x.g.observer.Panicked(ctx, x.r.URL.Path, panicked, debug.Stack())
	}
	x.body.Release()
	x.roll() // gives time for what net/http itself writes at the end
	x.g.observer.Ended(ctx, x.route, x.status)
	if panicked == nil {
		return
	}
	if x.status == 0 && panicked != http.ErrAbortHandler {
		x.fail(errPanic)
		return
	}
	panic(http.ErrAbortHandler) // shows the client that the answer is broken
}

// authenticate proves the credential by computation alone. It does so on every route, because
// the payment behind the credential is credited whatever happens to the request.
func (x *exchange) authenticate() { x.token, x.tokenErr = x.cat.proven.token(x.r.Header) }

// deposit returns the payment that the token proves.
func (x *exchange) deposit() metering.Deposit {
	return metering.Deposit{Hash: x.token.PaymentHash, Account: x.token.ID, Amount: x.token.Deposit}
}

// credit adds the deposit of a proven token to the ledger, once per request. It runs before
// every answer, except the answer to a reservation, because a reservation credits the deposit
// itself.
func (x *exchange) credit() error {
	if x.token == nil || x.credited || x.token.Deposit <= 0 {
		return nil
	}
	ctx, cancel := x.detached(x.g.cfg.SettleWait)
	defer cancel()
	_, err := x.g.ledger.Deposit(ctx, x.deposit())
	x.credited = err == nil
	x.tellPaid(err)
	return err
}

// tellPaid tells the observer that a payment was presented. A nil err means that the payment is
// credited.
func (x *exchange) tellPaid(err error) {
	x.g.observer.Paid(x.r.Context(), observe.Payment{Hash: x.token.PaymentHash, Amount: x.token.Deposit, Err: err})
}

// creditAnyway credits the deposit where the answer does not depend on the credit. After a
// failure the client can present the token again, and the settle stream credits the payment too.
func (x *exchange) creditAnyway() { _ = x.credit() }

// available returns what the token may spend, in msat, with its payment credited.
func (x *exchange) available() (l402.Msat, error) {
	if err := x.credit(); err != nil {
		return 0, err
	}
	ctx, cancel := x.detached(x.g.cfg.SettleWait)
	defer cancel()
	balance, err := x.g.ledger.Balance(ctx, x.token.ID, x.token.Budgets)
	return balance.Available, err
}

// detached returns a context that the client cannot end, for what must be recorded even if the
// client hangs up. limit bounds the context.
func (x *exchange) detached(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(x.r.Context()), limit)
}

// statusClientGone is the status in the metrics for an answer whose client hung up. It is never
// written: the connection, or the stream of HTTP/2, is aborted.
const statusClientGone = 499

// fail answers with the problem of err. It answers nothing if the answer has begun.
func (x *exchange) fail(err error) {
	x.creditAnyway()
	if x.status != 0 {
		return
	}
	if errors.Is(err, context.Canceled) && x.r.Context().Err() != nil {
		x.status = statusClientGone
		return
	}
	p := problem.For(err)
	p.RequestID = x.id()
	if x.requestID != "" {
		x.Header()[headerRequestID] = []string{x.requestID}
	}
	x.g.observer.Refused(x.r.Context(), observe.Refusal{Kind: p.Kind(), Status: p.Status, Path: x.r.URL.Path,
		Model: x.model, Backend: x.backend, RequestID: p.RequestID, Expected: p.Expected, Cause: p.Reason(err)})
	if p.CloseClient && x.r.ProtoMajor < 2 {
		x.dismiss(p)
		return
	}
	p.WriteAs(x, dialectOf(x.r))
}

// id returns the name of the answer: the id of the hold, by which the answer is found in the
// ledger; or, without a hold, a new id, by which the answer is found in the log.
func (x *exchange) id() string {
	if x.requestID != "" {
		return x.requestID
	}
	if x.failureID == "" {
		x.failureID = metering.NewHoldID().String()
	}
	return x.failureID
}

// voter returns a number for the account, for what the gateway learns from answers; 0 means
// that the request has no account.
func (x *exchange) voter() uint64 {
	if x.token == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(x.token.ID[:8])
}

// quoteExpiry returns until when a price that is quoted now binds the gateway for a client that
// pays for it.
func (x *exchange) quoteExpiry() time.Time {
	return x.g.now().Add(x.cat.QuoteTTL).UTC().Truncate(time.Second)
}
