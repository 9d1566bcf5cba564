package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"sluice.example/sluice/pricing"
)

// Defaults of an AskConfig, and its bounds.
const (
	DefaultAskEvery   = 10 * time.Second
	DefaultAskTimeout = 2 * time.Second

	maxAskBody = 64 << 10 // in bytes, of an answer
)

// AskConfig describes a hook, which is an HTTP server that tells what a backend's owner asks now.
type AskConfig struct {
	// URL is where the feed sends a GET request. The hook answers with status 200 and a JSON rate card,
	// {"input_msat_per_mtok":N,"output_msat_per_mtok":N}. The feed ignores other members of the object.
	URL *url.URL
	// Fallback is in force until the first answer comes, and while the last answer is too old.
	Fallback pricing.Rates
	Every    time.Duration // zero means DefaultAskEvery
	Timeout  time.Duration // bounds one request; zero means DefaultAskTimeout
	// StaleAfter is the age from which an answer is too old to be in force. Zero means three times
	// Every.
	StaleAfter time.Duration
	Client     *http.Client     // nil means an http.Client without settings
	Log        *slog.Logger     // nil means that nothing is logged
	Clock      func() time.Time // nil means time.Now
}

// AskFeed is an Ask that takes its rate card from a hook.
type AskFeed struct {
	cfg    AskConfig
	latest atomic.Pointer[answered]
	fails  atomic.Uint64
	silent bool // the last request failed, and the log has a line that says so
}

type answered struct {
	rates pricing.Rates
	at    time.Time
}

// NewAskFeed makes the feed. The feed sends no request before Run or Poll is called. The error says
// what is wrong with the configuration.
func NewAskFeed(cfg AskConfig) (*AskFeed, error) {
	if cfg.URL == nil || cfg.URL.Host == "" {
		return nil, errors.New("the ask hook's url has no host")
	}
	if err := cfg.Fallback.Validate(); err != nil {
		return nil, fmt.Errorf("the ask: %w", err)
	}
	if cfg.Every < 0 || cfg.Timeout < 0 || cfg.StaleAfter < 0 {
		return nil, errors.New("the ask hook's times cannot be negative")
	}
	if cfg.Every == 0 {
		cfg.Every = DefaultAskEvery
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultAskTimeout
	}
	if cfg.StaleAfter == 0 {
		cfg.StaleAfter = 3 * cfg.Every
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &AskFeed{cfg: cfg}, nil
}

// Run asks the hook once per interval until ctx ends.
func (f *AskFeed) Run(ctx context.Context) {
	ticker := time.NewTicker(f.cfg.Every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		f.Poll(ctx)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// Poll asks the hook once, now. Run calls it at each interval. Calls of Poll must not overlap.
func (f *AskFeed) Poll(ctx context.Context) {
	r, err := f.get(ctx)
	switch {
	case err == nil:
		f.latest.Store(&answered{r, f.cfg.Clock()})
		if f.silent {
			f.silent = false
			f.cfg.Log.Info("the ask hook answers again", "host", f.cfg.URL.Host)
		}
	case ctx.Err() == nil:
		f.fails.Add(1)
		if !f.silent {
			f.silent = true
			f.cfg.Log.Warn("the ask hook fails, its last answer counts a while longer", "host", f.cfg.URL.Host, "err", err)
		}
	}
}

func (f *AskFeed) get(ctx context.Context) (r pricing.Rates, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.cfg.URL.String(), nil)
	if err != nil {
		return r, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := f.cfg.Client.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok {
		return r, e.Err // without the URL, because its query may hold a key
	}
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return r, fmt.Errorf("the hook answered %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAskBody))
	if err != nil {
		return r, fmt.Errorf("read the hook's answer: %w", err)
	}
	return parseAsk(body)
}

// parseAsk reads a rate card. Both rates are required: an owner who leaves out a rate has more likely
// made a mistake than a gift.
func parseAsk(body []byte) (r pricing.Rates, err error) {
	var card struct {
		Input  *int64 `json:"input_msat_per_mtok"`
		Output *int64 `json:"output_msat_per_mtok"`
	}
	if err := json.Unmarshal(body, &card); err != nil {
		return r, fmt.Errorf("the hook's answer: %w", err)
	}
	if card.Input == nil || card.Output == nil {
		return r, errors.New("the hook's answer lacks input_msat_per_mtok or output_msat_per_mtok")
	}
	r = pricing.Rates{pricing.InputTokens: *card.Input, pricing.OutputTokens: *card.Output}
	if err := r.Validate(); err != nil {
		return r, fmt.Errorf("the hook's answer: %w", err)
	}
	return r, nil
}

// Current returns the rate card in force. It also returns true if the rate card is the hook's, and
// false if it is the fallback.
func (f *AskFeed) Current() (pricing.Rates, bool) {
	if a := f.latest.Load(); a != nil && f.cfg.Clock().Sub(a.at) < f.cfg.StaleAfter {
		return a.rates, true
	}
	return f.cfg.Fallback, false
}

// Rates implements Ask. It returns the rate card in force.
func (f *AskFeed) Rates() pricing.Rates {
	r, _ := f.Current()
	return r
}

// Failures returns how many times the hook gave no usable answer.
func (f *AskFeed) Failures() uint64 { return f.fails.Load() }
