// Package config reads the gateway's configuration. The configuration is one YAML file, whose values
// may hold environment variables (${NAME}). Secrets may also come from the environment or from files
// that the YAML file names.
//
//	cfg, err := config.Load("gateway.yaml", os.Getenv)
//
// The package is strict. An unknown key, a key given twice, a value of the wrong kind or a combination
// that cannot work is an error that names the line and says what to do. All errors of a file are
// returned together (errors.Join of *Error). A returned Config is complete: defaults are filled in,
// secret files are read, and relative paths start at the file's folder.
//
// Diff returns how two configurations differ. A Config is not changed after it was returned.
// deploy/gateway.example.yaml documents every key.
package config

import (
	"log/slog"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering/format/apis"
	"sluice.example/sluice/pricing"
)

// Config is a checked configuration. Its secrets print as "[redacted]".
type Config struct {
	Listen string `yaml:"listen"` // host:port for buyers
	TLS    TLS    `yaml:"tls"`
	// TrustedProxies are the proxies whose word the gateway takes for the address of a client. They
	// give the address in the header ForwardedHeader, which is X-Forwarded-For or Forwarded.
	TrustedProxies  []netip.Prefix `yaml:"trusted_proxies"`
	ForwardedHeader string         `yaml:"forwarded_header"`

	Admin        Admin         `yaml:"admin"`
	Store        Store         `yaml:"store"`
	Keys         []Key         `yaml:"keys"`
	Lightning    Lightning     `yaml:"lightning"`
	Services     []Service     `yaml:"services"`
	Backends     []Backend     `yaml:"backends"`
	Telemetry    Telemetry     `yaml:"telemetry"`
	Limits       Limits        `yaml:"limits"`
	DrainTimeout time.Duration `yaml:"drain_timeout"` // longest time for open answers after SIGTERM
	QuoteTTL     time.Duration `yaml:"quote_ttl"`
	// Watch means that the gateway watches the file and the files that it names, and puts a change in
	// force by itself.
	Watch  bool   `yaml:"watch"`
	Ledger Ledger `yaml:"ledger"`
	Audit  Audit  `yaml:"audit"`
	Log    Log    `yaml:"log"`

	Warnings []string `yaml:"-"` // about settings that work but may disappoint

	inline bool // the file itself holds secrets
	// raw holds the values that contain environment variables, as the file writes them, by the path of
	// the key.
	raw map[string]string
}

// holdsSecrets says whether the file as written holds a secret.
func (c *Config) holdsSecrets() bool {
	own := func(key string, s Secret) bool { return s != "" && c.raw[key] == "" }
	for i, k := range c.Keys {
		if own("keys["+strconv.Itoa(i)+"].secret", k.Secret) {
			return true
		}
	}
	for i, b := range c.Backends {
		if own("backends["+strconv.Itoa(i)+"].api_key", b.APIKey) {
			return true
		}
	}
	if u, err := url.Parse(c.Store.URL.Reveal()); err == nil && u.User != nil {
		if _, password := u.User.Password(); password && c.raw["store"] == "" {
			return true
		}
	}
	return own("admin.token", c.Admin.Token) || own("lightning.macaroon_base64", c.Lightning.MacaroonBase64)
}

// TLS names the files of the buyers' listener. If both are empty, the listener speaks plain HTTP.
type TLS struct {
	Cert string `yaml:"cert"` // PEM, the chain
	Key  string `yaml:"key"`  // PEM
}

// Enabled says whether the listener speaks TLS.
func (t TLS) Enabled() bool { return t.Cert != "" }

// Admin is the operator's listener.
type Admin struct {
	Listen string `yaml:"listen"`
	Token  Secret `yaml:"token"` // bearer token of /admin and the dashboard; empty means that both are off
}

// Key is one master key as the file has it. Master is the key with its secret decoded.
type Key struct {
	ID         string         `yaml:"id"`
	State      l402.KeyState  `yaml:"state"`
	Secret     Secret         `yaml:"secret"`      // 64 hex digits
	SecretFile string         `yaml:"secret_file"` // a file that holds the 64 hex digits
	Master     l402.MasterKey `yaml:"-"`
}

// MasterKeys returns the master keys in order. The first key in state mint mints.
func (c *Config) MasterKeys() []l402.MasterKey {
	keys := make([]l402.MasterKey, len(c.Keys))
	for i, k := range c.Keys {
		keys[i] = k.Master
	}
	return keys
}

// Lightning is the lnd node that makes invoices.
type Lightning struct {
	GRPC           string        `yaml:"grpc"` // host:port
	TLSCertFile    string        `yaml:"tls_cert"`
	TLSCertBase64  string        `yaml:"tls_cert_base64"`
	MacaroonFile   string        `yaml:"macaroon"`
	MacaroonBase64 Secret        `yaml:"macaroon_base64"`
	Timeout        time.Duration `yaml:"timeout"`        // longest time of each call
	InvoiceExpiry  time.Duration `yaml:"invoice_expiry"` // whole seconds
	Memo           string        `yaml:"memo"`           // product text that begins each invoice's memo, at most 200 bytes

	TLSCert  []byte `yaml:"-"` // PEM; empty means the system's roots
	Macaroon Secret `yaml:"-"` // binary
}

// Service is something that is sold under one service name in the tokens.
type Service struct {
	Name string `yaml:"name"`
	// Hosts are host names in lower case, without port. Empty means every host that no other service
	// names.
	Hosts           []string      `yaml:"hosts"`
	MinPurchase     l402.Msat     `yaml:"min_purchase"`
	MaxPurchase     l402.Msat     `yaml:"max_purchase"`
	TokenLifetime   time.Duration `yaml:"token_lifetime"`
	ChargeCallOn4xx bool          `yaml:"charge_call_on_4xx"` // a request that the backend refused costs the call price
	CORS            CORS          `yaml:"cors"`
	AllowFields     []string      `yaml:"allow_fields"`    // request fields, for all models
	MediaHosts      []string      `yaml:"media_hosts"`     // hosts from which backends may fetch pictures, for all models
	ForwardHeaders  []string      `yaml:"forward_headers"` // request headers that backends get
	Models          []Model       `yaml:"models"`
}

// CORS names the web pages that may call a service from a browser.
type CORS struct {
	// Origins are scheme, host and port in lower case, without the port if it is the usual port of the
	// scheme. The single origin "*" means all pages.
	Origins []string `yaml:"origins"`
}

// Model is one public model.
type Model struct {
	Name                string         `yaml:"name"`
	Aliases             []string       `yaml:"aliases"`  // other names of the model, at the same price
	OwnedBy             string         `yaml:"owned_by"` // shown by /v1/models
	Backends            []string       `yaml:"backends"`
	APIs                []string       `yaml:"apis"` // names of the APIs through which the model is sold
	ContextTokens       int64          `yaml:"context_tokens"`
	MaxCompletionTokens int64          `yaml:"max_completion_tokens"`
	MinCompletionTokens int64          `yaml:"min_completion_tokens"`
	TemplateTokens      TemplateTokens `yaml:"template_tokens"`
	Prices              Prices         `yaml:"prices"`
	Pricing             Pricing        `yaml:"pricing"`
	AllowFields         []string       `yaml:"allow_fields"` // request fields, in addition to the service's
	// SetFields are put into each request and replace the client's fields. RemoveFields are removed
	// from each request.
	SetFields    map[string]JSON   `yaml:"set_fields"`
	RemoveFields []string          `yaml:"remove_fields"`
	SetHeaders   map[string]Secret `yaml:"set_headers"`  // headers of requests to backends
	MediaHosts   []string          `yaml:"media_hosts"`  // in addition to the service's
	MediaTokens  int64             `yaml:"media_tokens"` // the most prompt tokens of one picture; 0 means not known
	// MaxItems is the most texts to embed, or documents to rank, in one request. 0 means the API's own
	// limit.
	MaxItems int64         `yaml:"max_items"`
	GPUSlice time.Duration `yaml:"gpu_slice"` // GPU time that is held at a time, if GPU time has a price
	// GPUFallback says what GPU time costs while it cannot be read. It is FallbackWall or
	// FallbackRefuse.
	GPUFallback string `yaml:"gpu_time_fallback"`
	Queue       Queue  `yaml:"queue"`
}

// The values of GPUFallback.
const (
	// FallbackWall counts the elapsed time, divided by the requests in flight.
	FallbackWall = "wall"
	// FallbackRefuse refuses requests while no backend's GPU time can be read.
	FallbackRefuse = "refuse"
)

// TemplateTokens bounds how many tokens the chat template adds to a prompt.
type TemplateTokens struct {
	Base       int64 `yaml:"base"`
	PerMessage int64 `yaml:"per_message"`
}

// Prices is a model's rate card.
type Prices struct {
	Input       Rate `yaml:"input" unit:"Mtok"`
	CachedInput Rate `yaml:"cached_input" unit:"Mtok"`
	Output      Rate `yaml:"output" unit:"Mtok"`
	Call        Rate `yaml:"call" unit:"call"`
	GPUSecond   Rate `yaml:"gpu_second" unit:"s"`
	MiB         Rate `yaml:"mib" unit:"MiB"`
	Second      Rate `yaml:"second" unit:"s"`
	Search      Rate `yaml:"search" unit:"search"`     // price of a query over at most 100 documents
	Document    Rate `yaml:"document" unit:"document"` // price of a document that is ranked or scored
}

// Rates returns the rate card as package pricing represents it.
func (p Prices) Rates() pricing.Rates {
	return pricing.Rates{
		pricing.InputTokens:       int64(p.Input),
		pricing.CachedInputTokens: int64(p.CachedInput),
		pricing.OutputTokens:      int64(p.Output),
		pricing.GPUMicros:         int64(p.GPUSecond),
		pricing.Calls:             int64(p.Call),
		pricing.Bytes:             int64(p.MiB),
		pricing.WallMicros:        int64(p.Second),
		pricing.Searches:          int64(p.Search),
		pricing.Documents:         int64(p.Document),
	}
}

// Queue is where requests of a model wait for a slot.
type Queue struct {
	Limit      int           `yaml:"limit"`
	PerAccount int           `yaml:"per_account"` // the most of Limit for one account; zero means all
	Timeout    time.Duration `yaml:"timeout"`
}

// Backend is one inference server.
type Backend struct {
	Name       string   `yaml:"name"`
	URL        *url.URL `yaml:"url"`
	APIKey     Secret   `yaml:"api_key"`
	APIKeyFile string   `yaml:"api_key_file"`
	// KeyHeader names the header that takes the key as it is. Empty means Authorization, as a bearer
	// token.
	KeyHeader       string            `yaml:"key_header"`
	Paths           map[string]string `yaml:"paths"` // an API, "models" or a path → the path at the server
	Query           map[string]Secret `yaml:"query"` // parameters that are added to each request
	Slots           int               `yaml:"slots"`
	Weight          int               `yaml:"weight"` // share of requests, relative to the model's other backends
	Health          Health            `yaml:"health"`
	Timeouts        Timeouts          `yaml:"timeouts"`
	Tokenize        *bool             `yaml:"tokenize"`         // nil means what the engine's profile says
	ContinuousUsage *bool             `yaml:"continuous_usage"` // nil means what the engine's profile says
	CapField        string            `yaml:"cap_field"`        // empty means what the engine's profile says
	Models          map[string]string `yaml:"models"`           // public name → the server's name
	Engine          Engine            `yaml:"engine"`
	GPUs            []string          `yaml:"gpus"`     // UUIDs, indices or labels
	Exporter        *url.URL          `yaml:"exporter"` // the exporter that reads the GPUs; nil means NVML on this host
	Ask             Ask               `yaml:"ask"`

	EngineURL *url.URL `yaml:"-"` // where the engine's metrics are; nil means nowhere
}

// Health is a backend's active check. An empty path turns the check off.
type Health struct {
	Path  string        `yaml:"path"`
	Every time.Duration `yaml:"every"`

	Default bool `yaml:"-"` // the file names no path, so the gateway may ask another if the server lacks it
}

// Timeouts bounds the stages of a request to a backend.
type Timeouts struct {
	Connect   time.Duration `yaml:"connect"`
	FirstByte time.Duration `yaml:"first_byte"`
	// FirstEvent bounds the time from the header of a stream to the first event that the model
	// produced. Idle bounds each wait after that event.
	FirstEvent time.Duration `yaml:"first_event"`
	Idle       time.Duration `yaml:"idle"`
}

// Limits bounds what buyers may take up.
type Limits struct {
	Body          Size          `yaml:"body"`
	Headers       Size          `yaml:"headers"`
	Event         Size          `yaml:"event"`      // one event of a stream
	UnaryHold     Size          `yaml:"unary_hold"` // how much of a unary answer is held back until it is charged
	HeaderTimeout time.Duration `yaml:"header_timeout"`
	BodyTimeout   time.Duration `yaml:"body_timeout"`
	IdleTimeout   time.Duration `yaml:"idle_timeout"` // longest time that a connection may be idle
	WriteStall    time.Duration `yaml:"write_stall"`  // a client that takes no byte for so long is gone
	Invoices      int           `yaml:"invoices"`     // invoices being made at once
	Challenges    Challenges    `yaml:"challenges"`
	// Bodies bounds the bodies of all requests in memory together. The first 16 KiB of each body do not
	// count.
	Bodies      Size `yaml:"bodies"`
	Requests    int  `yaml:"requests"`                // being served at once
	Connections int  `yaml:"connections"`             // open at once
	PerAddress  int  `yaml:"connections_per_address"` // of Connections, from one address; by default a quarter
}

// Challenges bounds how often callers may ask for an invoice. Callers without a token are counted by
// address and network, and callers with a token by account.
type Challenges struct {
	PerAddress Frequency `yaml:"per_address"` // IPv4 address; IPv6 address and /64
	PerSubnet  Frequency `yaml:"per_subnet"`  // IPv4 /24, IPv6 /48
	PerNetwork Frequency `yaml:"per_network"` // IPv4 /16, IPv6 /32
	Total      Frequency `yaml:"total"`       // all callers without a token
	PerAccount Frequency `yaml:"per_account"`
}

// Ledger holds the settings of the ledger.
type Ledger struct {
	ID    l402.LedgerID `yaml:"id"` // the database must have this id; zero means any
	Lease time.Duration `yaml:"lease"`
	Renew time.Duration `yaml:"renew"`
	// MaxBudgets bounds the live sub-budgets that one account itself delegates. MaxSubBudgets bounds
	// the sub-budgets that are delegated from one sub-budget.
	MaxBudgets    int `yaml:"max_budgets"`
	MaxSubBudgets int `yaml:"max_sub_budgets"`
	// ConfirmWithin is how long lnd may fail to report a presented payment before the gateway takes the
	// payment's credit back.
	ConfirmWithin time.Duration `yaml:"confirm_within"`
}

// Audit says how often the gateway checks the ledger, and whether the gateway closes periods.
type Audit struct {
	Every time.Duration `yaml:"every"` // 0 means never
	Seal  string        `yaml:"seal"`  // SealMonthly or SealOff
}

// The values of Audit.Seal.
const (
	SealMonthly = "monthly"
	SealOff     = "off"
)

// Log says what is logged, and how.
type Log struct {
	Level  slog.Level `yaml:"level"`
	Format string     `yaml:"format"` // text or json
}

// defaults returns the configuration that a file's values are written over.
func defaults() *Config {
	return &Config{
		Listen:       "127.0.0.1:8402",
		Admin:        Admin{Listen: "127.0.0.1:9402"},
		Store:        Store{Path: "sluice.db"},
		Lightning:    Lightning{Timeout: 5 * time.Second, InvoiceExpiry: 10 * time.Minute, Memo: "prepaid credit for API calls"},
		DrainTimeout: 2 * time.Minute,
		QuoteTTL:     time.Minute,
		Telemetry:    Telemetry{NVMLEvery: 200 * time.Millisecond, Every: time.Second, StaleAfter: 15 * time.Second},
		Ledger:       Ledger{Lease: 15 * time.Second, Renew: 5 * time.Second, MaxBudgets: 10_000, MaxSubBudgets: 1_000, ConfirmWithin: 10 * time.Minute},
		Audit:        Audit{Every: 10 * time.Minute, Seal: SealMonthly},
		Log:          Log{Format: "text"},

		ForwardedHeader: "X-Forwarded-For",
		Limits: Limits{
			Body: 8 << 20, Headers: 64 << 10, Event: 8 << 20, UnaryHold: 8 << 20,
			HeaderTimeout: 10 * time.Second, BodyTimeout: time.Minute, IdleTimeout: 2 * time.Minute, WriteStall: 30 * time.Second,
			Invoices: 64,
			Challenges: Challenges{
				PerAddress: Frequency{50, 200}, PerSubnet: Frequency{100, 300}, PerNetwork: Frequency{200, 400},
				Total: Frequency{300, 600}, PerAccount: Frequency{5, 100},
			},
			Bodies: 512 << 20, Requests: 10_000, Connections: 10_000,
		},
	}
}

// setDefaults sets the defaults of a list entry. The decoder calls it on each entry before it reads the
// entry.
func (s *Service) setDefaults() {
	s.MinPurchase = 100 * l402.MsatPerSat
	s.MaxPurchase = 100_000 * l402.MsatPerSat
	s.TokenLifetime = 365 * 24 * time.Hour
}

func (m *Model) setDefaults() {
	m.OwnedBy = "sluice"
	m.APIs = apis.Names()[:1]
	m.MinCompletionTokens = 16
	m.TemplateTokens = TemplateTokens{Base: 64, PerMessage: 16}
	m.Queue = Queue{Limit: 64, Timeout: 30 * time.Second}
	m.Pricing = defaultPricing()
	m.GPUSlice, m.GPUFallback = 10*time.Second, FallbackWall
}

func (b *Backend) setDefaults() {
	b.Weight = 1
	b.Health = Health{Path: "/health", Every: 5 * time.Second}
	b.Timeouts = Timeouts{Connect: 5 * time.Second, FirstByte: 5 * time.Minute, FirstEvent: 10 * time.Minute, Idle: time.Minute}
}

func (k *Key) setDefaults() { k.State = l402.KeyMint }
