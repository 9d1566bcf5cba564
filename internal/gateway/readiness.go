package gateway

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice.example/sluice/backends/gpu"
)

// readiness keeps the last answer of GET /readyz for readyFor, because everybody may ask, and each
// check asks the store and the Lightning node.
type readiness struct {
	mu   sync.Mutex
	at   time.Time
	last ready
}

// ready is the answer of GET /readyz. Each part is "ok", or what is wrong with it in words for the
// public.
type ready struct {
	Status string            `json:"status"` // "ready" or "unready"
	Parts  map[string]string `json:"parts"`
	// Models has the models that no backend serves, and why. The gateway is ready while it can sell
	// at least one other model.
	Models map[string]string `json:"models_unavailable,omitempty"`
	// Warnings are faults for which other backends make up.
	Warnings []string `json:"warnings,omitempty"`
}

const (
	readyFor     = time.Second
	readyTimeout = 2 * time.Second // for the whole check
	partOK       = "ok"
)

// readyz answers GET /readyz: 200 if the store and the Lightning node answer, a backend of some model
// serves, and the gateway is not shutting down; otherwise 503.
func (g *Gateway) readyz(x *exchange) error {
	answer := g.checkReady(x.r.Context())
	if answer.Status == "ready" {
		return x.reply(http.StatusOK, answer)
	}
	return x.reply(http.StatusServiceUnavailable, answer)
}

func (g *Gateway) checkReady(ctx context.Context) ready {
	g.ready.mu.Lock()
	defer g.ready.mu.Unlock()
	if !g.ready.at.IsZero() && time.Since(g.ready.at) < readyFor {
		return g.ready.last
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	node := make(chan error, 1)
	go func() { node <- g.cfg.Invoices.Ready(ctx) }()
	status := g.cfg.Fleet.Status()
	backends, models := g.backendsPart(status)
	parts := map[string]string{
		"store":    g.part("store", g.ledger.Ready(ctx)),
		"backends": backends,
		"gateway":  partOK,
	}
	parts["lightning"] = g.part("lightning", <-node)
	if g.open.draining() {
		parts["gateway"] = "shutting down"
	}
	answer := ready{Status: "ready", Parts: parts, Models: models}
	if anyRefusesKey(status, "") {
		answer.Warnings = append(answer.Warnings, keyRefused)
	}
	for _, state := range parts {
		if state != partOK {
			answer.Status = "unready"
		}
	}
	g.ready.at, g.ready.last = time.Now(), answer
	return answer
}

// part returns the state of one part for the public, and logs the error.
func (g *Gateway) part(name string, err error) string {
	if err == nil {
		return partOK
	}
	g.log.Warn("not ready", "part", name, "error", err)
	return "unavailable"
}

// keyRefused is what the public is told if a backend refuses the gateway's api_key.
const keyRefused = "a backend refuses the gateway's key"

// anyRefusesKey reports whether a backend of the model refuses the gateway's key. If model is "", the
// backends of all models count.
func anyRefusesKey(list []gpu.BackendStatus, model string) bool {
	return slices.ContainsFunc(list, func(b gpu.BackendStatus) bool {
		return b.KeyRefused && (model == "" || slices.Contains(b.Models, model))
	})
}

// backendsPart returns "ok" as state if at least one model can be served. models has the other models,
// and why they cannot be served, in words for the public.
func (g *Gateway) backendsPart(list []gpu.BackendStatus) (state string, models map[string]string) {
	names := g.catalog().modelNames()
	for _, name := range names {
		if g.cfg.Fleet.Healthy(name) {
			continue
		}
		if models == nil {
			models = map[string]string{}
		}
		models[name] = whyNotServed(list, name)
	}
	switch {
	case len(models) < len(names):
		return partOK, models
	case anyRefusesKey(list, ""):
		return "no healthy backend of " + strings.Join(names, ", ") + ": " + keyRefused, models
	}
	return "no healthy backend of " + strings.Join(names, ", "), models
}

// whyNotServed returns, in words for the public, what is wrong with the backends of a model.
func whyNotServed(list []gpu.BackendStatus, model string) string {
	unchecked := func(b gpu.BackendStatus) bool {
		return slices.Contains(b.Models, model) && !b.Checked && b.Healthy && b.Reachable && !b.Ejected && b.Lacks[model] == ""
	}
	switch {
	case slices.ContainsFunc(list, unchecked):
		return "no backend has been checked yet"
	case anyRefusesKey(list, model):
		return keyRefused
	case slices.ContainsFunc(list, func(b gpu.BackendStatus) bool { return slices.Contains(b.Models, model) && b.Ejected }):
		return "no healthy backend: its requests failed"
	}
	return "no healthy backend"
}
