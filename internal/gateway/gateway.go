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
	// AddInvoice makes one invoice for the hash of preimage, with a memo of at
	// most 639 bytes, and returns it in BOLT11. It keeps to ctx's deadline. Any
	// error means that no challenge can be given now; an invoice that was made
	// all the same simply expires.
	AddInvoice(ctx context.Context, invoice Invoice) (bolt11 string, err error)
	// Ready returns nil while the node answers.
	Ready(ctx context.Context) error
}

// Invoice is what a challenge asks the node for.
type Invoice struct {
	Preimage l402.Preimage
	Amount   l402.Msat // whole satoshis
	Memo     string    // product text and the sealed token id, see SealedMemo
	Expiry   time.Duration
}

// Service is one thing sold: some models under one name in the tokens.
type Service struct {
	Name string // in caveats: "services=<name>:0"
	// Hosts are the host names that reach the service, without port. One
	// service may have none: it takes every host that no other names.
	Hosts         []string
	MinPurchase   l402.Msat     // smallest invoice, > 0
	MaxPurchase   l402.Msat     // largest invoice, whole satoshis
	TokenLifetime time.Duration // zero: 365 days
	// ChargeCallOn4xx charges the model's call rate when a backend refuses a
	// request as invalid. Without it such an answer is free.
	ChargeCallOn4xx bool
	// Origins are those of web pages that may call the service from a browser, such
	// as "https://app.example", or "*" for all. None: browsers are told nothing.
	Origins []string
	// ForwardHeaders are request headers that backends get, in canonical form,
	// beside those that the gateway writes itself. None is needed by any engine.
	ForwardHeaders []string
	Models         []Model
}

// Model is one public model of a service. Its prices are on the board, its
// backends in the fleet, both under the same name.
type Model struct {
	Name string
	// Aliases are other names by which clients may ask for it, at the same price and of
	// the same backends.
	Aliases []string
	Formats []string // the APIs that it is sold through, as apis.Names has them; none: chat
	Limits  format.Limits
	Policy  format.Policy // what requests may hold beyond what is known
	// SetHeaders are headers of requests to backends, over the client's.
	SetHeaders map[string]l402.Secret
	CreatedAt  time.Time // shown by /v1/models
	OwnedBy    string    // shown by /v1/models
	// Base is the rate card that prices are multiples of; it values work for
	// Work and for nothing else.
	Base     pricing.Rates
	GPUSlice time.Duration // of GPU time held at a time, where that has a price; zero: 10 s
}

// Config is everything a Gateway needs. The first block is required, but for APIs.
type Config struct {
	Services []Service
	APIs     []format.Format // that models can be sold through; nil: apis.All
	Ledger   *metering.Ledger
	Keys     *l402.Keyring
	Board    *pricing.Board
	Prices   Prices
	Fleet    *gpu.Fleet
	Invoices Invoicer

	Profiles map[string]format.Setting // what the owner says of a backend, by its name; a missing one says nothing
	Feeds    []*telemetry.Feed         // of load, for the metrics

	ProductText    string        // begins the memo of every invoice, at most 200 bytes
	InvoiceExpiry  time.Duration // zero: 10 minutes
	InvoiceTimeout time.Duration // for the node to make one; zero: 5 s
	MaxInvoices    int           // being made at once; a quarter is kept for callers with a token. Zero: 64
	// DrainTimeout is how long requests on a backend that the operator drains may go on.
	// Zero: they are cut at once.
	DrainTimeout time.Duration
	QuoteTTL     time.Duration // how long a quote binds who pays for it; zero: 1 minute

	Challenges *intake.ChallengeLimits // how often callers may ask for one; nil: DefaultChallengeLimits
	// TrustedProxies are believed when they name their client's address in
	// ForwardedHeader: X-Forwarded-For (also when empty) or Forwarded.
	TrustedProxies  []netip.Prefix
	ForwardedHeader string

	MaxRequests   int           // being served at once; a quarter is kept for callers with a token. Zero: 10,000
	MaxBody       int64         // bytes of a request's body; zero: 8 MiB
	MaxBodies     int64         // bytes of all bodies in memory, without the first 16 KiB of each; an eighth is for callers without a token. Zero: 512 MiB
	BodyTimeout   time.Duration // to read the whole of it; zero: 60 s
	BodyGrace     time.Duration // after which a body must have come at BodyRate; zero: 10 s
	BodyRate      int           // bytes per second; zero: 4 KiB
	WriteStall    time.Duration // a client that takes nothing for so long is gone; zero: 30 s
	MaxEvent      int           // bytes of one event of a stream; zero: 8 MiB
	UnaryHoldBack int           // bytes of a unary answer held until it is charged; zero: 8 MiB
	SettleWait    time.Duration // how long the end of an answer waits for its charge; zero: 30 s
	DrainGrace    time.Duration // for settling after streams were cut; zero: 10 s

	// Operator is the configuration behind all of this; nil: there is none to be asked
	// about or read again.
	Operator Operator
	// Override fixes the multiplier of a model's price at once, or lifts that with
	// 0; nil: there is no such switch. pricing.ErrArgument is the operator's fault.
	Override func(ctx context.Context, model string, multiplier float64) error

	AdminToken string       // bearer token of /admin; empty: /admin is off
	Dashboard  http.Handler // what GET / of the admin listener shows; nil: a small page of our own
	Version    string
	// Observer is told of everything that happens, beside the metrics and the log; nil: none.
	Observer observe.Observer
	Log      *slog.Logger     // nil: nothing is logged. Warnings that repeat are counted rather than written
	Clock    func() time.Time // nil: time.Now
}

// Gateway serves one catalog at a time. It is safe for concurrent use.
type Gateway struct {
	cfg    Config // what stays: see Prepare
	log    *slog.Logger
	now    func() time.Time
	ledger *metering.Ledger
	live   atomic.Pointer[catalog] // in force; never nil

	limits   *intake.Limiter
	places   *intake.Places
	engines  *engines
	bodies   *intake.Bodies
	observer observe.Observer // of everything that happens on the public listener
	metrics  *observe.Metrics
	open     *openRequests
	settler  *settler
	ready    readiness
	failures failures
}

// New checks the configuration and builds a gateway. It starts nothing and
// makes no connection.
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

// PriceMoved tells those who watch the gateway that a price came into force.
func (g *Gateway) PriceMoved(ctx context.Context, e pricing.Epoch) { g.observer.PriceMoved(ctx, e) }
