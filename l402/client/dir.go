package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/lockedfile"

	"sluice.example/sluice/internal/secretfile"
	"sluice.example/sluice/l402"
)

// Dir is a Store in a directory. It has one JSON file per token and one per open intent, with mode
// 0600 in directories of mode 0700. Dir writes each file to a temporary file, syncs it and renames
// it, so that a reader always finds the old file or the new file, also after a crash. The locks are
// advisory file locks. The kernel releases them when the process ends.
//
// When a file cannot be read, every call fails and names the file. Dir does not skip the file,
// because the file may hold money.
type Dir struct {
	tokens, intents, locks string

	mu    sync.Mutex
	gates map[string]chan struct{} // per origin; a channel holds one value while no goroutine has the gate
}

var _ Store = (*Dir)(nil)

// OpenDir opens the store in path. It creates the store if it does not exist.
func OpenDir(path string) (*Dir, error) {
	d := &Dir{
		tokens:  filepath.Join(path, "tokens"),
		intents: filepath.Join(path, "intents"),
		locks:   filepath.Join(path, "locks"),
		gates:   map[string]chan struct{}{},
	}
	for _, dir := range []string{d.tokens, d.intents, d.locks} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open token store: %w", err)
		}
		// MkdirAll does not change the mode of a directory that exists already.
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open token store: %w", err)
		}
	}
	return d, nil
}

// Lock implements Store. The goroutines of this process first wait for a gate, so that only one of
// them waits in the kernel for the file lock.
func (d *Dir) Lock(ctx context.Context, origin string) (func(), error) {
	gate := d.gate(origin)
	select {
	case <-gate:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another purchase at %s: %w", origin, ctx.Err())
	}
	type result struct {
		f   *lockedfile.File
		err error
	}
	locked := make(chan result, 1)
	go func() {
		f, err := d.lockFile(fileKey(origin))
		locked <- result{f, err}
	}()
	release := func(r result) {
		if r.err == nil {
			r.f.Close()
		}
		gate <- struct{}{}
	}
	select {
	case r := <-locked:
		if r.err != nil {
			release(r)
			return nil, fmt.Errorf("lock %s: %w", origin, r.err)
		}
		return sync.OnceFunc(func() { release(r) }), nil
	case <-ctx.Done():
		go func() { release(<-locked) }() // a goroutine that waits in the kernel cannot be stopped
		return nil, fmt.Errorf("wait for another process buying at %s: %w", origin, ctx.Err())
	}
}

func (d *Dir) gate(origin string) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, ok := d.gates[origin]
	if !ok {
		g = make(chan struct{}, 1)
		g <- struct{}{}
		d.gates[origin] = g
	}
	return g
}

func (d *Dir) lockFile(name string) (*lockedfile.File, error) {
	return lockedfile.OpenFile(filepath.Join(d.locks, name+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
}

// Tokens implements Store.
func (d *Dir) Tokens() ([]Token, error) {
	tokens, err := readAll(d.tokens, func(f tokenFile) (Token, error) { return f.token() })
	slices.SortFunc(tokens, newestFirst)
	return tokens, err
}

// Intents implements Store.
func (d *Dir) Intents() ([]Intent, error) {
	return readAll(d.intents, func(f intentFile) (Intent, error) { return f.intent() })
}

// Begin implements Store. It holds a lock of the whole store while it computes the sum and writes
// the intent, so that purchases at two origins cannot both use the last part of the budget.
func (d *Dir) Begin(in Intent, limit l402.Msat) error {
	lock, err := d.lockFile("budget")
	if err != nil {
		return fmt.Errorf("lock the budget: %w", err)
	}
	defer lock.Close()
	if limit > 0 {
		tokens, err := d.Tokens()
		if err != nil {
			return err
		}
		intents, err := d.Intents()
		if err != nil {
			return err
		}
		spent, asked := committed(tokens, intents), in.Amount+in.FeeLimit
		if spent+asked > limit {
			return &BudgetError{Cap: capTotal, Origin: in.Origin, Asked: asked, Fee: in.FeeLimit, Limit: limit, Spent: spent}
		}
	}
	return writeJSON(d.intents, intentKey(in), newIntentFile(in))
}

// Commit implements Store.
func (d *Dir) Commit(in Intent, t Token) error {
	if err := d.Put(t); err != nil {
		return err
	}
	return d.Drop(in)
}

// Put implements Store.
func (d *Dir) Put(t Token) error { return writeJSON(d.tokens, tokenKey(t), newTokenFile(t)) }

// Drop implements Store.
func (d *Dir) Drop(in Intent) error {
	err := os.Remove(filepath.Join(d.intents, intentKey(in)+".json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget %s: %w", in, err)
	}
	return secretfile.SyncDir(d.intents)
}

// tokenKey and intentKey return the names of files. The names depend on the origin, so that another
// origin which repeats the id of an account or an invoice cannot overwrite the file.
func tokenKey(t Token) string    { return fileKey(t.Origin + " " + t.Name()) }
func intentKey(in Intent) string { return fileKey(in.Origin + " " + in.Hash.String()) }

// fileKey returns a file name for a text that may contain any characters, because a server chose
// it.
func fileKey(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:16])
}

// readAll reads every JSON file of a directory. It skips a file that disappears while it runs.
func readAll[F, T any](dir string, convert func(F) (T, error)) ([]T, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read token store: %w", err)
	}
	var all []T
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var f F
		if err == nil {
			err = json.Unmarshal(data, &f)
		}
		var v T
		if err == nil {
			v, err = convert(f)
		}
		if err != nil {
			return nil, fmt.Errorf("token store: %s is damaged, move it away to go on without it: %w", path, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// writeJSON replaces dir/name.json. The replacement is atomic and survives a crash.
func writeJSON(dir, name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := secretfile.Write(filepath.Join(dir, name+".json"), append(data, '\n')); err != nil {
		return fmt.Errorf("write token store: %w", err)
	}
	return nil
}
