package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// maxFile bounds a configuration and every file it names, in bytes.
const maxFile = 1 << 20

// Load reads and checks the file at path. Relative paths in it start at its
// folder. getenv is os.Getenv, or what a test puts in its place.
func Load(path string, getenv func(string) string) (*Config, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	data, err := readFile(abs)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := Parse(data, filepath.Dir(abs), getenv)
	if err != nil {
		return nil, fmt.Errorf("%s:\n%w", path, err)
	}
	if cfg.inline {
		(&checker{cfg: cfg}).checkPrivate("the configuration holds secrets", abs)
	}
	return cfg, nil
}

// Parse reads and checks a configuration. Relative paths in it start at dir;
// files it names for secrets and certificates are read. The error joins an
// *Error for each thing wrong, in order of lines.
func Parse(data []byte, dir string, getenv func(string) string) (*Config, error) {
	cfg := defaults()
	d := &decoder{lines: map[string]int{}}
	if err := d.document(data, cfg); err != nil {
		return nil, err
	}
	// What follows would only complain about the same mistakes again.
	if len(d.errs) == 0 {
		c := &checker{decoder: d, cfg: cfg, dir: dir, getenv: getenv}
		cfg.inline = cfg.holdsSecrets()
		c.resolve()
		c.check()
	}
	if len(d.errs) > 0 {
		return nil, d.joined()
	}
	return cfg, nil
}

func (d *decoder) joined() error {
	slices.SortStableFunc(d.errs, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	list := make([]error, len(d.errs))
	for i, e := range d.errs {
		list[i] = e
	}
	return errors.Join(list...)
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	// Looked at before it is opened: opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return data, nil
}
