package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// result is one line of the file of results.
type result struct {
	Mutant  string  `json:"mutant"`
	Tree    string  `json:"tree"` // see campaign.of
	Outcome outcome `json:"outcome"`
	By      string  `json:"by,omitempty"` // the test that killed the mutant, or the compiler's error
	Seconds float64 `json:"seconds"`

	mutant *mutant
}

// campaign is one run over many mutants.
type campaign struct {
	root        string
	targets     []target
	options     options
	out         io.Writer
	resultsPath string

	lab     *lab
	tree    string
	total   int
	mu      sync.Mutex // guards the fields below, and out
	file    *os.File
	results []result
}

// run runs the mutants and returns their results. When run is stopped, it returns the results so
// far. It writes each result to the file before the next mutant begins.
func (c *campaign) run(ctx context.Context, list []*mutant) ([]result, error) {
	var err error
	if c.root, err = filepath.Abs(c.root); err != nil {
		return nil, err
	}
	if c.tree, err = fingerprint(c.root, c.options); err != nil {
		return nil, err
	}
	list = c.guarded(list)
	if list, err = c.known(list); err != nil {
		return c.results, err
	}
	c.total = len(list)
	if err := os.MkdirAll(filepath.Dir(c.resultsPath), 0o755); err != nil {
		return c.results, err
	}
	if c.file, err = os.OpenFile(c.resultsPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return c.results, err
	}
	defer c.file.Close()
	dir, err := os.MkdirTemp(c.options.tmp, "sluice-mutate-")
	if err != nil {
		return c.results, err
	}
	defer removeAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return c.results, err
	}
	c.lab = &lab{root: c.root, dir: dir, memoryMiB: c.options.memoryMiB, nice: c.options.nice,
		limits: map[string]time.Duration{}}
	for part := range slices.Chunk(list, mutantsPerCache) {
		if err := c.part(ctx, part); err != nil {
			return c.results, err
		}
	}
	return c.results, nil
}

// part runs some of the mutants with a new copy of the build cache.
func (c *campaign) part(ctx context.Context, list []*mutant) (err error) {
	if c.lab.cache, err = shadow(ctx, c.root); err != nil {
		return err
	}
	defer removeAll(c.lab.cache)
	if len(c.lab.limits) == 0 && len(list) > 0 {
		fmt.Fprintln(c.out, "running the tests without a mutant first, for their time limits")
	}
	for _, m := range list {
		if err := c.lab.measure(ctx, guards(c.targets, m.files(), c.options)); err != nil {
			return err
		}
	}
	return c.work(ctx, list)
}

// guarded returns the mutants that at least one of the requested suites can kill.
func (c *campaign) guarded(list []*mutant) (kept []*mutant) {
	for _, m := range list {
		if len(guards(c.targets, m.files(), c.options)) > 0 {
			kept = append(kept, m)
		}
	}
	if n := len(list) - len(kept); n > 0 {
		fmt.Fprintf(c.out, "%d mutants left out: only tests on PostgreSQL can kill them (-postgres)\n", n)
	}
	return kept
}

// known reads the results of an earlier run, with -resume. It returns the mutants that have no
// result yet. A result of other sources is ignored.
func (c *campaign) known(list []*mutant) ([]*mutant, error) {
	if c.options.resume == "" {
		return list, nil
	}
	f, err := os.Open(c.resultsPath)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	had := map[string]result{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r result
		// A line that was cut off when the machine stopped is ignored, so that its mutant runs
		// again.
		if json.Unmarshal(lines.Bytes(), &r) == nil {
			had[r.Mutant] = r
		}
	}
	var left []*mutant
	for _, m := range list {
		if r, ok := had[m.id]; ok && r.Tree == c.of(m) {
			r.mutant = m
			c.results = append(c.results, r)
		} else {
			left = append(left, m)
		}
	}
	fmt.Fprintf(c.out, "%d mutants are known from %s\n", len(c.results), c.resultsPath)
	return left, nil
}

// work runs the mutants, several at the same time. The first failure of the tool itself ends it.
func (c *campaign) work(ctx context.Context, list []*mutant) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan *mutant)
	var workers sync.WaitGroup
	for range c.options.parallel {
		workers.Go(func() {
			for m := range next {
				if err := c.one(ctx, m); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, m := range list {
		select {
		case next <- m:
		case <-ctx.Done():
		}
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}

// one runs one mutant and records the result.
func (c *campaign) one(ctx context.Context, m *mutant) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	began := time.Now()
	end, by, err := c.lab.try(ctx, m, guards(c.targets, m.files(), c.options))
	if err != nil {
		return err
	}
	r := result{Mutant: m.id, Tree: c.of(m), Outcome: end, By: by, mutant: m,
		Seconds: time.Since(began).Round(time.Millisecond).Seconds()}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results = append(c.results, r)
	c.total--
	fmt.Fprintf(c.out, "%4d left  %-12s %6.1f s  %s", c.total, end, r.Seconds, m.id)
	if by != "" {
		fmt.Fprintf(c.out, "  [%s]", by)
	}
	fmt.Fprintln(c.out)
	_, err = c.file.Write(append(line, '\n'))
	return err
}

// fingerprint returns a hash of everything in the repository that decides whether a mutant is
// killed: all Go and SQL of the product and its tests, the dependencies, and which suites run.
func fingerprint(root string, o options) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, o.postgres, o.lnd)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "bin" || rel == "tools" || rel != "." && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		if ext := filepath.Ext(path); ext != ".go" && ext != ".sql" && d.Name() != "go.mod" && d.Name() != "go.sum" {
			return nil
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(sum, "%s %x\n", rel, sha256.Sum256(text))
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}

// of returns the fingerprint of one mutant. It includes the mutant's edits, because a hand-written
// mutant may have been changed without a change of its name.
func (c *campaign) of(m *mutant) string {
	return fmt.Sprintf("%s-%x", c.tree, sha256.Sum256(fmt.Appendf(nil, "%+v", m.edits)))[:32]
}
