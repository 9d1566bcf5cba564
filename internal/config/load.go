package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"sluice.example/sluice/internal/placeholder"
)

// maxFile bounds the size of a configuration and of every file that it names, in bytes.
const maxFile = 1 << 20

// Load reads and checks the file at path. Relative paths in the file start at the file's folder. getenv
// is os.Getenv, or a replacement in tests.
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

// Parse reads and checks a configuration. Relative paths in it start at dir. Parse also reads the files
// that the configuration names for secrets and certificates. The error joins an *Error for each thing
// that is wrong, in the order of lines.
func Parse(data []byte, dir string, getenv func(string) string) (*Config, error) {
	cfg := defaults()
	d := &decoder{lines: map[string]int{}, filling: filling{getenv: getenv, raw: map[string]string{}}}
	if err := d.document(data, cfg); err != nil {
		return nil, err
	}
	// With errors so far, the steps below would only report the same mistakes again.
	if len(d.errs) == 0 {
		c := &checker{decoder: d, cfg: cfg, dir: dir}
		cfg.raw = d.raw
		cfg.inline = cfg.holdsSecrets()
		c.resolve()
		c.check()
	}
	if len(d.errs) > 0 {
		return nil, d.joined()
	}
	for i, w := range cfg.Warnings {
		cfg.Warnings[i] = d.scrub(w)
	}
	return cfg, nil
}

func (d *decoder) joined() error {
	slices.SortStableFunc(d.errs, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	list := make([]error, len(d.errs))
	for i, e := range d.errs {
		e.Reason = d.scrub(e.Reason)
		list[i] = e
	}
	return errors.Join(list...)
}

// Files returns the paths of the keys and certificates that the configuration names. Their content is
// part of the configuration and may change while a gateway runs. The result does not contain the path
// of the configuration file. The paths are absolute.
func (c *Config) Files() (paths []string) {
	add := func(path string) {
		if path != "" {
			paths = append(paths, path)
		}
	}
	add(c.TLS.Cert)
	add(c.TLS.Key)
	for _, k := range c.Keys {
		add(k.SecretFile)
	}
	for _, b := range c.Backends {
		add(b.APIKeyFile)
	}
	return paths
}

// AdminAt returns the address and token of the operator's listener of the gateway whose file is at
// path. It does so whatever else is wrong with the file.
func AdminAt(path string, getenv func(string) string) (Admin, error) {
	data, err := readFile(path)
	if err != nil {
		return Admin{}, fmt.Errorf("read configuration: %w", err)
	}
	var file struct {
		Admin struct{ Listen, Token string }
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		return Admin{}, errors.New("no listener of the operator can be read out of the configuration, which is no YAML")
	}
	admin := defaults().Admin
	listen, _, err := placeholder.Fill(file.Admin.Listen, getenv)
	if err != nil {
		return admin, fmt.Errorf("admin.listen: %w", err)
	}
	token, _, err := placeholder.Fill(file.Admin.Token, getenv)
	if err != nil {
		return admin, fmt.Errorf("admin.token: %w", err)
	}
	admin.Listen = cmp.Or(listen, admin.Listen)
	admin.Token = Secret(cmp.Or(getenv(EnvAdminToken), token))
	return admin, nil
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	// Stat comes before Open, because to open a pipe would wait for the pipe's writer.
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
