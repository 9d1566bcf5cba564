package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/internal/devnet/inference"
	"sluice.example/sluice/internal/lab"
	"sluice.example/sluice/internal/lab/loopback"
	"sluice.example/sluice/internal/lab/proc"
)

// These are the service and the model that the demo sells.
const (
	service = "inference"
	model   = "demo"
	// slots is how many requests the model serves at the same time. queue is how many more requests
	// may wait.
	slots = 64
	queue = 256
)

// replica is one gateway child process. Its addresses do not change during the demo, so that a user
// who kills a gateway can start it again with its configuration.
type replica struct {
	*lab.Server          // Name is "gateway", "gateway_2", …; it also names the files
	listen, admin string // host:port
}

func (d *demo) gatewayURL() string { return d.replicas[0].URL }
func (d *demo) adminURL() string   { return d.replicas[0].Admin }
func (d *demo) backendURL() string { return "http://" + d.backendAt }

// newReplica returns a gateway that is not started yet.
func (d *demo) newReplica(name, listen, admin string) *replica {
	return &replica{listen: listen, admin: admin, Server: &lab.Server{
		Gateway: lab.NewGateway("http://"+listen, "http://"+admin, ""), Name: name,
		Launcher: d.launcher, Program: d.cfg.Gateway, Config: d.place.path(name + ".yaml"), Log: d.place.path(name + ".log"),
	}}
}

// choosePorts finds free addresses for all children.
func (d *demo) choosePorts() (err error) {
	if d.backendAt, err = loopback.FreeAddress(); err != nil {
		return err
	}
	if d.exporterAt, err = loopback.FreeAddress(); err != nil {
		return err
	}
	for i := range max(d.cfg.Replicas, 1) {
		name := "gateway"
		if i > 0 {
			name = fmt.Sprintf("gateway_%d", i+1)
		}
		at, err := loopback.FreeAddresses(2)
		if err != nil {
			return err
		}
		d.replicas = append(d.replicas, d.newReplica(name, at[0], at[1]))
	}
	return nil
}

// startBackend starts the inference server, which also simulates its GPU.
func (d *demo) startBackend(ctx context.Context) (err error) {
	d.backend, err = d.launcher.Start(proc.Spec{
		Name: "inference server", Path: d.cfg.Gateway, Log: d.place.path("inference.log"),
		Args: []string{"demo-inference", "--listen", d.backendAt, "--model", model, "--slots", strconv.Itoa(slots), "--queue", strconv.Itoa(queue),
			"--simulate-gpu", d.gpuFile()},
	})
	if err != nil {
		return err
	}
	if err := await(ctx, d.backend, d.backendURL()+"/health"); err != nil {
		return err
	}
	d.story.say("inference server (pid %d) generates text at %s", d.backend.Pid(), d.backendURL())
	return nil
}

// startGateways writes the configurations and starts the gateways.
func (d *demo) startGateways(ctx context.Context) error {
	if err := d.writeConfigs(); err != nil {
		return err
	}
	for _, r := range d.replicas {
		r.Token = d.adminToken
		if err := r.Start(ctx); err != nil {
			return err
		}
		d.story.say("%s (pid %d) sells it at %s", r.Name, r.Process().Pid(), r.URL)
	}
	return nil
}

// await waits until url answers 200, for at most 30 s.
func await(ctx context.Context, p *proc.Process, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return p.Await(ctx, p.Name()+" is ready", func(ctx context.Context) error { return lab.Answers(ctx, url) })
}

// writeConfigs writes the configurations of the gateways and of the agent.
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
	gpu := ""
	if d.exporter != nil {
		gpu = fill(gpuConfig, "EXPORTER", d.exporterURL(), "GPU", inference.SimulatedGPU)
	}
	seller, buyer := d.network.Gateway, d.network.Agent
	for _, r := range d.replicas {
		gateway := fill(gatewayConfig+gpu, "LISTEN", r.listen, "ADMIN", r.admin, "TOKEN", d.adminToken, "STORE", store,
			"MASTER", master, "LND", seller.GRPC, "CERT", seller.TLSCertPath, "MACAROON", seller.InvoiceMacaroonPath,
			"BACKEND", d.backendURL(), "SLOTS", slots, "QUEUE", queue, "SERVICE", service, "MODEL", model)
		if err := d.place.write(r.Name+".yaml", []byte(gateway)); err != nil {
			return err
		}
	}
	agent := fill(agentConfig, "GATEWAY", d.gatewayURL(), "TOKENS", d.place.path("tokens"),
		"LND", buyer.GRPC, "CERT", buyer.TLSCertPath, "MACAROON", buyer.AdminMacaroonPath)
	return d.place.write("agent.yaml", []byte(agent))
}

// fill replaces each «NAME» in a YAML text by a value. A text value is quoted as a JSON string,
// which is also a YAML string.
func fill(text string, pairs ...any) string {
	for i := 0; i < len(pairs); i += 2 {
		quoted, err := json.Marshal(pairs[i+1])
		if err != nil { // strings and numbers can always be encoded
			quoted = []byte(`""`)
		}
		text = strings.ReplaceAll(text, "«"+pairs[i].(string)+"»", string(quoted))
	}
	return text
}

// gatewayConfig is the configuration of the gateway. Its prices are the floor. At the floor a short
// chat (20 prompt and 32 completion tokens) costs 148 msat, so the smallest purchase pays for 27
// such chats.
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
        apis: [chat, completions, embeddings, rerank, score]
        context_tokens: 4096
        max_completion_tokens: 256
        min_completion_tokens: 8
        prices:
          input: 1000 sat/Mtok
          output: 4000 sat/Mtok
        queue: {limit: «QUEUE», timeout: 30s}
        # Far quicker than one would have it, so that a surge of seconds shows.
        pricing: {policy: target, interval: 1s, gain: 0.35, slew_up: 0.5, slew_down: 0.5, floor: 1, ceiling: 4, delay: 2s}
quote_ttl: 10m
telemetry: {every: 250ms, stale_after: 5s}
backends:
  - name: model-server
    url: «BACKEND»
    slots: «SLOTS»
    tokenize: true
    continuous_usage: true
    health: {path: /health, every: 1s}
    engine: {name: generic, metrics: /metrics}
`

// gpuConfig continues the backend's section with its GPU.
const gpuConfig = `    gpus: [«GPU»]
    exporter: «EXPORTER»
`

// agentConfig is the configuration that agent-client reads.
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
