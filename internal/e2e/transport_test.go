package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	driver "sluice.example/sluice/internal/lab"
)

// over returns the same gateway as a client with another transport sees it.
func (g *gateway) over(t testing.TB, transport *http.Transport) *gateway {
	t.Helper()
	t.Cleanup(transport.CloseIdleConnections)
	transport.DisableCompression = true
	return &gateway{&driver.Gateway{URL: g.URL, Admin: g.Admin, Token: g.Token, HTTP: &http.Client{Transport: transport}}}
}

// wantWhole makes a unary and a streamed call over the gateway's transport, and
// hangs up on a third; all are charged as over any other.
func (g *gateway) wantWhole(t *testing.T, k credential, major int) {
	t.Helper()
	resp, err := g.Open(t.Context(), http.MethodGet, "/v1/models", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != major {
		t.Errorf("spoke %s, want HTTP/%d", resp.Proto, major)
	}
	a := g.post(t, chat(), k.header()).want(t, http.StatusOK)
	if e := g.entry(t, k, a.header.Get("L402-Request-Id")); e.Charged != a.msat(t, "L402-Cost-Msat") || e.Usage.Output != 24 {
		t.Errorf("the answer cost %s msat, the ledger says %+v", a.header.Get("L402-Cost-Msat"), e)
	}
	request, e := g.all(t, k, chat())
	e.complete(t)
	if c := g.entry(t, k, request); c.Charged != e.cost {
		t.Errorf("the stream cost %d msat, the ledger says %+v", e.cost, c)
	}
	s := g.stream(t, k, chat("max_tokens", "256"))
	s.read(5)
	s.hangUp()
	if c := g.entry(t, k, s.requestID()); c.Outcome != "client_gone" || c.Usage.Output < 4 || c.Usage.Output > 200 {
		t.Errorf("a stream left after 5 events: %+v", c)
	}
	g.post(t, chat(), nil).challenge(t)
	g.idle(t, k)
}

// TestTLS serves HTTP/1.1 and HTTP/2 with a certificate from files.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key, roots := selfSigned(t)
	g := startGateway(t, func(s *setup) { s.Cert, s.Key = cert, key })
	two := g.over(t, &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true})
	k := two.buy(t, 20_000)
	two.wantWhole(t, k, 2)
	only1 := new(http.Protocols)
	only1.SetHTTP1(true)
	one := g.over(t, &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: only1})
	one.wantWhole(t, k, 1)
	old := g.over(t, &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}})
	if _, err := old.Open(t.Context(), http.MethodGet, "/healthz", "", nil); err == nil {
		t.Error("the gateway speaks TLS 1.1")
	}
	g.verify(t)
}

// TestClearHTTP2 speaks HTTP/2 without TLS, with prior knowledge.
func TestClearHTTP2(t *testing.T) {
	t.Parallel()
	only2 := new(http.Protocols)
	only2.SetUnencryptedHTTP2(true)
	demo.over(t, &http.Transport{Protocols: only2}).wantWhole(t, demo.buy(t, 20_000), 2)
}

// selfSigned writes a certificate for 127.0.0.1 and its key.
func selfSigned(t testing.TB) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway under test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8), roots
}
