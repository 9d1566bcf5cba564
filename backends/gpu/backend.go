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

// Defaults of a BackendConfig, and the bounds that hold everywhere.
const (
	DefaultHealthEvery      = 5 * time.Second
	DefaultConnectTimeout   = 5 * time.Second
	DefaultFirstByteTimeout = 5 * time.Minute // a unary answer has no first byte before it is whole
	// DefaultFirstEventTimeout is long, because a model may read a long prompt, or
	// think unseen, for minutes.
	DefaultFirstEventTimeout = 10 * time.Minute
	DefaultIdleTimeout       = time.Minute
	DefaultStaleAfter        = 15 * time.Second
	MaxSlots                 = 1 << 20
	MaxWeight                = 1000
)

// BackendConfig describes one inference server.
type BackendConfig struct {
	Name string
	// URL is scheme, host and an optional path prefix; requests' paths are
	// appended to it. Scheme http, https (HTTP/2 where the server offers it)
	// or h2c (HTTP/2 in the clear, known beforehand).
	URL *url.URL
	// APIKey is sent as a bearer token in Authorization, or as it is in the header
	// KeyHeader, where that is not empty. Empty: it is not sent.
	APIKey    l402.Secret
	KeyHeader string
	// Paths are where the server has what others have under the path of a request. One
	// may hold a query, and {model}, which stands for the server's name of the model. A
	// path that is not listed stays as it is.
	Paths map[string]string
	Query l402.Secret // goes with each request, encoded: it may hold a key; empty: none
	// Slots is how many requests run there at once, 1..MaxSlots.
	Slots int
	// Weight is the backend's share of its pools' requests, relative to the others': see
	// Pool. 0 counts as 1.
	Weight int
	// HealthPath is asked with GET, any 2xx is well; empty: no active check.
	HealthPath string
	// HealthFallback are paths to ask instead, in turn, where the backend does
	// not know HealthPath (404, 405, 403, 501). Where it knows none of them, the
	// check sees only whether the backend can be reached. Empty: HealthPath is
	// obeyed, and a 404 fails the check.
	HealthFallback []string
	HealthEvery    time.Duration // zero: DefaultHealthEvery
	// ConnectTimeout bounds the TCP connection and, once more, the TLS
	// handshake. Zero: DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// FirstByteTimeout bounds the time from having a connection to the header
	// of the answer. Zero: DefaultFirstByteTimeout.
	FirstByteTimeout time.Duration
	// FirstEventTimeout bounds the time from the header of a stream to its first
	// event, see Answer.AwaitEvent, and the time in which the backend gives nothing
	// but signs of life, see Answer.Progress. Zero: DefaultFirstEventTimeout.
	FirstEventTimeout time.Duration
	// IdleTimeout bounds each further wait for more of an answer's body. Zero:
	// DefaultIdleTimeout.
	IdleTimeout time.Duration

	Models map[string]string // public model name → its name there; absent: the same

	// Engine reads the server's own metrics; nil: its load is what this
	// gateway gives it.
	Engine *telemetry.Feed
	// EngineMayLack says that the server may show no metrics. As long as Engine has
	// read none, the backend counts as one without; otherwise prices would stand still.
	EngineMayLack bool
	// GPUs are those that the server works on; none: not known.
	GPUs []GPU
	// Ask is what the server's owner asks for requests; nil: nothing.
	Ask Ask
	// StaleAfter is the age at which a reading counts for nothing any more.
	// Zero: DefaultStaleAfter.
	StaleAfter time.Duration
}

// GPU names a GPU or MIG instance.
type GPU struct {
	Feed   *telemetry.Feed
	Device string // see telemetry.Snapshot.Device: a UUID, an index, labels
}

// settings are what may change of a backend that stays the same.
type settings struct {
	Slots, Weight int
	Engine        *telemetry.Feed
	EngineMayLack bool
	Ask           Ask
	StaleAfter    time.Duration
}

// Backend is one inference server of a fleet.
type Backend struct {
	fleet     *Fleet
	cfg       BackendConfig // as it began; set has what may change
	base      url.URL
	secrets   []string // see Redact
	transport *http.Transport
	freshOnce sync.Once
	freshOnes *http.Transport
	keeping   keeping
	gone      atomic.Bool

	// All below is guarded by fleet.mu.
	set      settings
	pools    []*Pool // that it serves, and those of which it still has requests
	leaving  bool
	unwatch  context.CancelFunc // ends the health checks; nil: none
	inFlight int
	health   health
	comeback *time.Timer // ends an ejection
	served   uint64      // requests that ended without a failure of the backend
	failed   uint64      // requests that did not
	guessed  uint64      // requests with GPU time of which nothing was measured
	byPool   []int       // in flight, of each of pools
	lacks    []lack      // the models of pools that it does not know
	dealt    []float64   // what it got of each of pools, see deal
	gpus     []*binding
	asks     l402.Msat     // for the request that is being placed
	pace     time.Duration // mean time of service, of requests that went well
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
	b.health.up = true // until the first check says otherwise
	b.tune(&cfg)
	var err error
	b.transport, err = newTransport(&b.base, cfg, &b.keeping)
	return b, err
}

// Name is the configured name, as the ledger and metrics show it.
func (b *Backend) Name() string { return b.cfg.Name }

// Host is the host name of the server, without port.
func (b *Backend) Host() string { return b.base.Hostname() }

// Slots is how many requests run there at once.
func (b *Backend) Slots() int {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	return b.set.Slots
}

// Upstream is the server's name for a public model.
func (b *Backend) Upstream(model string) string {
	if name, ok := b.cfg.Models[model]; ok {
		return name
	}
	return model
}
