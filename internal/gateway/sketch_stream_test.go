package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/apis"
	"sluice.example/sluice/pricing"
)

// countdown is an API that only this test has, and that answers with events. It is for streams what
// weigh is for documents.
//
//	{"model":"demo","from":2} → {"at":2} {"at":1} {"at":0}
//
// Each number is a token of the answer; 0 is its end.
type countdown struct{}

const countdownPath = "/v1/countdown"

func (countdown) Name() string                     { return "countdown" }
func (countdown) Paths() []string                  { return []string{countdownPath} }
func (countdown) Smallest() (path, request string) { return countdownPath, `{"model":"-","from":1}` }

func (countdown) Parse(_ string, body []byte, _ func(string) *format.Policy) (format.Request, error) {
	var r counting
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || r.Name == "" || r.From < 1 {
		return nil, format.RefuseParam("from", "send a model and the number to count from")
	}
	return r, nil
}

// counting is a request to countdown.
type counting struct {
	Name string `json:"model"`
	From int64  `json:"from"`
}

func (r counting) Model() string                                                     { return r.Name }
func (counting) Stream() bool                                                        { return true }
func (counting) HasCap() bool                                                        { return true }
func (counting) PromptBytes() int64                                                  { return 1 }
func (counting) Fit(b format.Bound, _ format.Limits) format.Bound                    { return b }
func (counting) Countable() bool                                                     { return false }
func (counting) Gathered(format.Profile) bool                                        { return false }
func (counting) CountPrompt(format.Profile, string, format.Limits) []format.Question { return nil }

func (r counting) Bound(format.Limits) (format.Bound, error) {
	return format.Bound{Cap: r.From, Sequences: 1, Output: r.From}, nil
}

func (r counting) Rewrite(w format.Rewrite) []byte {
	r.Name, r.From = w.Model, min(r.From, w.Cap)
	body, _ := json.Marshal(r)
	return body
}

func (r counting) Meter(b format.Bound, _ *format.Calibration, _ format.MeterOptions) format.Meter {
	return &ticks{bound: b}
}

// ticks is the meter of an answer of countdown. It takes the rest of its methods from the meter of a
// document.
type ticks struct {
	format.OneDocument
	bound         format.Bound
	pending, said int64
	part, end     bool
}

func (c *ticks) Event(event []byte) (out []byte, last bool) {
	data, _ := strings.CutPrefix(strings.TrimSpace(string(event)), "data: ")
	var number struct{ At *int64 }
	if c.part = json.Unmarshal([]byte(data), &number) == nil && number.At != nil; !c.part {
		c.Fail(format.Failure{Message: data})
		return nil, false
	}
	if c.end = *number.At == 0; c.end {
		return nil, true
	}
	c.pending = 1
	c.Came(len(event))
	return event, false
}

func (c *ticks) Delivered() {
	c.OneDocument.Delivered()
	c.said, c.pending = c.said+c.pending, 0
}

func (c *ticks) IsPart() bool   { return c.part }
func (c *ticks) Started() bool  { return c.said > 0 }
func (c *ticks) Finished() bool { return c.end }
func (c *ticks) Ended() bool    { return c.end }

func (c *ticks) Unary([]byte) ([]byte, error)                        { return nil, fmt.Errorf("it is no stream") }
func (c *ticks) UnaryPart([]byte)                                    {}
func (c *ticks) NeedsTokenizer() (prompt bool, text string, ok bool) { return false, "", false }
func (c *ticks) Tokenized(int64, int64)                              {}
func (c *ticks) Excess() format.Overrun                              { return format.Overrun{} }

func (c *ticks) Running() (pricing.Units, metering.Source) {
	return pricing.Units{pricing.OutputTokens: min(c.said, c.bound.Output), pricing.Bytes: c.Sent()}, metering.SourceCounted
}

func (c *ticks) Final(format.End, time.Time) (pricing.Units, metering.Source, bool) {
	u, source := c.Running()
	return u, source, c.said > c.bound.Output
}

func (c *ticks) Close(how format.Closing) []byte {
	if how.End == format.Complete {
		return []byte(how.Comment + "\ndata: {\"at\":0}\n\n")
	}
	return []byte(fmt.Sprintf("data: {\"halt\":%q}\n%s\n\n", how.Code, how.Comment))
}

// counter is a backend that counts down. It stops before it sends the number stop. Before it sends the
// number wait, it waits until its caller hangs up.
func counter(t *testing.T, stop, wait int) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != countdownPath {
			http.NotFound(w, req)
			return
		}
		var r counting
		if err := json.NewDecoder(req.Body).Decode(&r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", sse)
		for at := int(r.From); at >= 0; at-- {
			switch at {
			case stop:
				panic(http.ErrAbortHandler)
			case wait:
				<-req.Context().Done()
				return
			}
			fmt.Fprintf(w, "data: {\"at\":%d}\n\n", at)
			w.(http.Flusher).Flush()
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

const never = -1

// counts returns a gateway that sells only the countdown.
func counts(t *testing.T, backend string, rates pricing.Rates) *rig {
	return newRig(t, func(s *setup) {
		s.backendURLs, s.rates = []string{backend}, &rates
		s.gateway = func(c *gateway.Config) { c.APIs = append(apis.All(), countdown{}) }
		s.service = func(svc *gatewayService) { svc.Models[0].Formats = []string{"countdown"} }
	})
}

func (r *rig) countdown(k token, from int, more ...string) *answer {
	r.t.Helper()
	return r.do("POST", countdownPath, fmt.Sprintf(`{"model":%q,"from":%d}`, testModel, from), k.with(more...))
}

// TestASketchOfAStreamIsSold: an API of events can be added without a change to any other package. Its
// bound is held, a balance below the bound gets a 402, and each number that was delivered is charged.
func TestASketchOfAStreamIsSold(t *testing.T) {
	r := counts(t, counter(t, never, never), dialectRates)
	stranger := r.do("POST", countdownPath, fmt.Sprintf(`{"model":%q,"from":7}`, testModel), nil)
	stranger.wantProblem(t, http.StatusPaymentRequired, "payment-required")
	if need := stranger.msat(t, "required_msat"); need != 70 {
		t.Errorf("seven numbers are held at %d msat", need)
	}
	k := r.buy(minPurchase)
	a := r.countdown(k, 7)
	if told, left := comment(t, a.body); told != 70 || left != minPurchase-70 || !strings.HasSuffix(string(a.body), fmt.Sprintf("\n\n: l402 cost_msat=70 balance_msat=%d\ndata: {\"at\":0}\n\n", left)) {
		t.Errorf("the stream is\n%s", a.body)
	}
	if e := r.lastCharge(k); e.Charged != 70 || e.Outcome != metering.OutcomeComplete || e.Usage[pricing.OutputTokens] != 7 || e.Usage[pricing.Calls] != 0 {
		t.Errorf("%+v", e)
	}
	short := r.countdown(k, minPurchase/10).wantProblem(t, http.StatusPaymentRequired, "insufficient-balance")
	if short["required_msat"] != float64(minPurchase) || short["balance_msat"] != float64(minPurchase-70) {
		t.Errorf("%v", short)
	}
	r.countdown(k, 7, "L402-Max-Cost-Msat", "69").wantProblem(t, http.StatusPreconditionFailed, "cost-above-maximum")
	if a := r.countdown(k, minPurchase, "L402-Allow-Truncate", "1"); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.wantSpent(k, minPurchase-minPurchase%10)
	rich := r.buy(maxPurchase)
	r.do("POST", countdownPath, `{"model":"demo","to":1}`, rich.with()).wantProblem(t, http.StatusBadRequest, "invalid-request")
	r.do("POST", countdownPath, `{"model":"demo","from":3}`, rich.attenuate(t, "inference_capabilities=chat").with()).wantProblem(t, http.StatusForbidden, "caveat-violation")
	if a := r.do("POST", countdownPath, `{"model":"demo","from":3}`, rich.attenuate(t, "inference_capabilities=countdown").with()); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.chat(rich, request()).wantProblem(t, http.StatusNotFound, "invalid-request")
	var m struct {
		L402 struct{ Formats []string }
	}
	if r.do("GET", "/v1/models/"+testModel, "", nil).decode(t, &m); !slices.Equal(m.L402.Formats, []string{"countdown"}) {
		t.Errorf("/v1/models says %v", m.L402.Formats)
	}
	r.do("GET", countdownPath, "", nil).wantProblem(t, http.StatusPaymentRequired, "payment-required")
	r.do("GET", countdownPath, "", rich.with()).wantProblem(t, http.StatusMethodNotAllowed, "unknown-route")
	r.wantSpent(rich, 30)
}

// TestASketchOfAStreamIsCut: however the stream is cut, what was delivered is charged, and the API's
// error frame says why it was cut.
func TestASketchOfAStreamIsCut(t *testing.T) {
	bytes := dialectRates
	bytes[pricing.Bytes] = 2_000_000_000 // about 1,900 msat per event, with no bound beforehand
	for name, c := range map[string]struct {
		backend string
		rates   pricing.Rates
		code    string
		outcome metering.Outcome
	}{
		"by the backend": {counter(t, 4, never), dialectRates, "backend_cut", metering.OutcomeBackendCut},
		"by the balance": {counter(t, never, never), bytes, "balance_exhausted", metering.OutcomeHoldExhausted},
	} {
		r := counts(t, c.backend, c.rates)
		k := r.buy(minPurchase)
		a := r.countdown(k, 9)
		told, _ := comment(t, a.body)
		numbers := strings.Count(string(a.body), `{"at":`)
		if !strings.Contains(string(a.body), fmt.Sprintf("data: {\"halt\":%q}\n: l402 cost_msat=%d ", c.code, told)) || strings.Contains(string(a.body), `{"at":0}`) || numbers == 0 || numbers == 9 {
			t.Errorf("%s: the stream is\n%s", name, a.body)
		}
		e := r.lastCharge(k)
		if e.Outcome != c.outcome || e.Charged != told || e.Charged > minPurchase || e.Usage[pricing.OutputTokens] != int64(numbers) {
			t.Errorf("%s: told %d, %+v", name, told, e)
		}
		if c.code == "backend_cut" && e.Charged != 50 {
			t.Errorf("%s: charged %d msat for five numbers", name, e.Charged)
		}
	}
	r := counts(t, counter(t, never, 4), dialectRates)
	k := r.buy(minPurchase)
	ctx, hangUp := context.WithCancel(t.Context())
	resp := r.open(ctx, "POST", countdownPath, `{"model":"demo","from":9}`, k.with())
	readEvents(t, resp.Body, 5)
	hangUp()
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if e := r.lastCharge(k); e.Outcome != metering.OutcomeClientGone || e.Charged != 50 {
		t.Errorf("left after five numbers: %+v", e)
	}
}
