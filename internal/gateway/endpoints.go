package gateway

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

func unknownRoute() error {
	return problem.New(http.StatusNotFound, problem.UnknownRoute, "there is no such route; nothing is passed through that is not metered")
}

// wrongMethod returns the problem for a method that the route does not take. The header Allow names the
// methods that the route takes.
func wrongMethod(x *exchange) error {
	if x.r.URL.Path == "/" {
		x.Header().Del("Allow")
		return unknownRoute() // HEAD / exists, but there is nothing to get
	}
	if x.g.isPaid(x.r.URL.Path) {
		x.Header().Set("Allow", http.MethodPost) // GET and HEAD exist there only for probes
	}
	return problem.New(http.StatusMethodNotAllowed, problem.UnknownRoute, "this route does not take that method; see the Allow header")
}

// reply sends a JSON answer that must not be cached.
func (x *exchange) reply(status int, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	h := x.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	x.WriteHeader(status)
	_, _ = x.Write(append(body, '\n')) // a client that hung up needs no answer
	return nil
}

// modelSale is the member "l402" of a model in GET /v1/models.
type modelSale struct {
	Available bool     `json:"available"`          // a request for the model can be served now
	Formats   []string `json:"formats"`            // the APIs that sell the model, as s_capabilities names them
	AliasOf   string   `json:"alias_of,omitempty"` // the model that this name is an alias of; "": none
	*modelPrice
}

// modelPrice is the price in force; a modelSale without a price has nil.
type modelPrice struct {
	Rates      pricing.Rates `json:"rates"`
	Epoch      int64         `json:"price_epoch"`
	Multiplier float64       `json:"multiplier"`
	Signal     float64       `json:"signal"`
	BoundBy    string        `json:"bound_by"`
}

type listedModel struct {
	ID      string    `json:"id"`
	Object  string    `json:"object"`
	Created int64     `json:"created"`
	OwnedBy string    `json:"owned_by"`
	Context int64     `json:"context_length,omitempty"`
	Sale    modelSale `json:"l402"`
}

// listModels answers GET /v1/models with OpenAI's list, which has the prices in force.
func (g *Gateway) listModels(x *exchange) error {
	if err := x.reach(); err != nil {
		return err
	}
	list := make([]listedModel, 0, len(x.service.named))
	for _, m := range x.service.Models {
		list = append(list, g.listed(x.service.models[m.Name], m.Name))
		for _, alias := range m.Aliases {
			list = append(list, g.listed(x.service.models[m.Name], alias))
		}
	}
	return x.reply(http.StatusOK, map[string]any{"object": "list", "data": list})
}

// showModel answers GET /v1/models/{id} with one entry of the list. The id may contain slashes.
func (g *Gateway) showModel(x *exchange) error {
	if err := x.reach(); err != nil {
		return err
	}
	name := strings.TrimPrefix(x.r.URL.Path, pathModels+"/")
	m := x.service.named[name]
	if m == nil {
		return unknownModel()
	}
	return x.reply(http.StatusOK, g.listed(m, name))
}

// listed returns the entry of a model in the list, under one of the model's names.
func (g *Gateway) listed(m *model, name string) listedModel {
	entry := listedModel{ID: name, Object: "model", OwnedBy: m.OwnedBy, Context: m.Limits.ContextTokens}
	entry.Sale.Formats = namesOf(m.formats)
	entry.Sale.Available = g.serves(m)
	if name != m.Name {
		entry.Sale.AliasOf = m.Name
	}
	if !m.CreatedAt.IsZero() {
		entry.Created = m.CreatedAt.Unix()
	}
	if e, ok := g.cfg.Board.Live(m.Name); ok {
		entry.Sale.modelPrice = &modelPrice{e.Rates, e.ID, e.Multiplier, e.Signal, e.BoundBy}
	} else {
		entry.Sale.Available = false // a model without a price is not sold
	}
	return entry
}

// showQuote answers GET /l402/quote with the most that a request of a given size would cost.
func (g *Gateway) showQuote(x *exchange) error {
	if err := x.reach(); err != nil {
		return err
	}
	query, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return problem.Invalid("the query cannot be read")
	}
	m := x.service.named[query.Get("model")]
	if m == nil {
		return unknownModel()
	}
	asked, err := m.quotedFor(query)
	if err != nil {
		return err
	}
	epoch, ok := g.cfg.Board.Live(m.Name)
	if !ok {
		return problem.Retryable(problem.New(http.StatusServiceUnavailable, problem.BackendUnavailable, "the model has no price yet"), problem.BusyRetry)
	}
	if !g.serves(m) {
		return errNotServed // nobody can buy at this price now
	}
	quote, err := epoch.Quote(asked.units(m.gpuSlice(epoch.Rates)), x.quoteExpiry())
	if err != nil {
		return problem.Invalid("so many tokens cannot be priced")
	}
	quote.Model = query.Get("model") // the name by which the client asked
	return x.reply(http.StatusOK, struct {
		pricing.Quote
		Bound l402.Msat `json:"bound_msat"`
		quoted
		Multiplier float64 `json:"multiplier"`
		Signal     float64 `json:"signal"`
		BoundBy    string  `json:"bound_by"`
	}{quote, quote.Bound, asked, epoch.Multiplier, epoch.Signal, epoch.BoundBy})
}

// parseCount reads a number of digits. An empty s is def; false means that s is not such a number.
func parseCount(s string, def int64) (int64, bool) {
	if s == "" {
		return def, true
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && s[0] != '+'
}

// owner returns the token of a caller who asks about an account. The token may have expired. Any other
// caller gets a 402, as the error.
func (g *Gateway) owner(x *exchange) (*l402.Token, error) {
	if err := x.readPreferences(); err != nil {
		return nil, err
	}
	who, err := x.authorize("")
	if err != nil {
		return nil, err
	}
	if who != stranger {
		return x.token, x.credit()
	}
	if err := x.reach(); err != nil {
		return nil, err
	}
	if err := x.admitStranger(); err != nil {
		return nil, err
	}
	return nil, g.offer(x, forCredit, nil, nil)
}

// showBalance answers GET /l402/balance.
func (g *Gateway) showBalance(x *exchange) error {
	token, err := g.owner(x)
	if err != nil {
		return err
	}
	balance, err := g.ledger.Balance(x.r.Context(), token.ID, token.Budgets)
	if err != nil {
		return err
	}
	x.Header()[headerBalance] = []string{amountText(balance.Available)}
	if token.Attenuated {
		return x.reply(http.StatusOK, partOf(balance))
	}
	return x.reply(http.StatusOK, balance)
}

// partBalance is what the holder of a part of an account is shown: what the part may still spend
// and, if the part has a budget of its own, what it holds and was charged. The totals of the
// account are left out, because they concern only the holder of the whole token, and a 0 would be
// untrue.
type partBalance struct {
	Account   string                   `json:"account"` // the token id in hex
	Available l402.Msat                `json:"available_msat"`
	Held      *l402.Msat               `json:"held_msat,omitempty"`
	Charged   *l402.Msat               `json:"charged_msat,omitempty"`
	Budgets   []metering.BudgetBalance `json:"budgets"`
}

func partOf(b metering.Balance) partBalance {
	p := partBalance{Account: b.Account, Available: b.Available, Budgets: b.Budgets}
	if n := len(b.Budgets); n > 0 {
		own := &b.Budgets[n-1]
		p.Held, p.Charged = &own.Held, &own.Charged
	}
	return p
}

// These constants are numbers of charges on one page of GET /l402/usage.
const (
	defaultPage = 100
	maxPage     = 1000
)

// showUsage answers GET /l402/usage with charges, newest first. The holder of a part of an account
// sees the charges of the part's own chain. A part without a budget of its own gets a 403, because
// the ledger does not tell its charges from those of the parent token, which the holder of the part
// must not see.
func (g *Gateway) showUsage(x *exchange) error {
	token, err := g.owner(x)
	if err != nil {
		return err
	}
	if token.Attenuated && len(token.Budgets) == 0 {
		return problem.New(http.StatusForbidden, problem.CaveatViolation,
			"this token is a part of an account without a budget of its own, so that its charges are not kept apart; ask the holder of the whole token")
	}
	query, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return problem.Invalid("the query cannot be read")
	}
	since, ok := parseTime(query.Get("since"))
	if !ok {
		return problem.InvalidParam("since", "since must be a time in RFC 3339 or in unix seconds")
	}
	limit, ok := parseCount(query.Get("limit"), defaultPage)
	if !ok || limit < 1 {
		return problem.InvalidParam("limit", "limit must be a number of charges from 1 to "+strconv.Itoa(maxPage))
	}
	before := query.Get("next")
	if _, err := metering.ParseHoldID(before); before != "" && err != nil {
		return problem.InvalidParam("next", "next must be the value that the page before gave")
	}
	entries, next, err := g.ledger.Entries(x.r.Context(), metering.EntryQuery{
		Account: token.ID, Chain: token.Chain, Since: since, Before: before, Limit: int(min(limit, maxPage)),
	})
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, struct {
		Charges []metering.Entry `json:"charges"`
		Next    string           `json:"next,omitempty"`
	}{append([]metering.Entry{}, entries...), next})
}

// parseTime reads a time in RFC 3339 or in unix seconds. An empty s is the zero time.
func parseTime(s string) (time.Time, bool) {
	if s == "" {
		return time.Time{}, true
	}
	if seconds, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(seconds, 0), seconds >= 0
	}
	// A plus sign that was not escaped in the query has become a space.
	t, err := time.Parse(time.RFC3339, strings.ReplaceAll(s, " ", "+"))
	return t, err == nil
}

// maxTopUp bounds the body of a top-up in bytes. The body has one number.
const maxTopUp = 4 << 10

// topUp answers POST /l402/topup with a challenge whose payment tops up the token's own account.
func (g *Gateway) topUp(x *exchange) error {
	token, err := g.owner(x)
	if err != nil {
		return err
	}
	body, err := x.readBody(maxTopUp)
	if err != nil {
		return err
	}
	var wanted struct {
		Amount *l402.Msat `json:"amount_msat"`
	}
	if err := json.Unmarshal(body, &wanted); err != nil || wanted.Amount == nil || *wanted.Amount <= 0 {
		return problem.InvalidParam("amount_msat", `send {"amount_msat": N} with N > 0`)
	}
	x.service = x.cat.services[token.Service]
	if x.service == nil {
		return problem.Invalid("the service of this token is not sold here any more")
	}
	if *wanted.Amount > x.service.MaxPurchase {
		p := problem.New(http.StatusBadRequest, problem.CostAboveMaximum, "the amount is above the largest purchase")
		p.Param = "amount_msat"
		p.Required, p.Maximum = wanted.Amount, &x.service.MaxPurchase
		return p
	}
	x.prefs.deposit = *wanted.Amount
	return g.offer(x, forTopUp, nil, nil)
}

// healthz answers GET /healthz, which shows that the process serves.
func (g *Gateway) healthz(x *exchange) error {
	return x.reply(http.StatusOK, map[string]string{"status": "ok", "version": g.cfg.Version})
}

// showPrice answers GET and HEAD on a paid POST route with a 402, because directories and link
// checkers look for the 402 in this way. A caller with a good token is told the right method
// instead.
func (g *Gateway) showPrice(x *exchange) (err error) {
	if err := x.reach(); err != nil {
		return err
	}
	if err := x.readPreferences(); err != nil {
		return err
	}
	if x.who, err = x.authorize(x.service.Name); err != nil {
		return err
	}
	if err := x.admitStranger(); err != nil {
		return err
	}
	if x.who == holder {
		return wrongMethod(x)
	}
	return g.offer(x, forCredit, nil, nil)
}

// sortedServices returns the services sorted by name, so that answers do not vary.
func (g *Gateway) sortedServices() []*service {
	services := g.catalog().services
	list := make([]*service, 0, len(services))
	for _, s := range services {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *service) int { return strings.Compare(a.Name, b.Name) })
	return list
}
