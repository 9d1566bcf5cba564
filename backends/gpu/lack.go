package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

const (
	// A backend that does not know a model gets no requests for that model for lackBase. The time
	// doubles on each repetition, up to lackMost. It ends sooner if the backend lists the model.
	lackBase, lackMost = 10 * time.Second, 5 * time.Minute
	// modelsPath is the path under which a server lists its models.
	modelsPath = "/v1/models"
	// lookEvery is how often the gateway looks at the list during that time.
	lookEvery = 5 * time.Second
)

// lack says that a backend did not know a model when it was asked last.
type lack struct {
	reason string // what the backend said; empty means that it knows the model, or was not asked
	until  time.Time
	times  int // how often in a row
}

// lackOf returns what is known of the backend's lack of the pool's model. It returns an empty lack if
// the backend has left the pool.
func (b *Backend) lackOf(p *Pool) *lack {
	if i := slices.Index(b.pools, p); i >= 0 {
		return &b.lacks[i]
	}
	return new(lack)
}

// lacking says whether b does not know the pool's model, as far as the gateway knows.
func (b *Backend) lacking(p *Pool, now time.Time) bool {
	l := b.lackOf(p)
	return l.reason != "" && now.Before(l.until)
}

// lack records that the backend does not know the model of a pool.
func (b *Backend) lack(p *Pool, reason string, now time.Time) {
	l := b.lackOf(p)
	reason = b.Redact(reason)
	if l.reason == "" {
		b.fleet.log.Warn("backend does not know the model and gets no requests for it: compare its name under models with its list",
			"backend", b.cfg.Name, "model", p.cfg.Model, "upstream_model", b.Upstream(p.cfg.Model), "reason", reason)
	}
	d := min(lackBase<<min(l.times, 16), lackMost)
	l.reason, l.until, l.times = reason, now.Add(d), l.times+1
	time.AfterFunc(lookEvery, func() { b.lookFor(p) })
	b.fleet.dispatch(b)
}

// lookFor checks whether the backend lists the model now and serves it. If the list cannot be read, the
// next request after the time of the lack shows it.
func (b *Backend) lookFor(p *Pool) {
	f := b.fleet
	if !f.beginProbe() {
		return
	}
	defer f.probes.Done()
	ids, err := b.listed()
	name := b.Upstream(p.cfg.Model)
	// Ollama lists a model whose name has no tag as NAME:latest.
	listed := err == nil && (slices.Contains(ids, name) || slices.Contains(ids, name+":latest"))
	listed = listed && b.prove(p) == nil
	f.mu.Lock()
	defer f.mu.Unlock()
	l := b.lackOf(p)
	now := time.Now()
	if f.closed || b.leaving || l.reason == "" {
		return
	}
	switch {
	case err != nil && now.Before(l.until):
		time.AfterFunc(lookEvery, func() { b.lookFor(p) })
		return
	case err == nil && !listed:
		l.until = now.Add(lackBase + b.cfg.ConnectTimeout)
		time.AfterFunc(lookEvery, func() { b.lookFor(p) })
		return
	}
	l.until = time.Time{}
	f.dispatch(b)
}

// maxModelList bounds a list of models, in bytes.
const maxModelList = 4 << 20

// listed returns the names of the models that the backend lists.
func (b *Backend) listed() (ids []string, err error) {
	ctx, cancel := context.WithTimeout(b.fleet.ctx, max(b.cfg.ConnectTimeout, reachMost))
	defer cancel()
	resp, err := b.Do(ctx, http.MethodGet, b.Path(modelsPath, ""), nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", modelsPath, resp.StatusCode)
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxModelList)).Decode(&list); err != nil {
		return nil, err
	}
	if list.Data == nil {
		return nil, errors.New(modelsPath + " is no list of models")
	}
	for _, m := range list.Data {
		ids = append(ids, m.ID)
	}
	return ids, nil
}
