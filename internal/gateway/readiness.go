package gateway

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// readiness remembers the last answer of GET /readyz for a moment: the path is
// open to everyone, and each answer asks the store and the Lightning node.
type readiness struct {
	mu   sync.Mutex
	at   time.Time
	last ready
}

// ready is the answer: each part by name, "ok" or what is wrong with it in
// words that fit the public.
type ready struct {
	Status string            `json:"status"` // "ready" or "unready"
	Parts  map[string]string `json:"parts"`
}

const (
	readyFor     = time.Second
	readyTimeout = 2 * time.Second // for each part
	partOK       = "ok"
)

// readyz is GET /readyz: 200 when the store, the Lightning node and a backend of
// every model work, and the gateway is not shutting down.
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
	parts := map[string]string{
		"store":    g.part("store", g.ledger.Ready(ctx)),
		"backends": g.backendsPart(),
		"gateway":  partOK,
	}
	parts["lightning"] = g.part("lightning", <-node)
	if g.open.draining() {
		parts["gateway"] = "shutting down"
	}
	answer := ready{Status: "ready", Parts: parts}
	for _, state := range parts {
		if state != partOK {
			answer.Status = "unready"
		}
	}
	g.ready.at, g.ready.last = time.Now(), answer
	return answer
}

// part names the state of one part; what exactly is wrong goes to the log.
func (g *Gateway) part(name string, err error) string {
	if err == nil {
		return partOK
	}
	g.log.Warn("not ready", "part", name, "error", err)
	return "unavailable"
}

// backendsPart is ok when at least one model can be served.
func (g *Gateway) backendsPart() string {
	for _, name := range g.modelNames() {
		if g.cfg.Fleet.Healthy(name) {
			return partOK
		}
	}
	return "no healthy backend"
}
