package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sluice.example/sluice/internal/secretfile"
)

// place is the path of the demo's folder.
type place string

func (p place) path(name string) string { return filepath.Join(string(p), name) }

// prepare removes the files of an earlier demo. The master key remains, because a ledger in
// PostgreSQL outlives the demo and needs the key.
func (p place) prepare() error {
	entries, err := os.ReadDir(string(p))
	if err != nil {
		return err
	}
	if _, err := os.Stat(p.path(marker)); errors.Is(err, os.ErrNotExist) && len(entries) > 0 {
		return fmt.Errorf("%s holds files that are no demo's: name an empty folder", p)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	stale := []string{p.path("demo.json"), p.path("agent.yaml"), p.path("inference.log"), p.path("exporter.log"), p.path("gpu")}
	for _, pattern := range []string{"ledger.db*", "gateway*.yaml", "gateway*.log", "tokens*"} {
		found, err := filepath.Glob(p.path(pattern))
		if err != nil {
			return err
		}
		stale = append(stale, found...)
	}
	for _, path := range stale {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := os.Mkdir(p.path("gpu"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(p.path(marker), []byte("A demo's folder. Its files are wiped when a demo starts here.\n"), 0o600)
}

// write writes a file that only its owner may read. A reader sees the complete file or no file.
func (p place) write(name string, content []byte) error {
	return secretfile.Write(p.path(name), content)
}

// secret returns the content of a file with one random secret. It makes the file at the first use.
func (p place) secret(name string, random func() string) (string, error) {
	content, err := os.ReadFile(p.path(name))
	if err == nil {
		return strings.TrimSpace(string(content)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	value := random()
	return value, p.write(name, []byte(value+"\n"))
}

// summary is the content of demo.json. It has all that a script needs to use the demo.
type summary struct {
	GatewayURL    string          `json:"gateway_url"`
	GatewayURLs   []string        `json:"gateway_urls"`
	GatewayConfig string          `json:"gateway_config"`
	AdminURL      string          `json:"admin_url"`
	AdminToken    string          `json:"admin_token"`
	Service       string          `json:"service"`
	Model         string          `json:"model"`
	AgentConfig   string          `json:"agent_config"`
	BackendURL    string          `json:"backend_url"`
	LND           map[string]node `json:"lnd"`
	PIDs          map[string]int  `json:"pids"`
}

// node says how to reach one lnd with all rights.
type node struct {
	GRPC     string `json:"grpc"`
	TLSCert  string `json:"tls_cert"`
	Macaroon string `json:"macaroon"`
}

// writeSummary writes demo.json. The file shows that the demo is ready.
func (d *demo) writeSummary() error {
	s := summary{
		GatewayURL: d.gatewayURL(), GatewayConfig: d.replicas[0].Config,
		AdminURL: d.adminURL(), AdminToken: d.adminToken, Service: service, Model: model,
		AgentConfig: d.place.path("agent.yaml"), BackendURL: d.backendURL(),
		LND: map[string]node{
			"agent":   {d.network.Agent.GRPC, d.network.Agent.TLSCertPath, d.network.Agent.AdminMacaroonPath},
			"gateway": {d.network.Gateway.GRPC, d.network.Gateway.TLSCertPath, d.network.Gateway.AdminMacaroonPath},
		},
		PIDs: d.network.Pids(),
	}
	s.PIDs["demo"], s.PIDs["backend"] = os.Getpid(), d.backend.Pid()
	if d.exporter != nil {
		s.PIDs["gpu_exporter"] = d.exporter.Pid()
	}
	for _, r := range d.replicas {
		s.GatewayURLs = append(s.GatewayURLs, r.URL)
		s.PIDs[r.Name] = r.Process().Pid()
	}
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return d.place.write("demo.json", append(content, '\n'))
}
