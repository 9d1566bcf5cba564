package catalog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.example/sluice/internal/config"
)

const minimal = `
watch: true
keys: [{id: k1, secret: "1111111111111111111111111111111111111111111111111111111111111111"}]
lightning: {grpc: "127.0.0.1:10009", macaroon_base64: AgEDbG5kAgdleGFtcGxlAAAGIMhEFsLihPVi352mLzDfnjqZ4ov9eWWPYvvQPNRqBscI}
services:
  - name: inference
    models:
      - {name: m, backends: [b], context_tokens: 4096, max_completion_tokens: 256, prices: {input: 1 sat/Mtok}}
backends:
  - {name: b, url: "http://127.0.0.1:8000", slots: 4}
`

// parts replaces the gateway's parts. It refuses with err, and counts its calls.
type parts struct {
	mu       sync.Mutex
	err      error
	prepared int
	inForce  *config.Config
}

func (p *parts) Prepare(next *config.Config) (func(), error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prepared++
	return func() { p.mu.Lock(); defer p.mu.Unlock(); p.inForce = next }, p.err
}

// rig is a Live on a file of its own.
type rig struct {
	*Live
	t    *testing.T
	path string
	*parts
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, path: filepath.Join(t.TempDir(), "gateway.yaml"), parts: &parts{}}
	r.write(minimal)
	first, err := config.Load(r.path, r.getenv)
	if err != nil {
		t.Fatal(err)
	}
	r.Live = New(Config{Path: r.path, Getenv: r.getenv, First: first, Apply: r.parts, Above: func() []string { return []string{"backend x is drained"} }})
	return r
}

func (r *rig) getenv(string) string { return "" }

func (r *rig) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// edited is the minimal file with replacements.
func edited(edits ...string) string { return strings.NewReplacer(edits...).Replace(minimal) }

func TestReloadSwapsWhatWasChecked(t *testing.T) {
	r := newRig(t)
	first := r.Current()
	r.write(edited("1 sat/Mtok", "2 sat/Mtok"))
	report, err := r.Reload("SIGHUP")
	if err != nil || report.Generation != 2 || len(report.Changes) != 1 || !slices.Equal(report.Above, []string{"backend x is drained"}) {
		t.Fatalf("%+v, %v", report, err)
	}
	now := r.Current()
	if now == first || now.Generation != 2 || now.Config != r.inForce || first.Config.Services[0].Models[0].Prices.Input != 1000 {
		t.Errorf("in force is %+v", now)
	}
	if s := r.Status(); s.Succeeded != 1 || s.Refused != 0 || s.Last.Err != nil || s.Last.Trigger != "SIGHUP" || !s.SuccessAt.Equal(s.Last.At) {
		t.Errorf("status %+v", s)
	}
	if report, err = r.Reload("admin"); err != nil || report.Generation != 2 || len(report.Changes) != 0 || r.prepared != 2 {
		t.Errorf("the same file again: %+v, %v", report, err)
	}
}

func TestBadFileLeavesAllAsItWas(t *testing.T) {
	r := newRig(t)
	for name, file := range map[string]string{
		"no YAML":       "a: [",
		"unknown key":   minimal + "surprise: 1\n",
		"missing name":  edited("backends: [b]", "backends: [c]"),
		"a placeholder": edited("slots: 4", "slots: \"${SLOTS}\""),
		"no longer fit": edited("tokens: 256", "tokens: 8192"),
	} {
		before := r.Current()
		r.write(file)
		_, err := r.Reload("admin")
		if err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v, want a line and a reason", name, err)
		}
		if r.Current() != before || r.prepared != 0 || r.inForce != nil {
			t.Errorf("%s: something changed", name)
		}
		if s := r.Status(); s.Last.Err == nil || s.Refused == 0 || s.Succeeded != 0 || s.Last.At.Equal(s.SuccessAt) {
			t.Errorf("%s: status %+v", name, s)
		}
	}
	r.err = errors.New("the keys belong to another ledger")
	r.write(edited("slots: 4", "slots: 5"))
	if _, err := r.Reload("admin"); !errors.Is(err, r.err) || r.Current().Generation != 1 || r.inForce != nil {
		t.Errorf("a part that refuses: %v", err)
	}
}

func TestWhatCannotChangeIsNamed(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ add, key string }{
		{"listen: 127.0.0.1:9\n", "listen"},
		{"admin: {listen: \"127.0.0.1:9\"}\n", "admin.listen"},
		{"store: sqlite:other.db\n", "store"},
		{"ledger: {lease: 30s}\n", "ledger.lease"},
		{"ledger: {id: 00112233445566778899aabbccddeeff}\n", "ledger.id"},
		{"audit: {every: 1m}\n", "audit.every"},
		{"telemetry: {nvml_library: /x}\n", "telemetry.nvml_library"},
		{"log: {format: json}\n", "log.format"},
		{"limits: {headers: 128KiB}\n", "limits.headers"},
		{"limits: {header_timeout: 1s}\n", "limits.header_timeout"},
		{"limits: {idle_timeout: 1s}\n", "limits.idle_timeout"},
	} {
		r.write(edited("slots: 4", "slots: 5") + c.add)
		report, err := r.Reload("admin")
		var fixed *FixedError
		if !errors.As(err, &fixed) || !slices.Equal(fixed.Keys, []string{c.key}) || !strings.Contains(err.Error(), c.key) || len(report.Changes) != 2 {
			t.Errorf("%s: %v, %+v", c.key, err, report)
		}
	}
	r.write(edited("10009", "10010"))
	if _, err := r.Reload("admin"); err == nil || !strings.Contains(err.Error(), "lightning.grpc") {
		t.Errorf("another node: %v", err)
	}
	if r.prepared != 0 || r.Current().Generation != 1 {
		t.Error("half a change was put in force")
	}
}

func TestCompareChangesNothing(t *testing.T) {
	r := newRig(t)
	report, err := r.Compare([]byte(edited("slots: 4", "slots: 5") + "listen: 127.0.0.1:9\n"))
	if err != nil || len(report.Changes) != 2 || !slices.Equal(report.Fixed, []string{"listen"}) || len(report.Above) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if _, err := r.Compare([]byte("a: [")); err == nil {
		t.Error("no YAML passes")
	}
	if r.prepared != 0 || r.Current().Generation != 1 || r.Status().Last != nil {
		t.Error("something changed")
	}
}

// waitFor waits until the generation in force is n.
func (r *rig) waitFor(n int64) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); r.Current().Generation != n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("generation %d, want %d; status %+v", r.Current().Generation, n, r.Status().Last)
		}
	}
}

func TestWatchedFile(t *testing.T) {
	r := newRig(t)
	go r.Watch(t.Context())
	time.Sleep(2 * lookEvery) // long enough that the watch has looked
	r.write(edited("slots: 4", "slots: 5"))
	r.waitFor(2)
	if err := os.Rename(r.temp(edited("slots: 4", "slots: 6")), r.path); err != nil { // as an editor does
		t.Fatal(err)
	}
	r.waitFor(3)
	r.write("a: [")
	for end := time.Now().Add(10 * time.Second); r.Status().Refused == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a bad file goes unnoticed")
		}
	}
	r.write(edited("slots: 4", "slots: 7", "watch: true", "watch: false"))
	r.waitFor(4)
	r.write(edited("slots: 4", "slots: 8"))
	time.Sleep(settleFor + 5*lookEvery)
	if r.Current().Generation != 4 {
		t.Error("the file is watched although it says that it is not")
	}
}

func (r *rig) temp(text string) string {
	path := r.path + ".new"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// TestWatchWaitsForTheEnd checks that a file which is written in pieces is read once.
func TestWatchWaitsForTheEnd(t *testing.T) {
	r := newRig(t)
	go r.Watch(t.Context())
	time.Sleep(2 * lookEvery)
	whole := edited("slots: 4", "slots: 5")
	for n := 0; n < len(whole); n += len(whole)/8 + 1 {
		r.write(whole[:n])
		time.Sleep(lookEvery)
	}
	r.write(whole)
	r.waitFor(2)
	if s := r.Status(); s.Refused != 0 || s.Succeeded != 1 {
		t.Errorf("%d reloads, %d refused", s.Succeeded, s.Refused)
	}
}

// TestWatchFollowsAConfigMap changes the file as the kubelet does: it replaces a link to a folder, and
// does not change the file's own link.
func TestWatchFollowsAConfigMap(t *testing.T) {
	dir := t.TempDir()
	write := func(version, text string) {
		if err := os.MkdirAll(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "gateway.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1_700_000_000, 0) // so that only the file itself distinguishes one version from the next
		if err := os.Chtimes(filepath.Join(dir, version, "gateway.yaml"), at, at); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(version, filepath.Join(dir, "..next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	write("..v1", minimal)
	r := &rig{t: t, path: filepath.Join(dir, "gateway.yaml"), parts: &parts{}}
	if err := os.Symlink(filepath.Join("..data", "gateway.yaml"), r.path); err != nil {
		t.Fatal(err)
	}
	first, err := config.Load(r.path, r.getenv)
	if err != nil {
		t.Fatal(err)
	}
	r.Live = New(Config{Path: r.path, Getenv: r.getenv, First: first, Apply: r.parts})
	go r.Watch(t.Context())
	time.Sleep(2 * lookEvery)
	write("..v2", edited("slots: 4", "slots: 5"))
	r.waitFor(2)
}

// TestWatchSeesNamedFiles checks that a key in a file of its own is part of the configuration.
func TestWatchSeesNamedFiles(t *testing.T) {
	r := newRig(t)
	key := filepath.Join(filepath.Dir(r.path), "key")
	if err := os.WriteFile(key, []byte("sk-1"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.write(edited("slots: 4", "slots: 4, api_key_file: key"))
	if _, err := r.Reload("admin"); err != nil {
		t.Fatal(err)
	}
	go r.Watch(t.Context())
	time.Sleep(2 * lookEvery)
	if err := os.WriteFile(key, []byte("sk-22"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.waitFor(3)
	if got := r.Current().Config.Backends[0].APIKey.Reveal(); got != "sk-22" {
		t.Errorf("the key is %q", got)
	}
}
