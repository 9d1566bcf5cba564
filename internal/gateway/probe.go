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
	probeTimeout = 2 * time.Second // of one question
	maxProbe     = 1 << 20         // bytes of an answer
	// A server that nobody could recognise is asked again after probeFirst, then
	// after twice as long, up to probeLast: it may not be up yet, or be replaced.
	probeFirst, probeLast = time.Second, 5 * time.Minute
)

// Probe finds out which engines serve, for each backend of the catalog in force of
// which the owner did not say it and nobody is finding it out, and returns when ctx
// ends or all are known. Until then, and for ever where nothing is recognised, a
// backend is taken for format.EngineGeneric. It is called again after each swap.
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
			if b.Gone() || g.engine(b) != e { // the owner says something else of it now
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

// recognise asks a backend once. answered: it answered at least one question.
func (g *Gateway) recognise(ctx context.Context, b *gpu.Backend) (found format.Engine, answered bool) {
	for _, p := range format.Probes() {
		answer, status, err := g.get(ctx, b, p.Path)
		if err != nil {
			return "", answered // it is away: the other questions would wait as long
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

// engineView is what the operator sees of one backend's engine.
type engineView struct {
	Backend string         `json:"backend"`
	KnownBy string         `json:"known_by"` // configuration, host, probe, or nothing yet
	Profile format.Profile `json:"profile"`
}

// engineViews lists what is known of the engines, in the order of the fleet.
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
