//go:build unix

package main

import (
	"bytes"
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
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
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

// certificate writes a new one, with this serial number, into dir.
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

// SIGHUP reads the certificate again and ends nothing.
func TestHangupReloadsTheCertificateAndEndsNothing(t *testing.T) {
	dir, public, admin := t.TempDir(), freeAddress(t), freeAddress(t)
	certificate(t, dir, 1)
	path := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, hangupConfig, public, admin), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(os.Args[0], "serve", "--config", path)
	cmd.Env = append(os.Environ(), gatewayEnv+"=1")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	serial := func() int64 {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", public, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return 0
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
			select {
			case err := <-ended:
				t.Fatalf("%s: the gateway ended with %v:\n%s", what, err, &log)
			default:
			}
			if time.Now().After(deadline) {
				_ = cmd.Process.Kill()
				<-ended
				t.Fatalf("%s: gave up:\n%s", what, &log)
			}
		}
	}
	until("it serves", func() bool { return serial() == 1 })
	certificate(t, dir, 2)
	for range 3 {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	until("it serves the new certificate", func() bool { return serial() == 2 })
	resp, err := http.Get("http://" + admin + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v:\n%s", err, &log)
	}
}
