package gateway_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/apis"
	"sluice.example/sluice/pricing"
)

// weigh is an API that only this test has. It shows everything that a format must define.
//
//	{"model":"demo","words":["sluice","lock"]} → {"grams":[6,4],"read":2}
type weigh struct{}

func (weigh) Name() string                     { return "weigh" }
func (weigh) Paths() []string                  { return []string{"/v1/weigh"} }
func (weigh) Smallest() (path, request string) { return "/v1/weigh", `{"model":"-","words":["a"]}` }

func (weigh) Parse(_ string, body []byte, _ func(string) *format.Policy) (format.Request, error) {
	var r weighing
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || r.Name == "" || len(r.Words) == 0 {
		return nil, format.RefuseParam("words", "send a model and the words to weigh")
	}
	return r, nil
}

// weighing is a request to weigh. Each word is one token.
type weighing struct {
	Name  string   `json:"model"`
	Words []string `json:"words"`
}

func (r weighing) Model() string                                                     { return r.Name }
func (weighing) Stream() bool                                                        { return false }
func (weighing) HasCap() bool                                                        { return true }
func (r weighing) PromptBytes() int64                                                { return int64(len(r.Words)) }
func (weighing) Fit(b format.Bound, _ format.Limits) format.Bound                    { return b }
func (weighing) Countable() bool                                                     { return false }
func (weighing) Gathered(format.Profile) bool                                        { return false }
func (weighing) CountPrompt(format.Profile, string, format.Limits) []format.Question { return nil }

func (r weighing) Bound(format.Limits) (format.Bound, error) {
	return format.Bound{Input: int64(len(r.Words)), Sequences: 1}, nil
}

func (r weighing) Rewrite(w format.Rewrite) []byte {
	r.Name = w.Model
	body, _ := json.Marshal(r)
	return body
}

func (r weighing) Meter(b format.Bound, _ *format.Calibration, _ format.MeterOptions) format.Meter {
	return &scale{bound: b}
}

// scale is the meter of an answer of weigh.
type scale struct {
	format.OneDocument
	bound format.Bound
	read  int64
}

func (s *scale) Unary(document []byte) ([]byte, error) {
	var answer struct {
		Grams []int
		Read  int64
	}
	s.Came(len(document))
	if err := json.Unmarshal(document, &answer); err != nil || len(answer.Grams) == 0 {
		s.Fail(format.Failure{})
		return nil, errors.New("it is no weight")
	}
	s.read = answer.Read
	s.End()
	return document, nil
}

func (s *scale) UnaryPart([]byte)                                    {}
func (s *scale) NeedsTokenizer() (prompt bool, text string, ok bool) { return false, "", false }
func (s *scale) Tokenized(int64, int64)                              {}
func (s *scale) Excess() format.Overrun                              { return format.Overrun{} }

func (s *scale) Running() (pricing.Units, metering.Source) {
	return pricing.Units{pricing.InputTokens: min(s.read, s.bound.Input)}, metering.SourceReported
}

func (s *scale) Final(end format.End, _ time.Time) (pricing.Units, metering.Source, bool) {
	if end != format.Complete || s.Failed() {
		return pricing.Units{}, metering.SourceNone, false
	}
	u, source := s.Running()
	return u, source, s.read > s.bound.Input
}

// TestASketchOfAnAPIIsSold: an API can be added without a change to any other package. It is priced,
// challenged, held, rewritten, metered and refused like the other APIs.
func TestASketchOfAnAPIIsSold(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		if req.URL.Path != "/v1/weigh" {
			http.NotFound(w, req)
			return
		}
		if strings.Contains(string(body), "nothing") {
			io.WriteString(w, `{"grams":[]}`)
			return
		}
		io.WriteString(w, `{"grams":[6,4],"read":2}`)
	}))
	t.Cleanup(backend.Close)
	r := newRig(t, func(s *setup) {
		s.backendURLs, s.rates = []string{backend.URL}, &dialectRates
		s.gateway = func(c *gateway.Config) { c.APIs = append(apis.All(), weigh{}) }
		s.service = func(svc *gatewayService) { svc.Models[0].Formats = []string{"weigh"} }
	})
	body := `{"model":"` + testModel + `","words":["sluice","lock","gate"]}`
	stranger := r.do("POST", "/v1/weigh", body, nil)
	if got := stranger.msat(t, "required_msat"); got != 3 {
		t.Errorf("three words are held at %d msat", got)
	}
	k := r.buy(maxPurchase)
	if a := r.do("POST", "/v1/weigh", body, k.with()); a.status != http.StatusOK || !strings.Contains(string(a.body), `"grams":[6,4]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.wantSpent(k, 2)
	r.do("POST", "/v1/weigh", `{"model":"`+testModel+`","words":["nothing"]}`, k.with()).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	r.do("POST", "/v1/weigh", `{"model":"`+testModel+`","stones":1}`, k.with()).wantProblem(t, http.StatusBadRequest, "invalid-request")
	r.chat(k, request()).wantProblem(t, http.StatusNotFound, "invalid-request")
	r.wantSpent(k, 2)
}
