// Package catalog keeps the configuration that a gateway runs with, and changes it
// while the gateway runs.
//
//	live := catalog.New(catalog.Config{Path: path, Getenv: os.Getenv, First: cfg, Apply: server})
//	go live.Watch(ctx)                       // the file, where it says so
//	report, err := live.Reload("SIGHUP")     // or the operator asks
//	cfg := live.Current().Config
//
// A Snapshot is never changed. Reload reads the file, checks it whole, compares it with
// the one in force and has the parts of the gateway check it; only then it is swapped.
// A file that is wrong, or that changes what a running gateway cannot change, is
// refused whole with the reason, and the snapshot before stays in force: half a change
// would surprise.
//
// The operator's changes through the admin API (a price that is fixed, a backend
// that is drained) are no part of a file. It stands above each of them until it is
// reset.
package catalog

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice.example/sluice/internal/config"
)

// Snapshot is one configuration in force. It and all it points to never change.
type Snapshot struct {
	Config     *config.Config
	Generation int64 // 1 for the first, and one more with each that differs
	Since      time.Time
}

// Applier is what runs with a configuration.
type Applier interface {
	// Prepare checks what cannot be seen in the file alone, and returns what puts the
	// configuration in force. Nothing has changed before commit is called, and commit
	// does not fail. It is called for a file without changes too: what the file names
	// may have changed.
	Prepare(next *config.Config) (commit func(), err error)
}

// Config describes a Live. All but Above, Log and Clock is required.
type Config struct {
	Path   string              // of the file; relative paths in it start at its folder
	Getenv func(string) string // os.Getenv
	First  *config.Config      // in force already
	Apply  Applier
	Above  func() []string // what the operator changed, one line each; nil: nothing
	Log    *slog.Logger
	Clock  func() time.Time
}

// Live is the configuration in force. It is safe for concurrent use.
type Live struct {
	cfg     Config
	current atomic.Pointer[Snapshot]

	turn sync.Mutex // one reload at a time

	mu     sync.Mutex // guards status
	status Status
}

// Status says how reloads went.
type Status struct {
	Last      *Attempt // nil: there was none
	Succeeded uint64   // reloads
	Refused   uint64
	SuccessAt time.Time // of the start, or of a reload
	Changes   []config.Change
}

// Attempt is one reload.
type Attempt struct {
	At      time.Time
	Trigger string // SIGHUP, file or admin
	Err     error
}

// Report is what a file changes of what runs.
type Report struct {
	Generation int64           `json:"generation"` // in force afterwards; for a comparison: now
	Changes    []config.Change `json:"changes"`
	// Fixed are the keys of changes that need a restart. A reload with any is refused.
	Fixed    []string `json:"needs_restart,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Above    []string `json:"above,omitempty"` // changes of the operator's that stand above the file
}

// New keeps what is in force already.
func New(cfg Config) *Live {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Above == nil {
		cfg.Above = func() []string { return nil }
	}
	l := &Live{cfg: cfg}
	l.status.SuccessAt = cfg.Clock()
	l.current.Store(&Snapshot{Config: cfg.First, Generation: 1, Since: l.status.SuccessAt})
	return l
}

// Current is the snapshot in force.
func (l *Live) Current() *Snapshot { return l.current.Load() }

// Path is the file.
func (l *Live) Path() string { return l.cfg.Path }

// Above are the operator's changes that stand above the file.
func (l *Live) Above() []string { return l.cfg.Above() }

// Status says how reloads went.
func (l *Live) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Reload reads the file and puts it in force, or says why not. trigger says who asked.
// How it went is in the log and in Status as well.
func (l *Live) Reload(trigger string) (Report, error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	report, err := l.reload()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Last = &Attempt{At: l.cfg.Clock(), Trigger: trigger, Err: err}
	if err != nil {
		l.status.Refused++
		l.cfg.Log.Error("configuration is refused, the one before stays in force", "trigger", trigger, "error", err)
		return report, err
	}
	l.status.Succeeded++
	l.status.SuccessAt, l.status.Changes = l.status.Last.At, report.Changes
	lines := make([]string, len(report.Changes))
	for i, c := range report.Changes {
		lines[i] = c.String()
	}
	l.cfg.Log.Info("configuration is in force", "trigger", trigger, "generation", report.Generation, "changes", lines)
	for _, w := range report.Warnings {
		l.cfg.Log.Warn("configuration", "warning", w)
	}
	return report, nil
}

func (l *Live) reload() (Report, error) {
	next, err := config.Load(l.cfg.Path, l.cfg.Getenv)
	if err != nil {
		return Report{}, err
	}
	now := l.Current()
	report := l.compare(next)
	if len(report.Fixed) > 0 {
		return report, &FixedError{report.Fixed}
	}
	commit, err := l.cfg.Apply.Prepare(next)
	if err != nil {
		return report, err
	}
	commit()
	if len(report.Changes) > 0 {
		report.Generation = now.Generation + 1
		l.current.Store(&Snapshot{Config: next, Generation: report.Generation, Since: l.cfg.Clock()})
	}
	return report, nil
}

// Compare says what a file would change of what runs, and changes nothing. Relative
// paths in it start at the folder of the gateway's own file. The error says what is
// wrong with the file; keys that need a restart are in the report only.
func (l *Live) Compare(file []byte) (Report, error) {
	abs, err := filepath.Abs(l.cfg.Path)
	if err != nil {
		return Report{}, fmt.Errorf("compare configurations: %w", err)
	}
	next, err := config.Parse(file, filepath.Dir(abs), l.cfg.Getenv)
	if err != nil {
		return Report{}, err
	}
	return l.compare(next), nil
}

func (l *Live) compare(next *config.Config) Report {
	now := l.Current()
	r := Report{Generation: now.Generation, Changes: config.Diff(now.Config, next), Warnings: next.Warnings, Above: l.cfg.Above()}
	for _, c := range r.Changes {
		if isFixed(c.Key, now.Config, next) {
			r.Fixed = append(r.Fixed, c.Key)
		}
	}
	return r
}

// FixedError refuses a change of what a running gateway cannot change.
type FixedError struct{ Keys []string }

func (e *FixedError) Error() string {
	return "a running gateway cannot change " + strings.Join(e.Keys, ", ") +
		"; nothing of the file was put in force: restart the gateway, or take these changes back"
}

// fixed are the keys that need a restart: each, and all below it.
var fixed = []string{
	"listen", "admin.listen", // open listeners stay where they are
	"store", "ledger", "audit", // the books are open
	"lightning",              // invoices of the node are being watched
	"telemetry.nvml_library", // the driver is loaded
	"log.format",
	"limits.headers", "limits.header_timeout", "limits.idle_timeout", // of the running HTTP servers
}

func isFixed(key string, now, next *config.Config) bool {
	if strings.HasPrefix(key, "tls.") { // other files may be named, but TLS is on or off
		return now.TLS.Enabled() != next.TLS.Enabled()
	}
	for _, f := range fixed {
		if key == f || strings.HasPrefix(key, f+".") {
			return true
		}
	}
	return false
}
