package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"

	"sluice.example/sluice/internal/gateway/problem"

	_ "embed"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// admin has the endpoints of the operator's listener. Callers of the public listener cannot reach them.
type admin struct {
	*Gateway
	totals totals
}

// guard makes a JSON endpoint that needs the configuration's bearer token, which guard compares in
// constant time. If no token is configured, guard refuses every request.
func (a *admin) guard(handle func(r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cat := a.catalog()
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(token))
		if cat.AdminToken == "" || !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], cat.adminToken[:]) != 1 {
			problem.New(http.StatusUnauthorized, problem.InvalidCredential, "send the admin token as a bearer token").Write(w)
			return
		}
		value, err := handle(r)
		if err != nil {
			p := problem.For(err)
			if p.Status >= http.StatusInternalServerError {
				a.log.Warn("admin request failed", "path", r.URL.Path, "error", p.Reason(err))
			}
			p.Write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(value) // an operator who hung up needs no answer
	})
}

func adminUnknown(w http.ResponseWriter, _ *http.Request) {
	problem.New(http.StatusNotFound, problem.UnknownRoute, "there is no such route on this listener").Write(w)
}

func adminAlive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("{\"status\":\"ok\"}\n"))
}

// status answers GET /admin/status with the live figures in one object.
func (a *admin) status(r *http.Request) (any, error) {
	type price struct {
		Service string         `json:"service"`
		Price   *pricing.Epoch `json:"price,omitempty"`
		Model   string         `json:"model"`
	}
	var prices []price
	for _, svc := range a.sortedServices() {
		for _, m := range svc.Models {
			p := price{Service: svc.Name, Model: m.Name}
			if e, ok := a.cfg.Board.Current(m.Name); ok {
				p.Price = &e
			}
			prices = append(prices, p)
		}
	}
	totals, err := a.totals.get(r.Context(), a.ledger.Totals)
	if err != nil {
		return nil, err
	}
	return struct {
		Version  string              `json:"version"`
		Config   *ConfigStatus       `json:"config,omitempty"`
		Ready    ready               `json:"ready"`
		Totals   metering.Totals     `json:"totals"`
		Ledger   metering.Stats      `json:"ledger"`
		Open     int                 `json:"open_requests"`
		Models   []price             `json:"models"`
		Pools    []gpu.PoolStatus    `json:"pools"`
		Backends []gpu.BackendStatus `json:"backends"`
	}{a.cfg.Version, a.configStatus(), a.checkReady(r.Context()), totals, a.ledger.Stats(), a.open.count(), prices, a.cfg.Fleet.Pools(), a.cfg.Fleet.Status()}, nil
}

// backends answers GET /admin/backends.
func (a *admin) backends(*http.Request) (any, error) {
	return struct {
		Pools    []gpu.PoolStatus    `json:"pools"`
		Backends []gpu.BackendStatus `json:"backends"`
		Engines  []engineView        `json:"engines"`
	}{a.cfg.Fleet.Pools(), a.cfg.Fleet.Status(), a.engineViews()}, nil
}

const (
	adminDepositLimit = 1000
	// unconfirmedAfter is how long the settle stream may take to confirm a deposit. A deposit that was
	// presented longer ago without a confirmation is shown as suspicious.
	unconfirmedAfter = time.Minute
)

// deposits answers GET /admin/deposits?state=unclaimed|unconfirmed.
func (a *admin) deposits(r *http.Request) (any, error) {
	var list []metering.DepositRow
	var err error
	switch r.URL.Query().Get("state") {
	case "unclaimed":
		list, err = a.ledger.Unclaimed(r.Context(), adminDepositLimit)
	case "unconfirmed":
		list, err = a.ledger.Unconfirmed(r.Context(), unconfirmedAfter, adminDepositLimit)
	default:
		return nil, problem.Invalid("state must be unclaimed or unconfirmed")
	}
	views := make([]depositView, 0, len(list))
	for i := range list {
		views = append(views, viewDeposit(&list[i]))
	}
	return map[string]any{"deposits": views}, err
}

// depositView is one payment as the operator is shown it.
type depositView struct {
	PaymentHash string     `json:"payment_hash"`
	Account     string     `json:"account"`
	Credited    l402.Msat  `json:"credited_msat"`
	Presented   *time.Time `json:"presented_at,omitempty"`
	Settled     *time.Time `json:"settled_at,omitempty"`
	Node        string     `json:"node,omitempty"`
	Index       uint64     `json:"settle_index,omitempty"`
}

func viewDeposit(d *metering.DepositRow) depositView {
	at := func(micros int64) *time.Time {
		if micros == 0 {
			return nil
		}
		t := time.UnixMicro(micros).UTC()
		return &t
	}
	return depositView{PaymentHash: d.Hash.String(), Account: d.Account.String(), Credited: d.Credited,
		Presented: at(d.Presented), Settled: at(d.Settled), Node: d.Node, Index: d.Index}
}

// accountView is one account as the operator is shown it.
type accountView struct {
	metering.Balance
	Status metering.Status  `json:"status"`
	Recent []metering.Entry `json:"recent"`
}

// MarshalJSON adds the members Status and Recent to the balance's own JSON object.
func (v accountView) MarshalJSON() ([]byte, error) {
	balance, err := json.Marshal(v.Balance)
	if err != nil {
		return nil, err
	}
	rest, err := json.Marshal(struct {
		Status metering.Status  `json:"status"`
		Recent []metering.Entry `json:"recent"`
	}{v.Status, append([]metering.Entry{}, v.Recent...)})
	if err != nil {
		return nil, err
	}
	return append(append(balance[:len(balance)-1], ','), rest[1:]...), nil
}

// account answers GET /admin/accounts/{id}.
func (a *admin) account(r *http.Request) (any, error) {
	id, err := l402.ParseTokenID(r.PathValue("id"))
	if err != nil {
		return nil, problem.Invalid(err.Error())
	}
	return a.viewAccount(r, id)
}

func (a *admin) viewAccount(r *http.Request, id l402.TokenID) (any, error) {
	status, err := a.ledger.Status(r.Context(), id)
	if err != nil {
		return nil, err
	}
	balance, err := a.ledger.Balance(r.Context(), id, nil)
	if err != nil {
		return nil, err
	}
	recent, _, err := a.ledger.Entries(r.Context(), metering.EntryQuery{Account: id, Limit: 20})
	return accountView{balance, status, recent}, err
}

// accountAction answers POST /admin/accounts/{id}/{freeze,unfreeze,revoke}.
func (a *admin) accountAction(r *http.Request) (any, error) {
	id, err := l402.ParseTokenID(r.PathValue("id"))
	if err != nil {
		return nil, problem.Invalid(err.Error())
	}
	var status metering.Status
	switch r.PathValue("action") {
	case "freeze":
		status = metering.StatusFrozen
	case "unfreeze":
		status = metering.StatusActive
	case "revoke":
		status = metering.StatusRevoked
	default:
		return nil, unknownRoute()
	}
	if err := a.ledger.SetStatus(r.Context(), id, status); err != nil {
		return nil, err
	}
	a.log.Info("account status changed", "account", id.String(), "status", status.String())
	return a.viewAccount(r, id)
}

// totals keeps the sums over all accounts for ten times as long as reading them took. Reading takes
// seconds where there are millions of accounts, and the dashboard asks every two seconds. With few
// accounts the sums are almost always fresh.
type totals struct {
	mu    sync.Mutex
	until time.Time
	last  metering.Totals
}

func (t *totals) get(ctx context.Context, read func(context.Context) (metering.Totals, error)) (metering.Totals, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	began := time.Now()
	if began.Before(t.until) {
		return t.last, nil
	}
	sums, err := read(ctx)
	if err == nil {
		took := time.Since(began)
		t.until, t.last = began.Add(10*took), sums
	}
	return sums, err
}

//go:embed dashboard.html
var dashboardPage []byte

// dashboard answers GET / of the admin listener with a page that shows /admin/status. The page has
// no figures itself, so it needs no token.
func (a *admin) dashboard() http.Handler {
	if a.cfg.Dashboard != nil {
		return a.cfg.Dashboard
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(dashboardPage)
	})
}
