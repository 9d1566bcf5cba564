package gpu

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/l402"
)

// Defaults of a BackendConfig, and the upper bounds of its numbers.
const (
	DefaultHealthEvery    = 5 * time.Second
	DefaultConnectTimeout = 5 * time.Second
	// DefaultFirstByteTimeout is long, because an answer that is not streamed has no first byte before
	// all of it is computed.
	DefaultFirstByteTimeout = 5 * time.Minute
	// DefaultFirstEventTimeout is long, because a model may read a long prompt, or think without
	// output, for minutes.
	DefaultFirstEventTimeout = 10 * time.Minute
	DefaultIdleTimeout       = time.Minute
	DefaultStaleAfter        = 15 * time.Second
	MaxSlots                 = 1 << 20
	MaxWeight                = 1000
)

// BackendConfig describes one inference server.
type BackendConfig struct {
	Name string
	// URL holds a scheme, a host and an optional path prefix. The backend appends the path of a request
	// to it. The scheme is http, https (with HTTP/2 if the server offers it) or h2c (HTTP/2 without
	// TLS, which the operator knows that the server speaks).
	URL *url.URL
	// APIKey is sent in the header that KeyHeader names. If KeyHeader is empty, APIKey is sent as a
	// bearer token in Authorization. If APIKey is empty, no key is sent.
	APIKey    l402.Secret
	KeyHeader string
	// Paths maps the usual path of a request to the path under which this server serves the request.
	// The server's path may hold a query, and {model}, which is replaced by the server's name of the
	// model. A path without an entry is used as it is.
	Paths map[string]string
	// Query is appended to the URL of each request. It is already encoded, and may hold a key. Empty
	// means that nothing is appended.
	Query l402.Secret
	// Slots is how many requests run at the server at once, 1..MaxSlots.
	Slots int
	// Weight is the backend's share of the requests of its pools, relative to the weights of the other
	// backends: see Pool. 0 counts as 1.
	Weight int
	// HealthPath is the path of the active health check, which sends a GET. Any 2xx means that the
	// backend is well. Empty means that there is no active check.
	HealthPath string
	// HealthFallback lists paths that the check asks instead, in turn, if the backend does not know
	// HealthPath (it answers 404, 405, 403 or 501, for example). If the backend knows none of the
	// paths, the check sees only whether the backend can be reached. If HealthFallback is empty, the
	// check asks only HealthPath, and a 404 fails the check.
	HealthFallback []string
	HealthEvery    time.Duration // zero means DefaultHealthEvery
	// ConnectTimeout bounds the TCP connection, and bounds the TLS handshake separately. Zero means
	// DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// FirstByteTimeout bounds the time from getting a connection to the header of the answer. Zero
	// means DefaultFirstByteTimeout.
	FirstByteTimeout time.Duration
	// FirstEventTimeout bounds the time from the header of a stream to the first event of the stream:
	// see Answer.AwaitEvent. It also bounds the time in which the backend sends only signs of life: see
	// Answer.Progress. Zero means DefaultFirstEventTimeout.
	FirstEventTimeout time.Duration
	// IdleTimeout bounds each later wait for more of an answer's body. Zero means DefaultIdleTimeout.
	IdleTimeout time.Duration

	// Models maps the public name of a model to the server's name of it. The server uses the public
	// name of a model that has no entry.
	Models map[string]string

	// Engine reads the server's own metrics. Nil means that the load is known only from the requests
	// that this gateway sends.
	Engine *telemetry.Feed
	// EngineMayLack says that the server may offer no metrics. As long as Engine has read none, the
	// backend counts as a backend without Engine, because prices would otherwise never move.
	EngineMayLack bool
	// GPUs lists the GPUs that the server works on. An empty list means that they are not known.
	GPUs []GPU
	// Ask is what the server's owner asks for requests. Nil means that the owner asks nothing.
	Ask Ask
	// StaleAfter is the age at which a reading is no longer used. Zero means DefaultStaleAfter.
	StaleAfter time.Duration
}

// GPU names a GPU or MIG instance.
type GPU struct {
	Feed   *telemetry.Feed
	Device string // see telemetry.Snapshot.Device: a UUID, an index, or labels
}

// settings holds what a new configuration may change in a backend that otherwise stays the same.
type settings struct {
	Slots, Weight int
	Engine        *telemetry.Feed
	EngineMayLack bool
	Ask           Ask
	StaleAfter    time.Duration
}

// Backend is one inference server of a fleet.
type Backend struct {
	fleet *Fleet
	// cfg is the configuration with which the backend began. What may change later is read from set.
	cfg       BackendConfig
	base      url.URL
	secrets   []string // see Redact
	transport *http.Transport
	freshOnce sync.Once
	freshOnes *http.Transport
	keeping   keeping
	gone      atomic.Bool

	// All fields below are guarded by fleet.mu.
	set settings
	// pools lists the pools that the backend serves, and the pools of which it still has requests.
	pools    []*Pool
	leaving  bool
	unwatch  context.CancelFunc // ends the health checks; nil means that none run
	inFlight int
	health   health
	comeback *time.Timer // fires at the end of an ejection
	served   uint64      // requests that ended without a failure of the backend
	failed   uint64      // requests that ended with a failure of the backend
	guessed  uint64      // requests whose GPU time was not all measured: see GPUUse.Fallback
	byPool   []int       // requests in flight, by index in pools
	lacks    []lack      // by index in pools: whether the backend knows the pool's model
	dealt    []float64   // by index in pools: how far the pool's requests moved the backend, see deal
	gpus     []*binding
	asks     l402.Msat     // what the backend asks for the request that choose places now
	pace     time.Duration // mean time of service of the requests that went well
	idleAt   time.Time     // when the last request in flight ended
}

func newBackend(f *Fleet, cfg BackendConfig) (*Backend, error) {
	if cfg.Name == "" {
		return nil, errors.New("has no name")
	}
	if cfg.Slots < 1 || cfg.Slots > MaxSlots {
		return nil, fmt.Errorf("slots is %d, want 1..%d", cfg.Slots, MaxSlots)
	}
	if cfg.Weight < 0 || cfg.Weight > MaxWeight {
		return nil, fmt.Errorf("weight is %d, want 1..%d", cfg.Weight, MaxWeight)
	}
	if cfg.URL == nil || cfg.URL.Host == "" {
		return nil, errors.New("url has no host")
	}
	if cfg.URL.User != nil || cfg.URL.RawQuery != "" || cfg.URL.Fragment != "" {
		return nil, errors.New("url must be scheme, host and path only; give a key as api_key")
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&cfg.HealthEvery, DefaultHealthEvery},
		{&cfg.ConnectTimeout, DefaultConnectTimeout},
		{&cfg.FirstByteTimeout, DefaultFirstByteTimeout},
		{&cfg.FirstEventTimeout, DefaultFirstEventTimeout},
		{&cfg.IdleTimeout, DefaultIdleTimeout},
		{&cfg.StaleAfter, DefaultStaleAfter},
	} {
		if *d.value < 0 {
			return nil, fmt.Errorf("negative duration %v", *d.value)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	b := &Backend{fleet: f, cfg: cfg, base: *cfg.URL, secrets: secretsOf(&cfg)}
	for _, g := range cfg.GPUs {
		if g.Feed == nil || g.Device == "" {
			return nil, errors.New("a GPU needs a feed and the name of a device")
		}
		b.gpus = append(b.gpus, &binding{GPU: g})
	}
	b.base.Path = strings.TrimRight(b.base.Path, "/")
	b.base.RawPath = ""
	b.health.up = true // until the first check fails
	b.tune(&cfg)
	var err error
	b.transport, err = newTransport(&b.base, cfg, &b.keeping)
	return b, err
}

// Name returns the configured name, which the ledger and metrics show.
func (b *Backend) Name() string { return b.cfg.Name }

// Host returns the host name of the server, without the port.
func (b *Backend) Host() string { return b.base.Hostname() }

// Slots returns how many requests run at the backend at once.
func (b *Backend) Slots() int {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	return b.set.Slots
}

// Upstream returns the server's name of a public model.
func (b *Backend) Upstream(model string) string {
	if name, ok := b.cfg.Models[model]; ok {
		return name
	}
	return model
}
