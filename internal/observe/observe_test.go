package observe_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// counter is an Observer that counts its events, and keeps the last event.
type counter struct {
	observe.Observer
	seen map[string]int
}

func newCounter() *counter { return &counter{Observer: observe.None{}, seen: map[string]int{}} }

func (c *counter) Began(r *http.Request) context.Context {
	c.seen["Began"]++
	return context.WithValue(r.Context(), c, len(c.seen))
}
func (c *counter) Ended(context.Context, string, int)               { c.seen["Ended"]++ }
func (c *counter) Panicked(context.Context, string, any, []byte)    { c.seen["Panicked"]++ }
func (c *counter) Limited(context.Context, string)                  { c.seen["Limited"]++ }
func (c *counter) Refused(context.Context, observe.Refusal)         { c.seen["Refused"]++ }
func (c *counter) Challenged(context.Context, observe.Challenge)    { c.seen["Challenged"]++ }
func (c *counter) Paid(context.Context, observe.Payment)            { c.seen["Paid"]++ }
func (c *counter) FirstByte(context.Context, string, time.Duration) { c.seen["FirstByte"]++ }
func (c *counter) FellBack(context.Context, string, string, error)  { c.seen["FellBack"]++ }
func (c *counter) BackendFailed(context.Context, observe.Failure)   { c.seen["BackendFailed"]++ }
func (c *counter) Overran(context.Context, observe.Overrun)         { c.seen["Overran"]++ }
func (c *counter) Settled(context.Context, observe.Settlement)      { c.seen["Settled"]++ }
func (c *counter) Delayed(context.Context, string, error)           { c.seen["Delayed"]++ }
func (c *counter) Lost(context.Context, string, error)              { c.seen["Lost"]++ }
func (c *counter) PriceMoved(context.Context, pricing.Epoch)        { c.seen["PriceMoved"]++ }

// TestAllTellsEach: All tells every event to every observer, once and unchanged.
func TestAllTellsEach(t *testing.T) {
	first, second := newCounter(), newCounter()
	both := reflect.ValueOf(observe.All(first, nil, second))
	events := reflect.TypeFor[observe.Observer]()
	for i := range events.NumMethod() {
		method := events.Method(i)
		var args []reflect.Value
		for j := range method.Type.NumIn() {
			args = append(args, reflect.Zero(method.Type.In(j)))
		}
		if method.Name == "Began" {
			args[0] = reflect.ValueOf(httptest.NewRequest("GET", "/", nil))
		}
		both.MethodByName(method.Name).Call(args)
		for _, c := range []*counter{first, second} {
			if c.seen[method.Name] != 1 || len(c.seen) != i+1 {
				t.Errorf("after %s an observer has seen %v", method.Name, c.seen)
			}
		}
	}
}

var settlement = observe.Settlement{RequestID: "r-1", Model: "m", Backend: "b", Took: time.Millisecond, Total: time.Second,
	Entry: &metering.Entry{Charged: 30, Unbilled: 5, Outcome: metering.OutcomeComplete, Source: metering.SourceReported,
		Usage: pricing.Units{pricing.InputTokens: 10, pricing.OutputTokens: 20}}}

func page(t *testing.T, m *observe.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestMetricsCountASettlement(t *testing.T) {
	m := observe.NewMetrics()
	m.Delayed(t.Context(), "r-1", errors.New("away"))
	late := settlement
	late.Late = true
	m.Settled(t.Context(), late)
	m.Delayed(t.Context(), "r-2", errors.New("away"))
	m.Lost(t.Context(), "r-2", errors.New("away"))
	m.Delayed(t.Context(), "r-3", errors.New("away"))
	got := page(t, m)
	for _, line := range []string{
		`sluice_charged_msat_total{model="m"} 30`,
		`sluice_unbilled_msat_total{model="m"} 5`,
		`sluice_backend_overruns_total{backend="b",kind="cost"} 1`,
		`sluice_backend_overrun_msat_total{backend="b"} 5`,
		`sluice_tokens_total{direction="output",model="m",source="reported"} 20`,
		`sluice_unsettled_charges 1`,
		`sluice_lost_charges_total 1`,
		`sluice_settle_seconds_count 1`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("the page lacks %s", line)
		}
	}
}

func TestMetricsCountAnOverrun(t *testing.T) {
	m := observe.NewMetrics()
	m.Overran(t.Context(), observe.Overrun{Backend: "b", Model: "m", Impossible: true})
	m.Overran(t.Context(), observe.Overrun{Backend: "b", Model: "m", Prompt: 3, Completion: 4, Worth: 11})
	got := page(t, m)
	for _, line := range []string{
		`sluice_usage_clamped_total{model="m"} 1`,
		`sluice_backend_overruns_total{backend="b",kind="usage"} 1`,
		`sluice_backend_overruns_total{backend="b",kind="prompt"} 1`,
		`sluice_backend_overruns_total{backend="b",kind="completion"} 1`,
		`sluice_backend_overrun_tokens_total{backend="b",direction="input"} 3`,
		`sluice_backend_overrun_tokens_total{backend="b",direction="output"} 4`,
		`sluice_unbilled_msat_total{model="m"} 11`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("the page lacks %s", line)
		}
	}
}

// TestLogIsQuietAboutWhatIsExpected: Log writes no line for a 5xx that load caused, for a refusal
// of a client, or for a payment that was credited.
func TestLogIsQuietAboutWhatIsExpected(t *testing.T) {
	var out strings.Builder
	l := observe.NewLog(slog.New(slog.NewTextHandler(&out, nil)))
	l.Refused(t.Context(), observe.Refusal{Status: 503, Expected: true})
	l.Refused(t.Context(), observe.Refusal{Status: 402})
	l.Challenged(t.Context(), observe.Challenge{Service: "s", Result: observe.ChallengeRefused})
	l.Paid(t.Context(), observe.Payment{Amount: 1})
	l.Overran(t.Context(), observe.Overrun{Backend: "b", Prompt: 1})
	if out.Len() > 0 {
		t.Errorf("the log has %s", out.String())
	}
	l.Refused(t.Context(), observe.Refusal{Status: 500, Path: "/v1/x", Cause: errors.New("broken")})
	l.Paid(t.Context(), observe.Payment{Hash: l402.PaymentHash{1}, Err: errors.New("away")})
	l.Settled(t.Context(), settlement)
	for _, words := range []string{`msg="request failed" path=/v1/x status=500`, `cause=broken`, `msg="deposit was not credited"`,
		`msg=request request_id=r-1 model=m outcome=complete source=reported charged_msat=30 input_tokens=10 output_tokens=20 backend=b took=1s`} {
		if !strings.Contains(out.String(), words) {
			t.Errorf("the log lacks %s:\n%s", words, out.String())
		}
	}
}

// TestAllKeepsWhatEachAddsToTheContext: All keeps what each observer adds to the context, such as
// a trace's span.
func TestAllKeepsWhatEachAddsToTheContext(t *testing.T) {
	first, second := newCounter(), newCounter()
	ctx := observe.All(first, observe.None{}, second).Began(httptest.NewRequest("GET", "/", nil))
	if ctx.Value(first) == nil || ctx.Value(second) == nil {
		t.Errorf("the context lacks what an observer added: %v, %v", ctx.Value(first), ctx.Value(second))
	}
}

// TestEventsAllocateNothing: All allocates no memory to tell several observers of an event.
func TestEventsAllocateNothing(t *testing.T) {
	o := observe.All(observe.None{}, observe.None{})
	ctx, r := t.Context(), httptest.NewRequest("GET", "/", nil)
	if n := testing.AllocsPerRun(100, func() {
		o.Began(r)
		o.FirstByte(ctx, "m", time.Second)
		o.Settled(ctx, settlement)
		o.Ended(ctx, "chat", 200)
	}); n != 0 {
		t.Errorf("the events of a request allocate %v times", n)
	}
}
