//go:build unix

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sluice.example/sluice/internal/lab/proc"
)

const hangupConfig = `
listen: %q
admin: {listen: %q}
tls: {cert: cert.pem, key: key.pem}
store: sqlite:sluice.db
keys: [{id: k1, secret: "1111111111111111111111111111111111111111111111111111111111111111"}]
lightning: {grpc: "127.0.0.1:1", macaroon_base64: AgEDbG5kAgdleGFtcGxlAAAGIMhEFsLihPVi352mLzDfnjqZ4ov9eWWPYvvQPNRqBscI}
services:
  - name: inference
    models: [{name: a, backends: [a], context_tokens: 4096, max_completion_tokens: 256, prices: {input: 1 sat/ktok}}]
backends: [{name: a, url: "http://127.0.0.1:1", slots: 1}]
`

// certificate writes a new certificate with this serial number into dir.
func certificate(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// SIGHUP makes the gateway read the certificate again, and ends nothing.
func TestHangupReloadsTheCertificateAndEndsNothing(t *testing.T) {
	dir, public, admin := t.TempDir(), freeAddress(t), freeAddress(t)
	certificate(t, dir, 1)
	path := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, hangupConfig, public, admin), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startSelf(t, dir, nil, "serve", "--config", path)
	serves := func(serial int64) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := p.Await(ctx, fmt.Sprintf("it serves certificate %d", serial), func(context.Context) error {
			c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", public, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				return err
			}
			defer c.Close()
			if got := c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != serial {
				return fmt.Errorf("it serves certificate %d", got)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	serves(1)
	certificate(t, dir, 2)
	for range 3 {
		if err := p.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	serves(2)
	resp, err := http.Get("http://" + admin + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := p.Finish(os.Interrupt, 20*time.Second); err != nil {
		t.Error(err)
	}
}

// startSelf runs a subcommand of this program in a child process that ends with the test. more is
// added to the environment. The log is in dir.
func startSelf(t *testing.T, dir string, more []string, args ...string) *proc.Process {
	t.Helper()
	l := proc.NewLauncher()
	p, err := l.Start(proc.Spec{Name: args[0], Path: os.Args[0], Args: args, Log: filepath.Join(dir, args[0]+".log"),
		Env: append(append(os.Environ(), gatewayEnv+"=1"), more...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		l.Close()
	})
	return p
}
