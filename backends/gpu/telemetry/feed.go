// Package telemetry reads GPUs and inference engines. A Reading is the report of a device or an engine.
// A Sampler reads such reports. A Feed runs one Sampler at an interval, refuses impossible values, and
// keeps the latest Snapshot, which anyone may read without a lock.
//
//	feed := telemetry.NewFeed(telemetry.FeedConfig{
//		Name:    "engine of gpu-a",
//		Sampler: telemetry.NewEngineSampler(url, nil), // GET …/metrics
//		Every:   time.Second,
//	})
//	go feed.Run(ctx)
//	…
//	s := feed.Latest() // never nil
//	if s.Fresh(now, 15*time.Second) && s.Engine != nil { … s.Engine.Waiting … }
//
// This package has samplers for engines' own metrics (NewEngineSampler) and for exporters on other
// hosts (NewExporterSampler). The package nvml in the folder nvml has a sampler that reads the driver.
//
// # Values that are not believed
//
// These values are not believed: a NaN, an infinity, a negative number, a share above 1, more memory
// used than the device has, a power above 10 times the limit or 20 kW, a temperature above 200 °C, a
// million requests. The feed counts each such value, logs the first of each kind, and keeps "not
// reported" in its place. The feed does not call a sampler that hangs again before the call returns.
// Meanwhile the snapshot grows old. What the call finally returns is thrown away.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of a FeedConfig.
const (
	DefaultEvery   = time.Second
	DefaultTimeout = 2 * time.Second
	DefaultHold    = 15 * time.Second
)

// ErrTimeout reports that a sampler did not answer in time.
var ErrTimeout = errors.New("the sampler did not answer in time")

// FeedConfig describes a feed.
type FeedConfig struct {
	Name    string // for the log and metrics
	Sampler Sampler
	Every   time.Duration // zero means DefaultEvery
	// Timeout bounds one sample. Zero means DefaultTimeout.
	Timeout time.Duration
	// Hold is how long a utilization counts towards busy time if no newer reading comes. Zero means
	// DefaultHold.
	Hold  time.Duration
	Log   *slog.Logger     // nil means that nothing is logged
	Clock func() time.Time // nil means time.Now
}

// Feed runs one sampler at an interval and keeps the latest snapshot. Latest and Stats are safe for
// concurrent use.
type Feed struct {
	cfg     FeedConfig
	every   atomic.Int64 // nanoseconds
	latest  atomic.Pointer[Snapshot]
	running atomic.Bool

	mu    sync.Mutex // guards stats
	stats FeedStats

	// Only the goroutine that samples uses the fields below.
	hanging chan result // receives the result of a sample that ran out of time; nil means none
	sums    accumulator
	failing bool // the last sample failed, and the log has a line that says so
}

// FeedStats counts what a feed has seen since it began.
type FeedStats struct {
	Samples  uint64 `json:"samples"`  // samples that were read
	Failures uint64 `json:"failures"` // samples that ended with an error
	Timeouts uint64 `json:"timeouts"` // intervals in which the sampler hung
	Resets   uint64 `json:"resets"`   // energy counters that began again, as after a driver reload
	Vanished uint64 `json:"vanished"` // devices that were in a reading and not in the next one
	// Refused counts impossible values, by the field's name.
	Refused map[string]uint64 `json:"refused,omitempty"`
}

type result struct {
	Reading
	err error
}

// NewFeed makes a feed. The feed takes no sample before Run or Poll is called.
func NewFeed(cfg FeedConfig) *Feed {
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Hold <= 0 {
		cfg.Hold = DefaultHold
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	f := &Feed{cfg: cfg, sums: accumulator{hold: cfg.Hold}}
	f.every.Store(int64(cfg.Every))
	f.latest.Store(&Snapshot{index: &index{}})
	return f
}

// Name returns the configured name.
func (f *Feed) Name() string { return f.cfg.Name }

// Every returns the interval between samples.
func (f *Feed) Every() time.Duration { return time.Duration(f.every.Load()) }

// Tune changes the interval from the next sample on, and how long a utilization counts. Both must be
// above 0.
func (f *Feed) Tune(every, hold time.Duration) {
	f.every.Store(int64(every))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sums.hold = hold
}

// Latest returns the newest snapshot. It is never nil, and nobody changes it afterwards. The call is as
// cheap as reading a pointer.
func (f *Feed) Latest() *Snapshot { return f.latest.Load() }

// Stats returns what the feed has seen and refused so far.
func (f *Feed) Stats() FeedStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Refused = maps.Clone(s.Refused)
	return s
}

// Run samples at the interval until ctx ends. A second Run returns at once.
func (f *Feed) Run(ctx context.Context) {
	if f.running.Swap(true) {
		return
	}
	every := f.Every()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for ctx.Err() == nil {
		f.Poll(ctx)
		if now := f.Every(); now != every {
			every = now
			ticker.Reset(every)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// Poll samples once, now. Run calls it at each interval. A caller that keeps time itself calls Poll
// instead of Run. Calls of Poll must not overlap, and must not run during Run.
func (f *Feed) Poll(ctx context.Context) {
	if f.hanging != nil {
		select {
		case <-f.hanging: // its answer is from an unknown moment
			f.hanging = nil
		default:
			f.fail(ErrTimeout)
			return
		}
	}
	timed, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	done := make(chan result, 1)
	go func() {
		r, err := f.cfg.Sampler.Sample(timed)
		done <- result{r, err}
	}()
	select {
	case r := <-done:
		if r.err == nil {
			f.take(r.Reading)
		} else if ctx.Err() == nil {
			f.fail(r.err)
		}
	case <-timed.Done():
		f.hanging = done
		if ctx.Err() == nil {
			f.fail(ErrTimeout)
		}
	}
}

// fail notes that the last sample failed with err. The snapshot keeps the old reading, which grows old.
func (f *Feed) fail(err error) {
	next := *f.latest.Load()
	next.Err = fmt.Errorf("telemetry %s: %w", f.cfg.Name, err)
	f.latest.Store(&next)
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(err, ErrTimeout) {
		f.stats.Timeouts++
	} else {
		f.stats.Failures++
	}
	if !f.failing {
		f.failing = true
		f.cfg.Log.Warn("telemetry fails: what it read last grows old", "feed", f.cfg.Name, "err", err)
	}
}

// take checks a reading, adds up its busy time and energy, and publishes it.
func (f *Feed) take(r Reading) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Samples++
	if f.failing {
		f.failing = false
		f.cfg.Log.Info("telemetry works again", "feed", f.cfg.Name)
	}
	for _, field := range r.Refused {
		f.refuse(field)
	}
	f.check(&r)
	prev, now := f.latest.Load(), f.cfg.Clock()
	next := &Snapshot{Reading: r, At: now.Add(-r.Age), index: prev.index}
	f.count(r.Devices, now)
	if !prev.index.fits(r.Devices, &f.sums) {
		next.index = newIndex(r.Devices, &f.sums)
	}
	next.totals = f.sums.totals()
	f.latest.Store(next)
}

// count adds up the time and energy since the last reading. The caller holds mu.
func (f *Feed) count(devices []Device, now time.Time) {
	if len(f.sums.tracks)+len(devices) > maxTracks {
		f.sums.forget()
	}
	f.sums.pass(now)
	for i := range devices {
		switch t := f.sums.of(devices[i].UUID, now); t.take(&devices[i], now) {
		case counterReset:
			f.stats.Resets++
			f.cfg.Log.Warn("the energy counter of a GPU began again: was its driver reloaded?", "feed", f.cfg.Name, "uuid", devices[i].UUID)
		case counterJump:
			f.refuse("energy_step")
		}
	}
	f.sums.vanished(func(uuid string) {
		f.stats.Vanished++
		f.cfg.Log.Warn("a GPU has vanished", "feed", f.cfg.Name, "uuid", uuid)
	})
}

// refuse counts an impossible value. The caller holds mu.
func (f *Feed) refuse(field string) {
	if f.stats.Refused == nil {
		f.stats.Refused = map[string]uint64{}
	}
	f.stats.Refused[field]++
	if f.stats.Refused[field] == 1 {
		f.cfg.Log.Warn("telemetry reported a value that cannot be true, it is not used; said once for this field", "feed", f.cfg.Name, "field", field)
	}
}
