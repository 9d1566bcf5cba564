package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice.example/sluice/internal/placeholder"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/bolt11"
)

// envPrefix is the beginning of every environment variable. AGENT_CLIENT_CONFIG names the
// configuration file. Each key of the file has a variable too, such as AGENT_CLIENT_LND_GRPC for
// lnd.grpc.
const envPrefix = "AGENT_CLIENT_"

// config holds the settings of the file and the environment. See config.example.yaml.
type config struct {
	Network    bolt11.Network
	GatewayURL string
	TokensDir  string
	LND        struct{ GRPC, TLSCert, Macaroon string }
	Caps       struct {
		PerRequest, Total, FeeBase l402.Msat
		FeePPM                     int64
	}
	BuyBeyondDelegation bool
	PaymentTimeout      time.Duration
}

// keys returns a function for each key that sets the key's value. It is the only list of keys.
// Relative paths are relative to dir.
func (c *config) keys(dir, home string) map[string]func(string) error {
	text := func(dst *string) func(string) error {
		return func(s string) error { *dst = s; return nil }
	}
	path := func(dst *string) func(string) error {
		return func(s string) error { *dst = expand(s, dir, home); return nil }
	}
	money := func(dst *l402.Msat) func(string) error {
		return func(s string) (err error) { *dst, err = parseAmount(s); return err }
	}
	return map[string]func(string) error{
		"network":               func(s string) (err error) { c.Network, err = bolt11.ParseNetwork(s); return err },
		"gateway_url":           func(s string) (err error) { c.GatewayURL, err = parseGateway(s); return err },
		"tokens_dir":            path(&c.TokensDir),
		"lnd.grpc":              text(&c.LND.GRPC),
		"lnd.tls_cert":          path(&c.LND.TLSCert),
		"lnd.macaroon":          path(&c.LND.Macaroon),
		"caps.per_request":      money(&c.Caps.PerRequest),
		"caps.total":            money(&c.Caps.Total),
		"caps.fee_base":         money(&c.Caps.FeeBase),
		"caps.fee_ppm":          func(s string) (err error) { c.Caps.FeePPM, err = parsePPM(s); return err },
		"buy_beyond_delegation": func(s string) (err error) { c.BuyBeyondDelegation, err = parseBool(s); return err },
		"payment_timeout":       func(s string) (err error) { c.PaymentTimeout, err = parseTimeout(s); return err },
	}
}

// config reads the file. The environment overrides the file. A missing file is an error only if the
// user named it.
func (a *app) config() (*config, error) {
	home := a.env("HOME")
	path, named := a.configPath, a.configPath != ""
	if !named {
		path = filepath.Join(home, ".agent-client", "config.yaml")
	}
	data, err := os.ReadFile(path)
	if err != nil && (named || !errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c := &config{Network: bolt11.Mainnet, PaymentTimeout: time.Minute}
	c.LND.GRPC, c.LND.TLSCert = "127.0.0.1:10009", expand("~/.lnd/tls.cert", "", home)
	c.TokensDir = expand("~/.agent-client/tokens", "", home)
	c.Caps.FeeBase, c.Caps.FeePPM = 5_000, 10_000
	if err := c.read(data, filepath.Dir(path), home); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	here := c.keys("", home)
	for key, set := range here {
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		if s := a.env(name); s != "" {
			if placeholder.In(s) { // systemd passes a placeholder on unchanged
				return nil, fmt.Errorf("$%s: %s in the file", name, placeholder.Refusal)
			}
			if err := set(s); err != nil {
				return nil, fmt.Errorf("$%s: %w", name, err)
			}
		}
	}
	if c.LND.Macaroon == "" {
		c.LND.Macaroon = expand("~/.lnd/data/chain/bitcoin/"+string(c.Network)+"/admin.macaroon", "", home)
	}
	return c, nil
}

// read applies one YAML document. An unknown, repeated or malformed key is an error that names its
// line.
func (c *config) read(data []byte, dir, home string) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("want one YAML document, there is more after it")
	}
	return apply(doc.Content[0], "", c.keys(dir, home))
}

// apply calls the setter of each key in a YAML mapping.
func apply(n *yaml.Node, prefix string, keys map[string]func(string) error) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want a mapping of keys to values", n.Line)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		path := prefix + name.Value
		if seen[path] {
			return fmt.Errorf("line %d: %s is given twice", name.Line, clip(path))
		}
		seen[path] = true
		set, scalar := keys[path]
		switch {
		case scalar && value.Kind == yaml.ScalarNode && value.Tag != "!!null":
			if value.Tag != placeholder.Literal && placeholder.In(value.Value) {
				return fmt.Errorf("line %d: %s: %s", value.Line, path, placeholder.Refusal)
			}
			if err := set(value.Value); err != nil {
				return fmt.Errorf("line %d: %s: %w", value.Line, path, err)
			}
		case scalar:
			return fmt.Errorf("line %d: %s: want a single value", value.Line, path)
		case isSection(path, keys):
			if err := apply(value, path+".", keys); err != nil {
				return err
			}
		default:
			return fmt.Errorf("line %d: unknown key %s, want one of: %s", name.Line, clip(path), strings.Join(sorted(keys), ", "))
		}
	}
	return nil
}

func isSection(path string, keys map[string]func(string) error) bool {
	for k := range keys {
		if strings.HasPrefix(k, path+".") {
			return true
		}
	}
	return false
}

func sorted(keys map[string]func(string) error) []string {
	var names []string
	for k := range keys {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// expand replaces "~" at the beginning of a path by home. It joins a relative path to dir.
func expand(path, dir, home string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(home, rest)
	}
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// units maps each unit to the number of decimal places that an amount in this unit has, down to one
// msat.
var units = map[string]int{"msat": 0, "sat": 3, "btc": 11}

// parseAmount reads "150 sat", "1500 msat" or "0.001 btc", with or without the space. It refuses an
// amount that is not a whole number of msat, and never rounds.
func parseAmount(s string) (l402.Msat, error) {
	wrong := fmt.Errorf("want an amount such as 150 sat, 1500 msat or 0.001 btc, got %q", clip(s))
	text := strings.TrimSpace(s)
	end := strings.LastIndexAny(text, "0123456789.") + 1
	digits, ok := units[strings.ToLower(strings.TrimSpace(text[end:]))]
	if !ok {
		return 0, wrong
	}
	whole, part, point := strings.Cut(text[:end], ".")
	if point && (part == "" || len(part) > digits || strings.Trim(part, "0123456789") != "") {
		return 0, wrong
	}
	if _, err := l402.ParseMsat(whole); err != nil { // digits only, no leading zeros
		return 0, wrong
	}
	joined := strings.TrimLeft(whole+part+strings.Repeat("0", digits-len(part)), "0")
	if joined == "" {
		joined = "0"
	}
	n, err := l402.ParseMsat(joined)
	if err != nil {
		return 0, wrong
	}
	return n, nil
}

func parsePPM(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1_000_000 {
		return 0, fmt.Errorf("want 0 to 1000000 millionths of the amount, got %q", clip(s))
	}
	return n, nil
}

func parseBool(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, fmt.Errorf("want true or false, got %q", clip(s))
	}
	return s == "true", nil
}

func parseTimeout(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > time.Hour {
		return 0, fmt.Errorf("want a time such as 60s, from 1s to 1h, got %q", clip(s))
	}
	return d, nil
}

// parseGateway checks the base URL of a gateway and removes slashes from its end.
func parseGateway(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.RawQuery != "" {
		return "", fmt.Errorf("want a URL such as https://gateway.example, got %q", clip(s))
	}
	return strings.TrimRight(s, "/"), nil
}

// gateway returns the base URL to use. It is the flag's value, or the configuration's when the flag
// is "".
func (c *config) gateway(flagURL string) (string, error) {
	if flagURL == "" {
		if c.GatewayURL == "" {
			return "", usagef("no gateway: give --url or set gateway_url in the configuration")
		}
		return c.GatewayURL, nil
	}
	base, err := parseGateway(flagURL)
	if err != nil {
		return "", usagef("--url: %w", err)
	}
	return base, nil
}
