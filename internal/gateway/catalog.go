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

// catalog is what is sold at one moment, with its keys and limits. A catalog is never changed:
// Prepare makes another catalog, and each exchange keeps the catalog with which it began.
type catalog struct {
	Config   // the part that Prepare can change, and the part that is the same in every catalog
	byHost   map[string]*service
	fallback *service // the service for every host that no service names; nil: none
	services map[string]*service
	browsers bool // a service takes calls from web pages

	addresses  *intake.Addresses
	slots      *invoiceSlots
	repeats    *repeats
	proven     *proven
	adminToken [sha256.Size]byte // the hash of AdminToken
}

// service is a Service with its models prepared for look-ups.
type service struct {
	Service
	models map[string]*model
	named  map[string]*model // by name and by alias
}

// model is a Model with its backends, and with what the gateway learned about it.
type model struct {
	Model
	*learnt
	service *service
	formats []format.Format // the APIs that the model is sold through
	headers http.Header     // of requests to backends; see Model.SetHeaders
	// names has the name and the aliases, each as a JSON string.
	names map[string][]byte
	pool  *gpu.Pool
}

// learnt is what the gateway learned about a model from answers. Later catalogs keep it as long as
// they sell the model within the same limits.
type learnt struct {
	lessons perBackend[lesson]
	work    *atomic.Int64 // msat at base rates; kept as long as the model is sold
}

// lesson is what the gateway learned about one backend that serves a model.
type lesson struct {
	calibration *format.Calibration
	overhead    *format.Overhead // tokens that the backend's template adds
}

// learn returns what an older catalog has learned about a model, or begins to learn anew. before
// is the model in the older catalog; nil: the older catalog does not sell it.
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

// newCatalog checks a configuration and makes its catalog. pool returns the backends of a model.
// before is the catalog in force; nil for the first catalog.
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
		c.repeats, c.proven = before.repeats, before.proven
	} else { // a challenge or a token made with another key may be worthless
		c.repeats, c.proven = newRepeats(cfg.Ledger.Known), newProven(cfg.Keys)
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

// checkProfiles returns an error if the configuration has a profile of a backend that serves no
// model.
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
	s.ForwardHeaders = slices.Clone(s.ForwardHeaders) // leaves the caller's slice as it is
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

// take makes the hosts of a service lead to the service.
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

// serviceFor returns the service of a request's host; nil: no service takes the host.
func (c *catalog) serviceFor(host string) *service {
	if len(c.byHost) == 0 {
		return c.fallback
	}
	if s := c.byHost[hostName(host)]; s != nil {
		return s
	}
	return c.fallback
}

// reach sets the service that the request's host names, or returns unknownRoute.
func (x *exchange) reach() error {
	if x.service = x.cat.serviceFor(x.r.Host); x.service == nil {
		return unknownRoute()
	}
	return nil
}

// hostName returns a Host header in lower case and without the port.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.ToLower(host)
}

// model returns the model with this public name, of any service. It returns nil if the model is
// not sold, or if c is nil.
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

// modelNames returns the public names of all models, sorted. They are a label of the metrics.
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

// backends returns the backends that serve a model now, each once.
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

// catalog returns the catalog in force. An exchange may have an older catalog.
func (g *Gateway) catalog() *catalog { return g.live.Load() }

// Prepare checks another configuration as a whole, and returns swap, which puts it in force.
// Nothing changes before swap is called. Afterwards each new request gets the new configuration,
// and open requests keep the configuration with which they began. pool returns the backends of a
// model; nil stands for the fleet's pools. Prepare ignores these fields of cfg and keeps those of
// the first configuration: APIs, Ledger, Board, Prices, Fleet, Invoices, SettleWait, DrainGrace,
// Operator, Override, Dashboard, Version, Log and Clock. Calls of Prepare and swap must not overlap.
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
