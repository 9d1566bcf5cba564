package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/metering/format"
)

const (
	probeTimeout = 2 * time.Second // for one question
	maxProbe     = 1 << 20         // bytes of an answer
	// A backend that was not recognised is asked again after probeFirst, and then after twice the
	// last wait, up to probeLast, because it may not be up yet, or may be replaced.
	probeFirst, probeLast = time.Second, 5 * time.Minute
)

// Probe finds out which engine each backend of the catalog in force is. It skips the backends whose
// engine another call of Probe is finding out, or has found out. Probe returns when ctx ends or all
// engines are known. A backend whose engine is not known is treated as format.EngineGeneric. The caller
// calls Probe again after each swap.
func (g *Gateway) Probe(ctx context.Context) {
	var asking sync.WaitGroup
	for _, b := range g.catalog().backends() {
		if e := g.engine(b); e.asking.CompareAndSwap(false, true) {
			asking.Go(func() { g.probe(ctx, b, e) })
		}
	}
	asking.Wait()
}

func (g *Gateway) probe(ctx context.Context, b *gpu.Backend, e *engine) {
	source := "configuration"
	found := e.setting.Engine
	if found == "" {
		source, found = "host", format.EngineOfHost(b.Host())
	}
	if found == "" {
		source = "probe"
		told := false
		for wait := probeFirst; ; wait = min(2*wait, probeLast) {
			var answered bool
			if found, answered = g.recognise(ctx, b); found != "" || ctx.Err() != nil {
				break
			}
			if answered && !told {
				told = true
				g.log.Warn("the engine of a backend is not recognised: its requests are capped under every name and its tokens are estimated; "+
					"name it as engine in the configuration", "backend", b.Name())
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			if b.Gone() || g.engine(b) != e { // the owner now says something else of the backend
				return
			}
		}
	}
	if ctx.Err() != nil && found == "" {
		e.asking.Store(false)
		return
	}
	e.set(found, source)
	p := e.known.Load().profile
	g.log.Info("engine of a backend", "backend", b.Name(), "engine", string(p.Engine), "known_by", source,
		"caps", strings.Join(p.Caps, ","), "counts_tokens", p.Counting != format.CountNone, "running_usage", p.ContinuousUsage || p.RunningTimings)
}

// recognise asks a backend all questions once. answered says that the backend answered at least one of
// them. found is "" if no answer showed the engine.
func (g *Gateway) recognise(ctx context.Context, b *gpu.Backend) (found format.Engine, answered bool) {
	for _, p := range format.Probes() {
		answer, status, err := g.get(ctx, b, p.Path)
		if err != nil {
			return "", answered // the backend is away, and each other question would time out too
		}
		answered = true
		if status == http.StatusOK {
			if found = p.Recognise(answer); found != "" {
				return found, true
			}
		}
	}
	return "", answered
}

func (g *Gateway) get(ctx context.Context, b *gpu.Backend, path string) (body []byte, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	resp, err := b.Do(ctx, http.MethodGet, b.Path(path, ""), nil, nil)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxProbe))
	return body, resp.StatusCode, err
}

// engineView is what the operator is shown of one backend's engine.
type engineView struct {
	Backend string         `json:"backend"`
	KnownBy string         `json:"known_by"` // "configuration", "host", "probe" or "nothing yet"
	Profile format.Profile `json:"profile"`
}

// engineViews returns what the gateway knows of the engines, in the order of the fleet.
func (g *Gateway) engineViews() []engineView {
	views := []engineView{}
	serving := g.catalog().backends()
	for _, s := range g.cfg.Fleet.Status() {
		for _, b := range serving {
			if b.Name() == s.Name {
				k := g.engine(b).known.Load()
				views = append(views, engineView{Backend: s.Name, KnownBy: k.source, Profile: k.profile})
			}
		}
	}
	return views
}
