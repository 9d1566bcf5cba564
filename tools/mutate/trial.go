package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// outcome is the result of a mutant.
type outcome string

const (
	killed    outcome = "killed"
	survived  outcome = "survived"
	notMutant outcome = "not a mutant" // does not compile
)

// buildLimit bounds one build of a test binary.
const buildLimit = 10 * time.Minute

// The time limit of a suite is a multiple of the suite's time without a mutant, plus limitFloor. It
// is a multiple because the machine may be busier when a mutant runs.
const (
	limitFactor = 3
	limitFloor  = 15 * time.Second
	firstLimit  = 15 * time.Minute // for the suite without a mutant
	tolerance   = 1.2              // a limit that is too low by less than this factor is accepted
)

// lab builds and runs the tests of one mutant after another.
type lab struct {
	root      string // absolute
	dir       string // for binaries and the tests' files; the owner of the lab removes it
	cache     string // the build cache in use
	memoryMiB int
	nice      int

	mu     sync.Mutex
	limits map[string]time.Duration // by suite.key; a limit may be raised later
}

// try runs the suites on a mutant until one of them fails. A nil m stands for the unchanged
// sources.
func (l *lab) try(ctx context.Context, m *mutant, suites []suite) (outcome, string, error) {
	dir, err := os.MkdirTemp(l.dir, "mutant-")
	if err != nil {
		return "", "", err
	}
	defer removeAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL's tests use the folder as another user
		return "", "", err
	}
	overlay := ""
	if m != nil {
		if overlay, err = l.overlay(dir, m); err != nil {
			return "", "", err
		}
	}
	built := map[string]string{} // path of the binary, by package
	for i := range suites {
		s := &suites[i]
		if built[s.pkg] == "" {
			binary, compiled, err := l.build(ctx, dir, overlay, s.pkg, len(built))
			if err != nil {
				return "", "", err
			}
			if compiled != "" {
				return notMutant, compiled, nil
			}
			built[s.pkg] = binary
		}
		end, err := l.verdict(ctx, dir, built[s.pkg], s, m == nil)
		switch {
		case err != nil:
			return "", "", err
		case !end.ok && m == nil:
			return killed, end.output, nil
		case !end.ok:
			return killed, end.killer(), nil
		}
	}
	return survived, "", nil
}

// verdict runs one suite within its time limit. It runs the suite again when it finds that the
// limit was too low. For the unchanged sources the limit is firstLimit.
func (l *lab) verdict(ctx context.Context, dir, binary string, s *suite, asTheyAre bool) (ended, error) {
	if asTheyAre {
		return l.test(ctx, dir, binary, s, firstLimit)
	}
	for {
		end, err := l.test(ctx, dir, binary, s, l.limit(s))
		if err != nil || !end.timeout {
			return end, err
		}
		if slower, err := l.slower(ctx, s); err != nil || !slower {
			return end, err
		}
	}
}

// overlay writes the changed files and the overlay file for the go command. It returns the path of
// the overlay file.
func (l *lab) overlay(dir string, m *mutant) (string, error) {
	var list struct{ Replace map[string]string }
	list.Replace = map[string]string{}
	for i, f := range m.files() {
		original := filepath.Join(l.root, filepath.FromSlash(f))
		source, err := os.ReadFile(original)
		if err != nil {
			return "", err
		}
		changed := filepath.Join(dir, fmt.Sprint(i), filepath.Base(f))
		if err := os.Mkdir(filepath.Dir(changed), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(changed, m.apply(f, source), 0o600); err != nil {
			return "", err
		}
		list.Replace[original] = changed
	}
	text, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, text, 0o600)
}

// ofCompiler matches the line with which the go command introduces the compiler's messages about a
// package.
var ofCompiler = regexp.MustCompile(`(?m)^# \S+.*\n(.*)`)

// build makes the test binary of a package. When the package does not compile, refused is the
// compiler's first message.
func (l *lab) build(ctx context.Context, dir, overlay, pkg string, n int) (binary, refused string, err error) {
	binary = filepath.Join(dir, fmt.Sprintf("%d.test", n))
	args := []string{"test", "-c", "-vet=off", "-ldflags=-w", "-gcflags=./...=-dwarf=false", "-o", binary}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := gently(l.nice, "go", append(args, pkg)...)
	cmd.Dir = l.root
	cmd.Env = append(os.Environ(), "GOCACHE="+l.cache)
	end, err := execute(ctx, buildLimit, cmd)
	if err != nil {
		return "", "", err
	}
	if end.ok {
		return binary, "", nil
	}
	if line := ofCompiler.FindStringSubmatch(end.output); line != nil && !end.timeout {
		return "", strings.TrimPrefix(strings.TrimSpace(line[1]), dir+string(filepath.Separator)), nil
	}
	return "", "", fmt.Errorf("build the tests of %s: %s", pkg, end.output)
}

// test runs one suite in the folder of its package, as the go command does.
func (l *lab) test(ctx context.Context, dir, binary string, s *suite, limit time.Duration) (ended, error) {
	// The binary's own limit is twice as long, so that it only has an effect when this process has
	// ended.
	args := []string{"-test.failfast", "-test.count=1", "-test.timeout=" + (2 * limit).String()}
	if s.tests != "" {
		args = append(args, "-test.run="+s.tests)
	}
	if s.skip != "" {
		args = append(args, "-test.skip="+s.skip)
	}
	files := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(files, 0o777); err != nil {
		return ended{}, err
	}
	if err := os.Chmod(files, 0o777|os.ModeSticky); err != nil {
		return ended{}, err
	}
	cmd := limited(l.memoryMiB, l.nice, binary, append(args, s.flags...)...)
	cmd.Dir = filepath.Join(l.root, filepath.FromSlash(s.pkg))
	cmd.Env = append(os.Environ(), "TMPDIR="+files)
	return execute(ctx, limit, cmd)
}

// measure runs each suite on the unchanged sources and sets the suite's limit. The tests must pass,
// because their failures would otherwise count as kills.
func (l *lab) measure(ctx context.Context, suites []suite) error {
	for i := range suites {
		if l.limit(&suites[i]) != firstLimit {
			continue
		}
		if err := l.measureOne(ctx, &suites[i]); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) measureOne(ctx context.Context, s *suite) error {
	began := time.Now()
	end, output, err := l.try(ctx, nil, []suite{*s})
	if err == nil && end != survived { // on a busy machine a test may fail once
		began = time.Now()
		end, output, err = l.try(ctx, nil, []suite{*s})
	}
	if err != nil {
		return err
	}
	if end != survived {
		return fmt.Errorf("the tests of %s fail without a mutant:\n%s", s.pkg, output)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits[s.key()] = limitFloor + limitFactor*time.Since(began)
	return nil
}

// slower measures a suite again after a mutant has reached its limit. It reports whether the limit
// was too low, because other work on the machine must not count as a kill.
func (l *lab) slower(ctx context.Context, s *suite) (bool, error) {
	before := l.limit(s)
	err := l.measureOne(ctx, s)
	return float64(l.limit(s)) > tolerance*float64(before), err
}

// limit returns the time limit of a suite, or firstLimit when the suite was not measured yet.
func (l *lab) limit(s *suite) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit, ok := l.limits[s.key()]; ok {
		return limit
	}
	return firstLimit
}
