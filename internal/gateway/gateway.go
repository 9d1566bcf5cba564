package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/backends/gpu/telemetry"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/observe"
	"sluice.example/sluice/internal/quiet"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/apis"
	"sluice.example/sluice/pricing"
)

// Invoicer makes invoices on a Lightning node.
type Invoicer interface {
	// AddInvoice makes one invoice for the hash of the preimage, with a memo of at most 639
	// bytes, and returns the invoice in BOLT11. It returns before ctx's deadline. Any error
	// means that no challenge can be given now. An invoice that the node made nevertheless is
	// never given out, and expires.
	AddInvoice(ctx context.Context, invoice Invoice) (bolt11 string, err error)
	// Ready returns nil while the node answers.
	Ready(ctx context.Context) error
}

// Invoice is the invoice that a challenge asks the node for.
type Invoice struct {
	Preimage l402.Preimage
	Amount   l402.Msat // a whole number of satoshis
	Memo     string    // the product text and the sealed token id; see SealedMemo
	Expiry   time.Duration
}

// Service is a group of models that is sold under one name. Tokens carry the name.
type Service struct {
	Name string // in caveats: "services=<name>:0"
	// Hosts are the host names that lead to the service, without port. At most one service may
	// have no hosts: it takes every host that no other service names.
	Hosts         []string
	MinPurchase   l402.Msat     // the smallest invoice, > 0
	MaxPurchase   l402.Msat     // the largest invoice, a whole number of satoshis
	TokenLifetime time.Duration // how long a token is valid; zero: 365 days
	// ChargeCallOn4xx charges the model's call fee when a backend refuses a request as invalid.
	// If it is false, such an answer is free.
	ChargeCallOn4xx bool
	// Origins are the origins of web pages that may call the service from a browser, such as
	// "https://app.example"; "*" stands for all. If it is empty, browsers refuse such calls.
	Origins []string
	// ForwardHeaders names the client's headers that backends get, besides the headers that the
	// gateway writes itself. No engine needs any of them.
	ForwardHeaders []string
	Models         []Model
}

// Model is one public model of a service. The board has its prices and the fleet has its
// backends, both under the model's name.
type Model struct {
	Name string
	// Aliases are other names by which clients may ask for the model. The price and the backends
	// are the same.
	Aliases []string
	Formats []string // the APIs that sell the model, by the names of apis.Names; none: chat
	Limits  format.Limits
	Policy  format.Policy // what requests may hold beyond the known fields
	// SetHeaders are headers of requests to backends. They replace the client's headers.
	SetHeaders map[string]l402.Secret
	CreatedAt  time.Time // shown by /v1/models
	OwnedBy    string    // shown by /v1/models
	// Base is the rate card that prices are multiples of. The gateway uses it only for Work.
	Base     pricing.Rates
	GPUSlice time.Duration // how much GPU time is held at once, where it has a price; zero: 10 s
}

// Config configures a Gateway. The first block is required, except for APIs.
type Config struct {
	Services []Service
	APIs     []format.Format // the APIs that models can be sold through; nil: apis.All
	Ledger   *metering.Ledger
	Keys     *l402.Keyring
	Board    *pricing.Board
	Prices   Prices
	Fleet    *gpu.Fleet
	Invoices Invoicer

	Profiles map[string]format.Setting // what the owner says of a backend, by its name; a missing backend: nothing
	Feeds    []*telemetry.Feed         // sources of load data, for the metrics

	ProductText    string        // begins the memo of every invoice; at most 200 bytes
	InvoiceExpiry  time.Duration // how long an invoice can be paid; zero: 10 minutes
	InvoiceTimeout time.Duration // the time for the node to make an invoice; zero: 5 s
	MaxInvoices    int           // invoices made at once; a quarter is for callers with a token; zero: 64
	// DrainTimeout is how long requests may continue on a backend that the operator drains.
	// Zero: they are cut at once.
	DrainTimeout time.Duration
	QuoteTTL     time.Duration // how long a quote binds the gateway for a client that pays; zero: 1 minute

	Challenges *intake.ChallengeLimits // how often callers may ask for a challenge; nil: DefaultChallengeLimits
	// TrustedProxies are believed when they name their client's address in the header
	// ForwardedHeader: "X-Forwarded-For" or "Forwarded"; "" stands for X-Forwarded-For.
	TrustedProxies  []netip.Prefix
	ForwardedHeader string

	MaxRequests   int           // requests served at once; a quarter is for callers with a token; zero: 10,000
	MaxBody       int64         // bytes of a request's body; zero: 8 MiB
	MaxBodies     int64         // bytes of all bodies in memory, see intake.Bodies; zero: 512 MiB
	BodyTimeout   time.Duration // to read the whole body; zero: 60 s
	BodyGrace     time.Duration // after this time a body must come at BodyRate; zero: 10 s
	BodyRate      int           // bytes per second; zero: 4 KiB
	WriteStall    time.Duration // a client that takes nothing for so long is gone; zero: 30 s
	MaxEvent      int           // bytes of one event of a stream; zero: 8 MiB
	UnaryHoldBack int           // bytes of one document that are held back until it is charged; zero: 8 MiB
	SettleWait    time.Duration // how long the end of an answer waits for its charge; zero: 30 s
	DrainGrace    time.Duration // the time for settling after streams were cut; zero: 10 s

	// Operator is the configuration behind this Config; nil: there is no configuration that
	// could be shown or read again.
	Operator Operator
	// Override fixes the multiplier of a model's price at once; the multiplier 0 ends that. nil:
	// the operator cannot fix prices. It returns pricing.ErrArgument for an operator's mistake.
	Override func(ctx context.Context, model string, multiplier float64) error

	AdminToken string       // the bearer token of /admin; "": /admin is off
	Dashboard  http.Handler // what GET / of the admin listener shows; nil: the gateway's own page
	Version    string
	// Observer is told of all events, besides the metrics and the log; nil: no observer.
	Observer observe.Observer
	Log      *slog.Logger     // repeated warnings are counted, not written; nil: nothing is logged
	Clock    func() time.Time // nil: time.Now
}

// Gateway serves one catalog at a time. It is safe for concurrent use.
type Gateway struct {
	cfg    Config // what every catalog has in common; see Prepare
	log    *slog.Logger
	now    func() time.Time
	ledger *metering.Ledger
	live   atomic.Pointer[catalog] // the catalog in force; never nil

	limits   *intake.Limiter
	places   *intake.Places
	engines  *engines
	bodies   *intake.Bodies
	observer observe.Observer // told of all events of the public listener
	metrics  *observe.Metrics
	open     *openRequests
	settler  *settler
	ready    readiness
	failures failures
}

// New checks the configuration and makes a gateway. It starts no goroutine and makes no
// connection.
func New(cfg Config) (*Gateway, error) {
	if cfg.Ledger == nil || cfg.Keys == nil || cfg.Board == nil || cfg.Prices == nil || cfg.Fleet == nil || cfg.Invoices == nil {
		return nil, errors.New("gateway: Ledger, Keys, Board, Prices, Fleet and Invoices are required")
	}
	cfg.setDefaults()
	first, err := newCatalog(cfg, cfg.Fleet.Pool, nil)
	if err == nil {
		err = first.checkProfiles()
	}
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	g := &Gateway{
		cfg: cfg, log: cfg.Log, now: cfg.Clock, ledger: cfg.Ledger,
		limits:  intake.NewLimiter(*cfg.Challenges, cfg.Clock()),
		places:  intake.NewPlaces(cfg.MaxRequests),
		bodies:  intake.NewBodies(cfg.MaxBodies),
		engines: newEngines(cfg.Profiles),
		open:    newOpenRequests(),
	}
	g.live.Store(first)
	g.metrics = observe.NewMetrics(&stateCollector{g: g})
	g.observer = observe.All(g.metrics, observe.NewLog(cfg.Log), cfg.Observer)
	g.settler = newSettler(g)
	cfg.Fleet.ProveWith(g.prove)
	return g, nil
}

func (c *Config) setDefaults() {
	orDuration := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	orDuration(&c.InvoiceExpiry, 10*time.Minute)
	orDuration(&c.InvoiceTimeout, 5*time.Second)
	orDuration(&c.QuoteTTL, time.Minute)
	orDuration(&c.BodyTimeout, time.Minute)
	orDuration(&c.WriteStall, 30*time.Second)
	orDuration(&c.SettleWait, 30*time.Second)
	orDuration(&c.DrainGrace, 10*time.Second)
	if len(c.APIs) == 0 {
		c.APIs = apis.All()
	}
	if c.MaxInvoices <= 0 {
		c.MaxInvoices = 64
	}
	orDuration(&c.BodyGrace, 10*time.Second)
	if c.Challenges == nil {
		limits := intake.DefaultChallengeLimits()
		c.Challenges = &limits
	}
	if c.MaxRequests <= 0 {
		c.MaxRequests = 10_000
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 8 << 20
	}
	if c.MaxBodies <= 0 {
		c.MaxBodies = 512 << 20
	}
	if c.BodyRate <= 0 {
		c.BodyRate = 4 << 10
	}
	if c.MaxEvent <= 0 {
		c.MaxEvent = 8 << 20
	}
	if c.UnaryHoldBack <= 0 {
		c.UnaryHoldBack = 8 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = slog.New(quiet.New(c.Log.Handler()))
	if c.Clock == nil {
		c.Clock = time.Now
	}
}

// PriceMoved tells the observer that a price came into force.
func (g *Gateway) PriceMoved(ctx context.Context, e pricing.Epoch) { g.observer.PriceMoved(ctx, e) }
