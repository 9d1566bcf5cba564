package gateway

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering/format"
)

// catalog is what is sold at one moment, with which keys and within which limits. It
// is never changed: Prepare makes another one, and each exchange keeps the catalog
// with which it began.
type catalog struct {
	Config   // what may change of it; the rest is the same in every catalog
	byHost   map[string]*service
	fallback *service // takes every host not named; may be nil
	services map[string]*service
	browsers bool // a service takes calls from web pages

	addresses  *intake.Addresses
	slots      *invoiceSlots
	repeats    *repeats
	adminToken [sha256.Size]byte // the hash of it
}

// service is a Service made ready for look-ups.
type service struct {
	Service
	models map[string]*model
	named  map[string]*model // by name and by alias
}

// model is a Model with its backends and what was learnt about it.
type model struct {
	Model
	*learnt
	service *service
	formats []format.Format // that it is sold through
	headers http.Header     // of requests to backends, see Model.SetHeaders
	// names are the name and the aliases, each as a JSON string.
	names map[string][]byte
	pool  *gpu.Pool
}

// learnt is what answers have taught about a model. It outlives the catalogs that
// sell the model within the same limits.
type learnt struct {
	lessons perBackend[lesson]
	work    *atomic.Int64 // msat at base rates; as long as there is the model
}

// lesson is what was learnt of one backend that serves a model.
type lesson struct {
	calibration *format.Calibration
	overhead    *format.Overhead // of its template
}

// learn begins to learn about a model, or goes on from what an older catalog has.
func learn(m *Model, before *model) *learnt {
	if before != nil && before.Limits == m.Limits {
		return before.learnt
	}
	l := &learnt{work: new(atomic.Int64)}
	if before != nil {
		l.work = before.work
	}
	media := m.Limits.MediaTokens
	l.lessons.make = func(*gpu.Backend) lesson {
		one := lesson{format.NewCalibration(), new(format.Overhead)}
		one.calibration.ExpectMedia(media)
		return one
	}
	return l
}

// newCatalog checks a configuration. pool finds the backends of its models; before
// is the catalog to go on from, nil for the first one.
func newCatalog(cfg Config, pool func(model string) *gpu.Pool, before *catalog) (*catalog, error) {
	if len(cfg.ProductText) > 200 {
		return nil, fmt.Errorf("product text is %d bytes, want at most 200", len(cfg.ProductText))
	}
	addresses, err := intake.NewAddresses(cfg.TrustedProxies, cfg.ForwardedHeader)
	if err != nil {
		return nil, err
	}
	c := &catalog{Config: cfg, byHost: map[string]*service{}, services: map[string]*service{}, addresses: addresses,
		adminToken: sha256.Sum256([]byte(cfg.AdminToken))}
	if before != nil && before.MaxInvoices == cfg.MaxInvoices {
		c.slots = before.slots
	} else {
		c.slots = newInvoiceSlots(cfg.MaxInvoices)
	}
	if before != nil && before.Keys == cfg.Keys {
		c.repeats = before.repeats
	} else { // a challenge of another key may be worth nothing
		c.repeats = newRepeats(cfg.Ledger.Known)
	}
	if len(cfg.Services) == 0 {
		return nil, errors.New("no service is configured")
	}
	for _, s := range cfg.Services {
		if err := c.add(s, pool, before); err != nil {
			return nil, fmt.Errorf("service %q: %w", s.Name, err)
		}
	}
	return c, nil
}

// checkProfiles refuses what is said of a backend that serves no model.
func (c *catalog) checkProfiles() error {
	serving := map[string]bool{}
	for _, b := range c.backends() {
		serving[b.Name()] = true
	}
	for name := range c.Profiles {
		if !serving[name] {
			return fmt.Errorf("there is a profile of the backend %q, which serves no model", name)
		}
	}
	return nil
}

func (c *catalog) add(cfg Service, pool func(string) *gpu.Pool, before *catalog) error {
	s := &service{Service: cfg, models: map[string]*model{}}
	switch {
	case cfg.Name == "" || strings.ContainsAny(cfg.Name, ":,= \t\r\n"):
		return errors.New("the name must not be empty or hold ':', ',', '=' or spaces")
	case c.services[cfg.Name] != nil:
		return errors.New("configured twice")
	case cfg.MinPurchase <= 0 || !cfg.MaxPurchase.Valid() || cfg.MaxPurchase%l402.MsatPerSat != 0 || cfg.MinPurchase.CeilSats() > cfg.MaxPurchase:
		return fmt.Errorf("want 0 < min purchase (%v) ≤ max purchase (%v) in whole satoshis", cfg.MinPurchase, cfg.MaxPurchase)
	case len(cfg.Models) == 0:
		return errors.New("sells no model")
	}
	s.ForwardHeaders = slices.Clone(s.ForwardHeaders) // the caller's stay as they are
	for i, name := range s.ForwardHeaders {
		if err := checkForwarded(name); err != nil {
			return fmt.Errorf("forwarded header %q: %w", name, err)
		}
		s.ForwardHeaders[i] = http.CanonicalHeaderKey(name)
	}
	if s.TokenLifetime <= 0 {
		s.TokenLifetime = 365 * 24 * time.Hour
	}
	for _, m := range cfg.Models {
		if m.Name == "" || s.models[m.Name] != nil {
			return fmt.Errorf("model %q is empty or configured twice", m.Name)
		}
		p := pool(m.Name)
		if p == nil {
			return fmt.Errorf("model %q has no pool of backends", m.Name)
		}
		through, err := formatsNamed(c.APIs, m.Formats)
		if err != nil {
			return fmt.Errorf("model %q: %w", m.Name, err)
		}
		headers, err := ownHeaders(m.SetHeaders)
		if err != nil {
			return fmt.Errorf("model %q: %w", m.Name, err)
		}
		s.models[m.Name] = &model{Model: m, formats: through, headers: headers, learnt: learn(&m, before.model(m.Name)), service: s, pool: p}
	}
	if err := s.nameModels(); err != nil {
		return err
	}
	c.services[cfg.Name] = s
	c.browsers = c.browsers || len(cfg.Origins) > 0
	return c.take(s)
}

// take gives a service its hosts.
func (c *catalog) take(s *service) error {
	if len(s.Hosts) == 0 {
		if c.fallback != nil {
			return fmt.Errorf("only one service may be without hosts, and %q is already", c.fallback.Name)
		}
		c.fallback = s
	}
	for _, host := range s.Hosts {
		host = strings.ToLower(host)
		if c.byHost[host] != nil {
			return fmt.Errorf("host %q already belongs to another service", host)
		}
		c.byHost[host] = s
	}
	return nil
}

// serviceFor finds the service of a request's host; nil: none.
func (c *catalog) serviceFor(host string) *service {
	if len(c.byHost) == 0 {
		return c.fallback
	}
	if s := c.byHost[hostName(host)]; s != nil {
		return s
	}
	return c.fallback
}

// reach finds the service that the request's host names.
func (x *exchange) reach() error {
	if x.service = x.cat.serviceFor(x.r.Host); x.service == nil {
		return unknownRoute()
	}
	return nil
}

// hostName strips the port and the case from a Host header.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.ToLower(host)
}

// model finds a public model of any service; nil: it is not sold, or there is no
// catalog.
func (c *catalog) model(name string) *model {
	if c == nil {
		return nil
	}
	for _, s := range c.services {
		if m := s.models[name]; m != nil {
			return m
		}
	}
	return nil
}

// modelNames lists all public models, sorted: the label set of the metrics.
func (c *catalog) modelNames() []string {
	var names []string
	for _, s := range c.services {
		for name := range s.models {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// backends lists the backends that serve a model now, each once.
func (c *catalog) backends() (list []*gpu.Backend) {
	for _, name := range c.modelNames() {
		for _, b := range c.model(name).pool.Backends() {
			if !slices.Contains(list, b) {
				list = append(list, b)
			}
		}
	}
	return list
}

// catalog is the one in force. An exchange has its own, which may be older.
func (g *Gateway) catalog() *catalog { return g.live.Load() }

// Prepare checks another configuration whole and returns what puts it in force.
// Nothing has changed before swap is called, and afterwards each new request sees
// all of it; requests that are open keep what they began with. pool finds the
// backends of its models, nil: the fleet's pools. Taken from the first configuration
// are APIs, Ledger, Board, Prices, Fleet, Invoices, SettleWait, DrainGrace, the operator's hooks,
// Dashboard, Version, Log and Clock. Calls of Prepare and swap must not overlap.
func (g *Gateway) Prepare(cfg Config, pool func(model string) *gpu.Pool) (swap func(), err error) {
	if cfg.Keys == nil {
		return nil, errors.New("gateway: Keys are required")
	}
	fixed := &g.cfg
	cfg.Ledger, cfg.Board, cfg.Prices, cfg.Fleet, cfg.Invoices = fixed.Ledger, fixed.Board, fixed.Prices, fixed.Fleet, fixed.Invoices
	cfg.SettleWait, cfg.DrainGrace, cfg.Operator = fixed.SettleWait, fixed.DrainGrace, fixed.Operator
	cfg.APIs, cfg.Override, cfg.Dashboard, cfg.Version = fixed.APIs, fixed.Override, fixed.Dashboard, fixed.Version
	cfg.Log, cfg.Clock = fixed.Log, fixed.Clock
	cfg.setDefaults()
	if pool == nil {
		pool = g.cfg.Fleet.Pool
	}
	next, err := newCatalog(cfg, pool, g.catalog())
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return func() { g.swap(next) }, nil
}

// swap puts a catalog in force.
func (g *Gateway) swap(next *catalog) {
	before := g.catalog()
	g.engines.say(next.Profiles)
	g.places.Limit(next.MaxRequests)
	g.bodies.Limit(next.MaxBodies)
	if !reflect.DeepEqual(before.Challenges, next.Challenges) {
		g.limits.Limit(*next.Challenges)
	}
	g.live.Store(next)
	gone := func(b *gpu.Backend) bool { return b.Gone() }
	g.engines.forget(func(b *gpu.Backend, _ *engine) bool { return gone(b) })
	for _, name := range next.modelNames() {
		next.model(name).lessons.forget(func(b *gpu.Backend, _ lesson) bool { return gone(b) })
	}
}
