// Package catalog keeps the configuration with which a gateway runs, and changes it while the gateway
// runs.
//
//	live := catalog.New(catalog.Config{Path: path, Getenv: os.Getenv, First: cfg, Apply: server})
//	go live.Watch(ctx)                       // the file, where it says so
//	report, err := live.Reload("SIGHUP")     // or the operator asks
//	cfg := live.Current().Config
//
// A Snapshot is never changed. Reload reads the file, checks it whole, compares it with the
// configuration in force, and lets the parts of the gateway check it. Only after that Reload puts the
// new configuration in force. If the file is wrong, or changes what a running gateway cannot change,
// Reload refuses the whole file with the reason, and the old snapshot remains in force. Reload never
// puts a part of a file in force, because half a change would surprise the operator.
//
// The operator's changes through the admin API (a fixed price, a drained backend) are not part of a
// file. Each such change overrides the file until the operator resets it.
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

// Snapshot is one configuration in force. Nobody changes a Snapshot, nor anything to which it points.
type Snapshot struct {
	Config     *config.Config
	Generation int64 // 1 for the first; one more for each configuration that differs
	Since      time.Time
}

// Applier is what runs with a configuration.
type Applier interface {
	// Prepare checks what the file alone does not show, and returns the function that puts the
	// configuration in force. Nothing changes before commit is called, and commit cannot fail. Prepare
	// is also called for a file without changes, because the files that it names may have changed.
	Prepare(next *config.Config) (commit func(), err error)
}

// Config describes a Live. All fields except Above, Log and Clock are required.
type Config struct {
	Path   string              // path of the file; relative paths in the file start at its folder
	Getenv func(string) string // os.Getenv
	First  *config.Config      // the configuration already in force
	Apply  Applier
	Above  func() []string // what the operator changed, one line each; nil means that there are no such changes
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

// Status is how reloads went.
type Status struct {
	Last      *Attempt // nil means that there was none
	Succeeded uint64   // number of reloads that succeeded
	Refused   uint64
	SuccessAt time.Time // time of the start, or of the last reload that succeeded
	Changes   []config.Change
}

// Attempt is one reload.
type Attempt struct {
	At      time.Time
	Trigger string // SIGHUP, file or admin
	Err     error
}

// Report is what a file changes in the running configuration.
type Report struct {
	// Generation is the generation in force after a reload. In a comparison it is the generation in
	// force now.
	Generation int64           `json:"generation"`
	Changes    []config.Change `json:"changes"`
	// Fixed are the keys of changes that need a restart. A reload with such a change is refused.
	Fixed    []string `json:"needs_restart,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Above    []string `json:"above,omitempty"` // the operator's changes that override the file
}

// New makes a Live whose configuration in force is cfg.First.
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

// Current returns the snapshot in force.
func (l *Live) Current() *Snapshot { return l.current.Load() }

// Path returns the path of the file.
func (l *Live) Path() string { return l.cfg.Path }

// Above returns the operator's changes that override the file.
func (l *Live) Above() []string { return l.cfg.Above() }

// Status returns how reloads went.
func (l *Live) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Reload reads the file and puts it in force, or returns why it does not. trigger names who asked. The
// outcome is also in the log and in Status.
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

// Compare returns what a file would change in the running configuration, and changes nothing. Relative
// paths in file start at the folder of the gateway's own file. The error says what is wrong with the
// file. Keys that need a restart are not an error, but are in the report.
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

// fixed are the keys that need a restart. Each also means all keys below it.
var fixed = []string{
	"listen", "admin.listen", // listeners that are open cannot move
	"store", "ledger", "audit", // the ledger is open
	"lightning",              // invoices of the node are being watched
	"telemetry.nvml_library", // the driver is loaded
	"log.format",
	"limits.headers", "limits.header_timeout", "limits.idle_timeout", // the running HTTP servers have these settings
}

func isFixed(key string, now, next *config.Config) bool {
	if strings.HasPrefix(key, "tls.") { // the names of the files may change, but TLS cannot be turned on or off
		return now.TLS.Enabled() != next.TLS.Enabled()
	}
	for _, f := range fixed {
		if key == f || strings.HasPrefix(key, f+".") {
			return true
		}
	}
	return false
}
