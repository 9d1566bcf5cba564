package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/pricing"
)

// livePrice is one model's price, and the reasons for it.
type livePrice struct {
	Price    *pricing.Epoch    `json:"price,omitempty"`
	Standing *pricing.Standing `json:"standing,omitempty"`
}

func (a *admin) livePrice(model string) (p livePrice) {
	if e, ok := a.cfg.Board.Current(model); ok {
		p.Price = &e
	}
	if s, ok := a.cfg.Board.Standing(model); ok {
		p.Standing = &s
	}
	return p
}

// prices answers GET /admin/prices with every price, the signal that the price follows, what bounds
// it, and what a shadow policy would charge.
func (a *admin) prices(*http.Request) (any, error) {
	list := map[string]livePrice{}
	for _, name := range a.catalog().modelNames() {
		list[name] = a.livePrice(name)
	}
	return map[string]any{"models": list}, nil
}

// maxOverride bounds the body of an override in bytes.
const maxOverride = 4 << 10

// override answers POST /admin/prices, with which the operator fixes a model's multiplier at once
// on all replicas. The multiplier 0 ends that.
func (a *admin) override(r *http.Request) (any, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxOverride))
	if err != nil {
		return nil, problem.Invalid("the body cannot be read")
	}
	var wanted struct {
		Model      string   `json:"model"`
		Multiplier *float64 `json:"multiplier"`
	}
	if err := json.Unmarshal(body, &wanted); err != nil || wanted.Model == "" || wanted.Multiplier == nil {
		return nil, problem.Invalid(`send {"model": "…", "multiplier": N}, with N = 1 for the rate card and 0 to let the policy go on`)
	}
	if a.cfg.Override == nil {
		return nil, problem.Invalid("prices cannot be overridden here")
	}
	if err := a.cfg.Override(r.Context(), wanted.Model, *wanted.Multiplier); errors.Is(err, pricing.ErrArgument) {
		return nil, problem.Invalid(err.Error())
	} else if err != nil {
		return nil, pricesAway(err)
	}
	a.log.Warn("price overridden by the operator", "model", wanted.Model, "multiplier", *wanted.Multiplier)
	return map[string]any{"model": wanted.Model, "multiplier": *wanted.Multiplier}, nil
}

// epochs answers GET /admin/epochs?model=M&since=TIME&after=ID&limit=N with published prices by
// ascending id, in the form that `gateway simulate` replays. For the next page, after is the last
// id of this page.
func (a *admin) epochs(r *http.Request) (any, error) {
	query := r.URL.Query()
	after, ok := parseCount(query.Get("after"), 0)
	if !ok {
		return nil, problem.Invalid("after must be the id of an epoch")
	}
	limit, ok := parseCount(query.Get("limit"), 0)
	if !ok {
		return nil, problem.Invalid("limit must be a number of epochs")
	}
	since, ok := parseTime(query.Get("since"))
	if !ok {
		return nil, problem.Invalid("since must be a time in RFC 3339 or in unix seconds")
	}
	epochs, err := a.cfg.Prices.Epochs(r.Context(), pricing.EpochQuery{Model: query.Get("model"), After: after, Since: since, Limit: int(min(limit, 1<<20))})
	if err != nil {
		return nil, pricesAway(err)
	}
	return map[string]any{"epochs": append([]pricing.Epoch{}, epochs...)}, nil
}

// pricesAway returns the problem for the operator if the record of prices does not answer. An
// override may have been written nevertheless. Writing it again does no harm.
func pricesAway(cause error) error {
	return problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.BackendUnavailable, "the record of prices does not answer"), problem.BusyRetry).Because(cause)
}
