package inference

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

//go:embed corpus.txt
var corpus string

// TemplateBase and TemplatePerMessage are how many tokens the chat template adds to a prompt.
const (
	TemplateBase       = 2 // the marker after which the answer begins, and its line end
	TemplatePerMessage = 4 // role marker, line end, end marker, line end
)

// Config says how a Server behaves. The zero value gives a working server.
type Config struct {
	Model            string        // model that requests must name; default "demo"
	TokensPerSecond  float64       // pace of one sequence while the server is idle; default 60
	Slowdown         float64       // share of the pace that is lost when every slot is taken, 0..1; default 0
	Slots            int           // sequences that generate at the same time; default 64
	Queue            int           // requests that may wait for a slot; default 256, negative: none
	FirstTokenDelay  time.Duration // fixed part of the prefill; default 0
	PrefillPerSecond float64       // prompt tokens prefilled per second; default 0: no time
	MaxModelLen      int           // prompt and answer together, in tokens; default 8192
	ImageTokens      int           // prompt tokens that an image counts for; default 0: images are refused
	Seed             uint64        // seed of requests without a seed; default 0: random
	APIKey           string        // required as a bearer token; default "": no key is required
	Record           bool          // keep requests for Requests
	SimulateGPU      string        // file that Serve writes for a fake of NVIDIA's library; default "": no file

	Faults      string   // faults of every chat request, see Faults; default none
	Script      []string // faults of the first chat requests, one element per request; Faults applies after them
	AllowFaults bool     // the request header X-Fault overrides Faults and Script
}

func (c Config) withDefaults() Config {
	if c.Model == "" {
		c.Model = "demo"
	}
	if c.TokensPerSecond == 0 {
		c.TokensPerSecond = 60
	}
	if c.Slots == 0 {
		c.Slots = 64
	}
	if c.Queue == 0 {
		c.Queue = 256
	}
	if c.MaxModelLen == 0 {
		c.MaxModelLen = 8192
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	return c
}

func (c Config) check() error {
	switch {
	case !(c.TokensPerSecond > 0) || math.IsInf(c.TokensPerSecond, 0):
		return errors.New("tokens per second must be above 0")
	case !(c.Slowdown >= 0 && c.Slowdown < 1):
		return errors.New("slowdown must be within 0 and less than 1")
	case c.Slots < 0:
		return errors.New("slots must be at least 1")
	case c.FirstTokenDelay < 0:
		return errors.New("first token delay must not be negative")
	case !(c.PrefillPerSecond >= 0):
		return errors.New("prefill tokens per second must not be negative")
	case c.MaxModelLen < 16:
		return errors.New("max model len must be at least 16 tokens")
	case c.ImageTokens < 0:
		return errors.New("image tokens must not be negative")
	}
	return nil
}

// Server is one inference server. It is safe for concurrent use.
type Server struct {
	cfg     Config
	model   *model
	slots   *slots
	script  *script
	started time.Time
	count   counters
}

type counters struct {
	requests, cancelled, refused  atomic.Int64
	promptTokens, generatedTokens atomic.Int64
	cachedTokens                  atomic.Int64 // tokens in the KV cache now
	unseeded                      atomic.Uint64
	recorded                      recorder
}

// New checks the configuration and fits the language model, which takes about 20 ms.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("inference server: %w", err)
	}
	script, err := newScript(cfg.Faults, cfg.Script)
	if err != nil {
		return nil, fmt.Errorf("inference server: %w", err)
	}
	return &Server{
		cfg:     cfg,
		model:   fit(corpus),
		slots:   newSlots(cfg.Slots, max(cfg.Queue, 0)),
		script:  script,
		started: time.Now(),
	}, nil
}

// Tokenizer returns the server's tokenizer.
func (s *Server) Tokenizer() *Tokenizer { return s.model.tok }

// Handler returns a handler for the endpoints that the package comment lists.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.guarded(s.chat))
	mux.HandleFunc("POST /v1/embeddings", s.guarded(s.reads(s.parseEmbeddings)))
	for _, path := range []string{"/v1/rerank", "/rerank", "/v2/rerank"} { // the same paths as vLLM
		mux.HandleFunc("POST "+path, s.guarded(s.reads(s.parseRerank)))
	}
	for _, path := range []string{"/v1/score", "/score"} {
		mux.HandleFunc("POST "+path, s.guarded(s.reads(s.parseScore)))
	}
	mux.HandleFunc("POST /v1/completions", s.guarded(s.completions))
	mux.HandleFunc("GET /v1/models", s.guarded(s.models))
	mux.HandleFunc("POST /tokenize", s.guarded(s.tokenize))
	mux.HandleFunc("POST /detokenize", s.guarded(s.detokenize))
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /metrics", s.metrics)
	return mux
}

// ListenAndServe serves on addr until ctx ends.
func (s *Server) ListenAndServe(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("inference server: %w", err)
	}
	return s.Serve(ctx, ln)
}

// stopGrace is how long running answers may continue after the context has ended.
const stopGrace = 500 * time.Millisecond

// Serve serves HTTP/1.1 and unencrypted HTTP/2 on ln until ctx ends. Then it closes ln and returns
// nil.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	stopGPU, err := s.simulateGPU(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("inference server: %w", err), ln.Close())
	}
	defer stopGPU()
	srv := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err = srv.Serve(ln)
	if stop() {
		return fmt.Errorf("inference server: %w", err)
	}
	<-stopped
	return nil
}

// Stats says what the server has done since its start and what it does now.
type Stats struct {
	Running, Waiting int   // sequences that have a slot; requests that wait for one
	Requests         int64 // chat requests received
	Refused          int64 // chat requests that found the queue full
	Cancelled        int64 // chat requests whose client hung up, queued ones included
	PromptTokens     int64 // tokens of the prompts of requests that got a slot
	GeneratedTokens  int64 // generated tokens, delivered or not
}

// Stats returns the present statistics. Tests and the simulated GPU use them.
func (s *Server) Stats() Stats {
	running, waiting := s.slots.load()
	return Stats{
		Running: running, Waiting: waiting,
		Requests: s.count.requests.Load(), Refused: s.count.refused.Load(), Cancelled: s.count.cancelled.Load(),
		PromptTokens: s.count.promptTokens.Load(), GeneratedTokens: s.count.generatedTokens.Load(),
	}
}
