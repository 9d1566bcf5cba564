package gateway

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/problem"
)

// Operator is the configuration behind what a gateway sells, for the operator's listener. An error
// of Reload or Compare is a fault of the configuration, and is told to the operator. After such an
// error nothing has changed.
type Operator interface {
	// Reload reads the configuration again and puts it in force. changes says what changed; it
	// must be fit for JSON.
	Reload(ctx context.Context) (changes any, err error)
	// Compare says what another file would change of the configuration in force.
	Compare(file []byte) (changes any, err error)
	// Status says what is in force, and how the last attempt to change it ended.
	Status() ConfigStatus
}

// ConfigStatus says which configuration is in force.
type ConfigStatus struct {
	File       string    `json:"file"`
	Generation int64     `json:"generation"` // 1 at the start, and one more with each change
	Since      time.Time `json:"since"`      // when this generation came into force
	// Last says how the last reload ended; nil: there was no reload.
	Last      *ReloadStatus `json:"last_reload,omitempty"`
	Succeeded uint64        `json:"reloads"`           // reloads that were put in force, or that changed nothing
	Refused   uint64        `json:"reloads_refused"`   // reloads after which the old configuration remained
	SuccessAt time.Time     `json:"last_success"`      // of the start or of the last reload that succeeded
	Watched   bool          `json:"watched"`           // the gateway watches the file for changes
	Above     []string      `json:"above,omitempty"`   // the operator's changes that override the file
	Changes   []string      `json:"changes,omitempty"` // what the last successful reload changed
}

// ReloadStatus says how one attempt to read the configuration again ended.
type ReloadStatus struct {
	At      time.Time `json:"at"`
	Trigger string    `json:"trigger"` // "SIGHUP", "file" or "admin"
	OK      bool      `json:"ok"`
	Error   string    `json:"error,omitempty"`
}

// maxConfigFile bounds a configuration for compare in bytes.
const maxConfigFile = 1 << 20

func noOperator() error {
	return problem.Invalid("this gateway has no configuration file that could be read again")
}

// configStatus returns what the operator is shown of the configuration; nil: there is no configuration.
func (a *admin) configStatus() *ConfigStatus {
	if a.cfg.Operator == nil {
		return nil
	}
	s := a.cfg.Operator.Status()
	return &s
}

// config answers GET /admin/config.
func (a *admin) config(*http.Request) (any, error) {
	if a.cfg.Operator == nil {
		return nil, noOperator()
	}
	return a.cfg.Operator.Status(), nil
}

// reload answers POST /admin/reload.
func (a *admin) reload(r *http.Request) (any, error) {
	if a.cfg.Operator == nil {
		return nil, noOperator()
	}
	changes, err := a.cfg.Operator.Reload(context.WithoutCancel(r.Context()))
	if err != nil {
		return nil, problem.Invalid(err.Error())
	}
	return changes, nil
}

// compare answers POST /admin/config/diff. The body is the configuration file to compare.
func (a *admin) compare(r *http.Request) (any, error) {
	if a.cfg.Operator == nil {
		return nil, noOperator()
	}
	file, err := io.ReadAll(io.LimitReader(r.Body, maxConfigFile+1))
	if err != nil || len(file) > maxConfigFile {
		return nil, problem.Invalid("the body cannot be read; send a configuration of at most 1 MiB")
	}
	changes, err := a.cfg.Operator.Compare(file)
	if err != nil {
		return nil, problem.Invalid(err.Error())
	}
	return changes, nil
}

// drain answers POST /admin/backends. It stops new requests to a backend, or allows them again.
// Requests that are open on the backend may continue until within_s seconds, or DrainTimeout, are
// over.
func (a *admin) drain(r *http.Request) (any, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxOverride))
	if err != nil {
		return nil, problem.Invalid("the body cannot be read")
	}
	var wanted struct {
		Backend string   `json:"backend"`
		Drain   *bool    `json:"drain"`
		Within  *float64 `json:"within_s"`
	}
	const longest = 24 * 60 * 60
	if err := json.Unmarshal(body, &wanted); err != nil || wanted.Backend == "" || wanted.Drain == nil ||
		wanted.Within != nil && !(*wanted.Within >= 0 && *wanted.Within <= longest) {
		return nil, problem.Invalid(`send {"backend": "…", "drain": true}, or false to put it back; "within_s": N cuts what is open after N seconds, else drain_timeout says when`)
	}
	if !a.cfg.Fleet.Drain(wanted.Backend, *wanted.Drain) {
		return nil, problem.Invalid("there is no backend of that name; GET /admin/backends lists them")
	}
	within := a.catalog().DrainTimeout
	if wanted.Within != nil {
		within = time.Duration(*wanted.Within * float64(time.Second))
	}
	a.log.Warn("backend drained or put back by the operator", "backend", wanted.Backend, "drain", *wanted.Drain, "cut_after", within)
	if b := a.cfg.Fleet.Named(wanted.Backend); b != nil && *wanted.Drain {
		a.CutLeft(within, b)
	}
	return map[string]any{"backend": wanted.Backend, "drain": *wanted.Drain}, nil
}

// cutCheck is how often the gateway looks at a backend that is drained.
const cutCheck = 50 * time.Millisecond

// CutLeft cuts the requests that are still open after within on backends that get no new requests.
// Such requests are charged for what was delivered. CutLeft returns at once.
func (g *Gateway) CutLeft(within time.Duration, backends ...*gpu.Backend) {
	for _, b := range backends {
		go g.cutLeft(b, time.Now().Add(within))
	}
}

func (g *Gateway) cutLeft(b *gpu.Backend, deadline time.Time) {
	tick := time.NewTicker(cutCheck)
	defer tick.Stop()
	cut := 0
	for range tick.C {
		ends, open := b.Ends()
		if !ends || open == 0 || g.open.done() {
			break
		}
		if time.Now().After(deadline) {
			cut += g.open.cutOn(b) // repeated, because a request may be on its way to the backend
		}
	}
	if cut > 0 {
		g.log.Warn("requests on a drained backend were cut", "backend", b.Name(), "requests", cut)
	}
}
