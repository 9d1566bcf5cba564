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

// exchange is one request of the public listener and the way its answer takes.
// It is the http.ResponseWriter that handlers get, and belongs to the goroutine
// that serves the request.
type exchange struct {
	http.ResponseWriter
	g       *Gateway
	cat     *catalog // in force when the request began
	r       *http.Request
	control *http.ResponseController
	started time.Time // by the configured clock
	arrived time.Time // by the connection's

	status    int             // 0 until the header was written
	deadline  time.Time       // when the client counts as stalled; moved on by writes
	bodyUntil time.Time       // when the body has to have come, as far as that was told to the connection
	body      intake.BodyUse  // what it takes of the memory for bodies
	presence  intake.Presence // of the client

	service *service    // that the host reaches; see reach
	prefs   preferences // the client's own limits and wishes; see readPreferences

	route     string      // of the URL map, for the metrics
	token     *l402.Token // proven genuine and paid; its caveats are judged by authorize
	tokenErr  error       // why there is no token, or nil when none was presented
	who       standing    // what the credential is worth here; see identify
	credited  bool        // the token's deposit is known to be in the ledger
	requestID string      // of the hold; empty: none was made
	failureID string      // of an answer without a hold; empty: it has no name yet
	origin    string      // what a browser is told that may read the answer; empty: nothing
	varies    bool        // the answer depends on the origin
	model     string      // a configured model, for the metrics; empty: none
	backend   string      // that the request went to last, for the log; empty: none
}

// Unwrap lets http.ResponseController find the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader sends the header once; later calls are ignored, since the URL
// map's library makes one after each handler.
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

// FlushError sends what was written so far.
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

// dropStalled makes the kernel forget what a stalled client has not taken,
// which it would otherwise keep for as long as the client's machine is there.
func (x *exchange) dropStalled(err error) {
	if err != nil && x.r.ProtoMajor < 2 && errors.Is(err, os.ErrDeadlineExceeded) {
		if conn := intake.ConnectionOf(x.r); conn != nil {
			_ = conn.SetLinger(0) // the connection is closed in any case
		}
	}
}

// roll gives the client another WriteStall to take what is written next. A
// deadline that has most of its time left is not moved, which saves a call per
// event. There is no way to fail that the next write would not report.
func (x *exchange) roll() {
	stall := x.cat.WriteStall
	now := time.Now() // the connection's clock, not the configured one
	if x.deadline.Sub(now) < stall*3/4 {
		x.deadline = now.Add(stall)
		_ = x.control.SetWriteDeadline(x.deadline)
	}
}

// rest lifts the deadline between writes to an HTTP/2 stream: there it is not
// the deadline of a write, but resets the stream when it passes, and an answer
// may well take longer to come than to be written.
func (x *exchange) rest() {
	if x.r.ProtoMajor >= 2 {
		x.deadline = time.Time{}
		_ = x.control.SetWriteDeadline(x.deadline)
	}
}

// serve is the outermost handler of the public listener: it proves the
// credential, answers panics, and counts.
func (g *Gateway) serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = withTidyPath(r)
		if ctx := g.observer.Began(r); ctx != r.Context() {
			r = r.WithContext(ctx)
		}
		x := &exchange{ResponseWriter: w, g: g, cat: g.catalog(), r: r, control: http.NewResponseController(w), started: g.now(), arrived: time.Now()}
		if r.ProtoMajor < 2 {
			x.roll() // the connection may carry the deadline of its last request
		}
		if r.ContentLength != 0 {
			// Also for a body that no handler reads: net/http reads it before it
			// answers. readBody moves the deadline on with what comes, and lifts it
			// once all of it is there.
			x.awaitBody(0)
		}
		watched, end := x.presence.Watch(r, x.cat.WriteStall)
		defer end()
		x.r = watched
		defer func() { x.served(recover()) }()
		x.authenticate()
		x.readOrigin()
		if r.URL.Path != pathAlive { // liveness probes skip the limit: Kubernetes restarts a pod that does not answer
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
			// Returning would make net/http send an empty 200, which a client that only
			// stopped sending would take for its answer.
			panic(http.ErrAbortHandler)
		}
	})
}

var errPanic = errors.New("panic while serving")

// served ends the exchange, after its handler has returned or panicked.
func (x *exchange) served(panicked any) {
	ctx := x.r.Context()
	if panicked != nil && panicked != http.ErrAbortHandler {
		x.g.observer.Panicked(ctx, x.r.URL.Path, panicked, debug.Stack())
	}
	x.body.Release()
	x.roll() // for what net/http itself writes at the end
	x.g.observer.Ended(ctx, x.route, x.status)
	if panicked == nil {
		return
	}
	if x.status == 0 && panicked != http.ErrAbortHandler {
		x.fail(errPanic)
		return
	}
	panic(http.ErrAbortHandler) // the answer is broken: the client must see that
}

// authenticate proves the credential by computation alone, on every route: the
// payment behind it is credited whatever becomes of the request.
func (x *exchange) authenticate() {
	credential, err := l402.CredentialFromHeader(x.r.Header)
	if err != nil || credential == nil {
		x.tokenErr = err
		return
	}
	x.token, x.tokenErr = x.cat.Keys.Verify(credential)
	if x.tokenErr != nil {
		x.token = nil
	}
}

// deposit is what the token proves to have been paid.
func (x *exchange) deposit() metering.Deposit {
	return metering.Deposit{Hash: x.token.PaymentHash, Account: x.token.ID, Amount: x.token.Deposit}
}

// credit brings the deposit of a proven token into the ledger, once. It runs
// before any answer that is not itself the outcome of a reservation, which
// carries the deposit along.
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

// tellPaid tells that a payment was presented, and whether it is credited.
func (x *exchange) tellPaid(err error) {
	x.g.observer.Paid(x.r.Context(), observe.Payment{Hash: x.token.PaymentHash, Amount: x.token.Deposit, Err: err})
}

// creditAnyway credits where the answer does not depend on it. After a failure
// the client can present the token again, and the settle stream credits too.
func (x *exchange) creditAnyway() { _ = x.credit() }

// available is what the token may spend, its payment included.
func (x *exchange) available() (l402.Msat, error) {
	if err := x.credit(); err != nil {
		return 0, err
	}
	ctx, cancel := x.detached(x.g.cfg.SettleWait)
	defer cancel()
	balance, err := x.g.ledger.Balance(ctx, x.token.ID, x.token.Budgets)
	return balance.Available, err
}

// detached returns a context that outlives the client, for what must be
// recorded whatever it does.
func (x *exchange) detached(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(x.r.Context()), limit)
}

// statusClientGone stands in the metrics for an answer that nobody waited for.
// Nothing of it is written: the connection, or the stream of HTTP/2, is aborted.
const statusClientGone = 499

// fail answers with the problem of err, unless the answer has begun.
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

// id names the answer: the hold where there is one, because that finds it in the
// ledger, else a name of its own, which finds it in the log.
func (x *exchange) id() string {
	if x.requestID != "" {
		return x.requestID
	}
	if x.failureID == "" {
		x.failureID = metering.NewHoldID().String()
	}
	return x.failureID
}

// voter stands for the account in what is learnt from answers; 0: there is none.
func (x *exchange) voter() uint64 {
	if x.token == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(x.token.ID[:8])
}

// quoteExpiry is until when a price named now is good for who pays for it.
func (x *exchange) quoteExpiry() time.Time {
	return x.g.now().Add(x.cat.QuoteTTL).UTC().Truncate(time.Second)
}
