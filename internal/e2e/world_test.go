package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"sluice.example/sluice/internal/lab/proc"
)

// facts is demo.json as wire.md names its members.
type facts struct {
	GatewayURL    string               `json:"gateway_url"`
	GatewayURLs   []string             `json:"gateway_urls"`
	GatewayConfig string               `json:"gateway_config"`
	AdminURL      string               `json:"admin_url"`
	AdminToken    string               `json:"admin_token"`
	Service       string               `json:"service"`
	Model         string               `json:"model"`
	AgentConfig   string               `json:"agent_config"`
	BackendURL    string               `json:"backend_url"`
	LND           map[string]nodeFacts `json:"lnd"`
	PIDs          map[string]int       `json:"pids"`
}

// nodeFacts is how to reach one lnd with all rights.
type nodeFacts struct {
	GRPC     string `json:"grpc"`
	TLSCert  string `json:"tls_cert"`
	Macaroon string `json:"macaroon"`
}

// demonstration is a running `gateway demo`.
type demonstration struct {
	facts
	*gateway
	dir     string
	process *proc.Process
}

// daemonsLimit bounds a demo's start: its first one builds btcd and lnd.
const daemonsLimit = 9 * time.Minute

// startDemo starts a demo in dir and waits until its demo.json is there.
func startDemo(dir string) (*demonstration, error) {
	p, err := launcher.Start(proc.Spec{
		Name: "demo", Path: filepath.Join(binaries, "gateway"), Args: []string{"demo", "--dir", dir}, Log: dir + ".log",
	})
	if err != nil {
		return nil, err
	}
	d := &demonstration{dir: dir, process: p}
	if err := d.await(); err != nil {
		p.Kill()
		return nil, err
	}
	d.gateway = newGateway(d.GatewayURL, d.AdminURL, d.AdminToken)
	return d, nil
}

func (d *demonstration) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), daemonsLimit)
	defer cancel()
	path := filepath.Join(d.dir, "demo.json")
	err := d.process.Await(ctx, "the demo has written demo.json", func(context.Context) error {
		_, err := os.Stat(path)
		return err
	})
	if err != nil {
		return err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(content, &d.facts) // it is written at once, so it must be whole
}

// interrupt ends the demo as Ctrl-C does and wants nothing to stay behind.
func (d *demonstration) interrupt() error {
	if err := d.process.Finish(syscall.SIGINT, time.Minute); err != nil {
		return fmt.Errorf("interrupt the demo: %w", err)
	}
	return d.gone()
}

// gone reports what is left of the demo's processes.
func (d *demonstration) gone() error {
	var errs []error
	for role, pid := range d.PIDs {
		if proc.Alive(pid) {
			errs = append(errs, fmt.Errorf("the demo's %s (pid %d) still runs", role, pid))
		}
	}
	for _, line := range processesOf(d.dir) {
		errs = append(errs, fmt.Errorf("the demo left the process %s", line))
	}
	return errors.Join(errs...)
}
