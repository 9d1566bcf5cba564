package gateway_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// reprice publishes the test rates times a factor, and puts them in force.
func (r *rig) reprice(factor float64) pricing.Epoch {
	r.t.Helper()
	e, err := r.prices.PublishEpoch(r.t.Context(), pricing.Epoch{Model: testModel, Rates: testRates.Scale(factor),
		Multiplier: factor, Signal: 1.5, BoundBy: pricing.BoundNone, At: time.Now()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.board.Set(e)
	return e
}

// priced returns a rig whose price is published in its ledger.
func priced(t *testing.T, configure ...func(*setup)) (*rig, pricing.Epoch) {
	r := newRig(t, configure...)
	for {
		if e := r.reprice(1); e.ID > 3 { // above the rig's own
			return r, e
		}
	}
}

// costs checks that the last charge is the true usage at the test rates times factor.
func (r *rig) costs(k token, factor float64, epoch int64) {
	r.t.Helper()
	e := r.lastCharge(k)
	want, err := testRates.Scale(factor).Cost(e.Usage)
	if err != nil || e.Charged != want || e.Epoch != epoch || e.Charged == 0 {
		r.t.Errorf("charged %v at epoch %d, want %v at %d: %+v, %v", e.Charged, e.Epoch, want, epoch, e, err)
	}
}

func TestPaidQuoteHoldsWhenThePriceRises(t *testing.T) {
	r, first := priced(t)
	k := r.buy(maxPurchase)
	second := r.reprice(3)
	a := r.chat(k, request("max_tokens", "16"))
	if a.status != http.StatusOK || a.header.Get("L402-Price-Epoch") != strconv.FormatInt(first.ID, 10) {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	r.costs(k, 1, first.ID)
	late := r.buy(maxPurchase)
	if a := r.chat(late, request("max_tokens", "16")); a.header.Get("L402-Price-Epoch") != strconv.FormatInt(second.ID, 10) {
		t.Errorf("epoch %q", a.header.Get("L402-Price-Epoch"))
	}
	r.costs(late, 3, second.ID)
	third := r.reprice(0.5)
	r.chat(k, request("max_tokens", "16"))
	r.costs(k, 0.5, third.ID) // the price has fallen below the quote
	r.reprice(3)
	r.clock.advance(2 * time.Minute)
	r.chat(k, request("max_tokens", "16"))
	r.costs(k, 3, r.lastCharge(k).Epoch) // the quote has expired
}

// TestLockCoversItsOwnPaymentOnly: a lock covers as much as was paid with it, and nothing else that
// is on the account.
func TestLockCoversItsOwnPaymentOnly(t *testing.T) {
	r, first := priced(t)
	k := r.buy(minPurchase)
	r.balance(r.pay(r.do("POST", "/l402/topup", `{"amount_msat": `+strconv.Itoa(maxPurchase)+`}`, k.with())))
	second := r.reprice(3)
	for range 40 {
		r.chat(k, request("max_tokens", "256", "n", "8"))
		if r.lastCharge(k).Epoch == second.ID {
			break
		}
	}
	r.costs(k, 3, second.ID)
	var covered l402.Msat
	most := l402.Msat(0)
	for _, e := range r.usage(k) {
		if e.Epoch == first.ID {
			covered += e.Charged
			most = max(most, e.Charged)
		}
	}
	if covered > minPurchase || covered < minPurchase-2*most {
		t.Errorf("%v were covered, of a payment of %d", covered, minPurchase)
	}
	if a := r.balance(k); a.msat(t, "available_msat") < maxPurchase/2 {
		t.Errorf("%s", a.body)
	}
}

func TestMaxCostKnowsTheLock(t *testing.T) {
	r, _ := priced(t)
	k := r.buy(maxPurchase)
	body := request("max_tokens", "16")
	bound := r.do("POST", chatPath, body, nil).msat(t, "required_msat")
	r.reprice(3)
	limit := strconv.FormatInt(int64(bound), 10)
	if a := r.chat(k, body, "L402-Max-Cost-Msat", limit); a.status != http.StatusOK {
		t.Errorf("with the lock: %d %s", a.status, a.body)
	}
	before := r.balance(k).msat(t, "available_msat")
	r.clock.advance(2 * time.Minute)
	p := r.chat(k, body, "L402-Max-Cost-Msat", limit).wantProblem(t, http.StatusPreconditionFailed, "cost-above-maximum")
	if p["multiplier"] != 3.0 || p["signal"] != 1.5 || p["bound_by"] != "none" || p["required_msat"] != float64(3*bound) {
		t.Errorf("the quote is %v", p)
	}
	if after := r.balance(k); after.msat(t, "available_msat") != before || after.msat(t, "held_msat") != 0 {
		t.Errorf("%v before, %s after", before, after.body)
	}
}

// TestLockOutlivesARestart: a price that this process never had in force is found in the ledger.
func TestLockOutlivesARestart(t *testing.T) {
	r, first := priced(t)
	k := r.buy(maxPurchase)
	last := r.reprice(3)
	forgetful := new(pricing.Board)
	forgetful.Set(last)
	r.board = forgetful
	r.startGateway(setup{}, slog.New(slog.DiscardHandler))
	r.chat(k, request("max_tokens", "16"))
	r.costs(k, 1, first.ID)
}

// noRecord is a record of prices that does not answer.
type noRecord struct{}

var errNoRecord = errors.New("the store is away")

func (noRecord) Epoch(context.Context, int64) (e pricing.Epoch, found bool, err error) {
	return e, false, errNoRecord
}

func (noRecord) Epochs(context.Context, pricing.EpochQuery) ([]pricing.Epoch, error) {
	return nil, errNoRecord
}

// TestRecordOfPricesAway: while the record of prices does not answer, a quote that an earlier
// process made has no effect, requests are served at the price in force, and the operator is told.
func TestRecordOfPricesAway(t *testing.T) {
	r, _ := priced(t)
	k := r.buy(maxPurchase)
	last := r.reprice(3)
	r.board = new(pricing.Board)
	r.board.Set(last)
	r.startGateway(setup{gateway: func(c *gateway.Config) {
		c.Prices = noRecord{}
		c.Override = func(context.Context, string, float64) error { return errNoRecord }
	}}, slog.New(slog.DiscardHandler))
	r.chat(k, request("max_tokens", "16"))
	r.costs(k, 3, last.ID)
	for _, a := range []*answer{r.ask("GET", "/admin/epochs", adminToken), r.post("/admin/prices", `{"model":"demo","multiplier":2}`)} {
		p := a.wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
		if p["detail"] != "the record of prices does not answer" || a.header.Get("Retry-After") == "" {
			t.Errorf("%v %s", a.header, a.body)
		}
	}
}

func TestEveryQuoteTellsWhy(t *testing.T) {
	r, _ := priced(t)
	e := r.reprice(2)
	r.board.SetStanding(pricing.Standing{Model: testModel, Epoch: e.ID, Multiplier: 2, Signal: 1.25, BoundBy: pricing.BoundSlew})
	model := r.do("GET", "/v1/models", "", nil).json(t)["data"].([]any)[0].(map[string]any)["l402"].(map[string]any)
	quote := r.do("GET", "/l402/quote?model="+testModel, "", nil).json(t)
	challenge := r.do("POST", chatPath, request(), nil).wantProblem(t, http.StatusPaymentRequired, "payment-required")
	for name, got := range map[string]map[string]any{"models": model, "quote": quote, "402": challenge} {
		if got["multiplier"] != 2.0 || got["signal"] != 1.25 || got["bound_by"] != "slew" || got["price_epoch"] != float64(e.ID) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestOperatorSeesAndFixesPrices(t *testing.T) {
	var model string
	var multiplier float64
	r := newRig(t, func(s *setup) {
		s.gateway = func(c *gateway.Config) {
			c.Override = func(_ context.Context, m string, x float64) error {
				if m != testModel {
					return pricing.ErrArgument
				}
				model, multiplier = m, x
				return nil
			}
		}
	})
	a := r.post("/admin/prices", `{"model":"demo","multiplier":2.5}`)
	if a.status != http.StatusOK || model != testModel || multiplier != 2.5 {
		t.Errorf("%d %s: %s × %g", a.status, a.body, model, multiplier)
	}
	for _, wrong := range []string{`{}`, `{"model":"demo"}`, `{"model":"other","multiplier":1}`, `x`} {
		r.post("/admin/prices", wrong).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
	if a := r.ask("GET", "/admin/prices", adminToken); a.json(t)["models"].(map[string]any)[testModel] == nil {
		t.Errorf("%s", a.body)
	}
}

func TestOperatorReadsThePast(t *testing.T) {
	r, first := priced(t)
	last := r.reprice(2)
	list := r.ask("GET", "/admin/epochs?model=demo&after="+strconv.FormatInt(first.ID-1, 10), adminToken).json(t)["epochs"].([]any)
	if len(list) != 2 || list[1].(map[string]any)["price_epoch"] != float64(last.ID) || list[1].(map[string]any)["multiplier"] != 2.0 {
		t.Errorf("%v", list)
	}
	for _, wrong := range []string{"after=x", "limit=-1", "since=yesterday"} {
		r.ask("GET", "/admin/epochs?"+wrong, adminToken).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
}

// post sends a body to the operator's listener.
func (r *rig) post(path, body string) *answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.admin+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return &answer{resp.StatusCode, resp.Header, resp.Trailer, text}
}
