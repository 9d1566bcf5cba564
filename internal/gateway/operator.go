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

// Operator is the configuration behind what a gateway sells, as the operator's
// listener needs it. Every error of Reload and Compare is one of the configuration's
// and is told to the operator; nothing has changed then.
type Operator interface {
	// Reload reads the configuration again and puts it in force. changes is what
	// changed, for JSON.
	Reload(ctx context.Context) (changes any, err error)
	// Compare says what another file would change of what runs.
	Compare(file []byte) (changes any, err error)
	// Status says what is in force and how the last attempt to change it went.
	Status() ConfigStatus
}

// ConfigStatus says which configuration is in force.
type ConfigStatus struct {
	File       string    `json:"file"`
	Generation int64     `json:"generation"` // 1 since the start, and one more with each change
	Since      time.Time `json:"since"`      // when this generation came into force
	// Last says how the last reload went; nil: there was none.
	Last      *ReloadStatus `json:"last_reload,omitempty"`
	Succeeded uint64        `json:"reloads"`           // that were put in force, or found nothing to change
	Refused   uint64        `json:"reloads_refused"`   // for which the configuration before stands
	SuccessAt time.Time     `json:"last_success"`      // of the start or a reload
	Watched   bool          `json:"watched"`           // a change of the file is noticed by itself
	Above     []string      `json:"above,omitempty"`   // changes of the operator's that stand above the file
	Changes   []string      `json:"changes,omitempty"` // that the last successful reload made
}

// ReloadStatus is how one attempt to read the configuration again went.
type ReloadStatus struct {
	At      time.Time `json:"at"`
	Trigger string    `json:"trigger"` // SIGHUP, file or admin
	OK      bool      `json:"ok"`
	Error   string    `json:"error,omitempty"`
}

// maxConfigFile bounds a configuration that is compared, in bytes.
const maxConfigFile = 1 << 20

func noOperator() error {
	return problem.Invalid("this gateway has no configuration file that could be read again")
}

// configStatus is what the operator sees of the configuration; nil: there is none.
func (a *admin) configStatus() *ConfigStatus {
	if a.cfg.Operator == nil {
		return nil
	}
	s := a.cfg.Operator.Status()
	return &s
}

// config is GET /admin/config.
func (a *admin) config(*http.Request) (any, error) {
	if a.cfg.Operator == nil {
		return nil, noOperator()
	}
	return a.cfg.Operator.Status(), nil
}

// reload is POST /admin/reload.
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

// compare is POST /admin/config/diff: the body is the file that would be used.
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

// drain is POST /admin/backends: it takes a backend out for new requests, or puts
// it back. Requests that are open there go on until the deadline.
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

// cutCheck is how often a backend that is drained is looked at.
const cutCheck = 50 * time.Millisecond

// CutLeft ends what is still open on backends that get no new requests once the time
// is over: such answers are charged for what was delivered. It returns at once.
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
			cut += g.open.cutOn(b) // more than once: a request may be on its way there
		}
	}
	if cut > 0 {
		g.log.Warn("requests on a drained backend were cut", "backend", b.Name(), "requests", cut)
	}
}
