package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/internal/devnet/proc"
)

// What the demo sells.
const (
	service = "inference"
	model   = "demo"
	// slots is how many requests the model serves at a time; it queues as many.
	slots = 64
)

// ports are the demo's own addresses, fixed for its life so that whoever kills
// a child can start it again from the same files.
type ports struct {
	backend, gateway, admin string
}

func (d *demo) gatewayURL() string { return "http://" + d.ports.gateway }
func (d *demo) backendURL() string { return "http://" + d.ports.backend }

// choosePorts finds three free addresses.
func choosePorts() (p ports, err error) {
	for _, to := range []*string{&p.backend, &p.gateway, &p.admin} {
		if *to, err = freeAddress(); err != nil {
			return p, err
		}
	}
	return p, nil
}

// startBackend starts the inference server.
func (d *demo) startBackend(ctx context.Context) (err error) {
	n := strconv.Itoa(slots)
	d.backend, err = d.launcher.Start(proc.Spec{
		Name: "inference server", Path: d.cfg.Gateway, Log: d.place.path("inference.log"),
		Args: []string{"demo-inference", "--listen", d.ports.backend, "--model", model, "--slots", n, "--queue", n},
	})
	if err != nil {
		return err
	}
	if err := d.await(ctx, d.backend, d.backendURL()+"/health"); err != nil {
		return err
	}
	d.story.say("inference server (pid %d) generates text at %s", d.backend.Pid(), d.backendURL())
	return nil
}

// startGateway writes the configuration and starts the gateway with it.
func (d *demo) startGateway(ctx context.Context) (err error) {
	if err := d.writeConfigs(); err != nil {
		return err
	}
	d.gateway, err = d.launcher.Start(proc.Spec{
		Name: "gateway", Path: d.cfg.Gateway, Log: d.place.path("gateway.log"),
		Args: []string{"serve", "--config", d.place.path("gateway.yaml")},
	})
	if err != nil {
		return err
	}
	if err := d.await(ctx, d.gateway, d.gatewayURL()+"/readyz"); err != nil {
		return err
	}
	d.story.say("gateway (pid %d) sells it at %s", d.gateway.Pid(), d.gatewayURL())
	return nil
}

// await polls until url answers 200, for at most half a minute.
func (d *demo) await(ctx context.Context, p *proc.Process, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = answers(ctx, url); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; its log ends with:\n%s", p.Name(), last, p.Tail(15))
		case <-p.Done():
			return p.Exit()
		case <-tick.C:
		}
	}
}

// answers reports why url does not answer 200.
func answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(url + " answers " + resp.Status)
	}
	return nil
}

// writeConfigs writes the gateway's and the agent's configuration.
func (d *demo) writeConfigs() error {
	master, err := d.place.secret("master.key", func() string {
		var key [32]byte
		rand.Read(key[:])
		return hex.EncodeToString(key[:])
	})
	if err != nil {
		return err
	}
	if d.adminToken, err = d.place.secret("admin.token", rand.Text); err != nil {
		return err
	}
	store := d.cfg.StoreURL
	if store == "" {
		store = "sqlite:ledger.db"
	}
	seller, buyer := d.network.Gateway, d.network.Agent
	gateway := fill(gatewayConfig, "LISTEN", d.ports.gateway, "ADMIN", d.ports.admin, "TOKEN", d.adminToken, "STORE", store,
		"MASTER", master, "LND", seller.GRPC, "CERT", seller.TLSCertPath, "MACAROON", seller.InvoiceMacaroonPath,
		"BACKEND", d.backendURL(), "SLOTS", slots, "SERVICE", service, "MODEL", model)
	if err := d.place.write("gateway.yaml", []byte(gateway)); err != nil {
		return err
	}
	agent := fill(agentConfig, "GATEWAY", d.gatewayURL(), "TOKENS", d.place.path("tokens"),
		"LND", buyer.GRPC, "CERT", buyer.TLSCertPath, "MACAROON", buyer.AdminMacaroonPath)
	return d.place.write("agent.yaml", []byte(agent))
}

// fill replaces each «NAME» of a YAML text by a value, quoted where it is text.
// JSON's strings are YAML's.
func fill(text string, pairs ...any) string {
	for i := 0; i < len(pairs); i += 2 {
		quoted, err := json.Marshal(pairs[i+1])
		if err != nil { // strings and numbers always marshal
			quoted = []byte(`""`)
		}
		text = strings.ReplaceAll(text, "«"+pairs[i].(string)+"»", string(quoted))
	}
	return text
}

// gatewayConfig is what the gateway child reads. At these prices a short chat
// (20 prompt and 32 completion tokens) costs 148 msat, so the smallest purchase
// pays for 27 of them.
const gatewayConfig = `# The demo's gateway. deploy/gateway.example.yaml explains every key.
listen: «LISTEN»
admin:
  listen: «ADMIN»
  token: «TOKEN»
store: «STORE»
keys:
  - {id: demo, state: mint, secret: «MASTER»}
lightning:
  grpc: «LND»
  tls_cert: «CERT»
  macaroon: «MACAROON»
  memo: Sluice demo credit
services:
  - name: «SERVICE»
    min_purchase: 4 sat
    max_purchase: 100000 sat
    models:
      - name: «MODEL»
        backends: [model-server]
        context_tokens: 4096
        max_completion_tokens: 256
        min_completion_tokens: 8
        prices:
          input: 1000 sat/Mtok
          output: 4000 sat/Mtok
        queue: {limit: «SLOTS», timeout: 30s}
backends:
  - name: model-server
    url: «BACKEND»
    slots: «SLOTS»
    tokenize: true
    continuous_usage: true
    health: {path: /health, every: 1s}
`

// agentConfig is what agent-client reads.
const agentConfig = `# The demo's agent.
gateway_url: «GATEWAY»
network: regtest
lnd:
  grpc: «LND»
  tls_cert: «CERT»
  macaroon: «MACAROON»
tokens_dir: «TOKENS»
caps:
  per_request: 10000 sat
`
