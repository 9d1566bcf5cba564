package devnet

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"sluice.example/sluice/internal/lab/proc"
)

// chain is the btcd process that mines the network's regtest chain.
type chain struct {
	process  *proc.Process
	rpc      string // host:port
	certPath string
	user     string
	password string
	client   *http.Client
}

// startChain starts btcd, which mines to address, and waits until btcd answers.
func startChain(ctx context.Context, l *proc.Launcher, btcd, dir, address string, ports []string) (*chain, error) {
	c := &chain{
		rpc: ports[1], certPath: filepath.Join(dir, "rpc.cert"),
		user: "devnet", password: rand.Text(),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// The password is in a file, because every user of the machine can read a command line.
	config := filepath.Join(dir, "btcd.conf")
	text := fmt.Sprintf("[Application Options]\nrpcuser=%s\nrpcpass=%s\n", c.user, c.password)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var err error
	c.process, err = l.Start(proc.Spec{Name: "btcd", Path: btcd, Log: filepath.Join(dir, "btcd.log"), Args: []string{
		"--regtest", "--configfile=" + config, "--datadir=" + filepath.Join(dir, "data"), "--logdir=" + filepath.Join(dir, "logs"),
		"--listen=" + ports[0], "--rpclisten=" + c.rpc, "--rpccert=" + c.certPath, "--rpckey=" + filepath.Join(dir, "rpc.key"),
		"--miningaddr=" + address, "--txindex", "--rejectnonstd", "--nobanning", "--nostalldetect", "--nodnsseed",
		"--trickleinterval=100ms", "--rpcmaxwebsockets=50", "--rpcmaxclients=50",
	}})
	if err != nil {
		return nil, err
	}
	return c, until(ctx, "btcd answers", c.process, func(ctx context.Context) error {
		return c.call(ctx, "getblockcount", nil)
	})
}

// mine mines n blocks. Their coins go to the network's mining address.
func (c *chain) mine(ctx context.Context, n int) error {
	if err := c.call(ctx, "generate", nil, n); err != nil {
		return fmt.Errorf("mine %d blocks: %w", n, err)
	}
	return nil
}

// call makes one JSON-RPC call to btcd. A nil result means that the answer is dropped.
func (c *chain) call(ctx context.Context, method string, result any, params ...any) error {
	if c.client == nil {
		cert, err := os.ReadFile(c.certPath)
		if err != nil {
			return err // btcd has not written the certificate yet
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(cert) {
			return errors.New("btcd's certificate is not complete yet")
		}
		c.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		}}
	}
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.rpc, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(c.user, c.password)
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Result json.RawMessage
		Error  *struct {
			Code    int
			Message string
		}
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&answer); err != nil {
		return fmt.Errorf("btcd %s: HTTP %s: %w", method, resp.Status, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("btcd %s: %s (%d)", method, answer.Error.Message, answer.Error.Code)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}
