package gateway_test

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway/intake"
)

// TestRenewedCertificateIsServed: a renewed certificate is served without a restart, at once after
// Reload, and otherwise within seconds.
func TestRenewedCertificateIsServed(t *testing.T) {
	cert, key := selfSigned(t)
	nextCert, nextKey := selfSigned(t)
	lastCert, lastKey := selfSigned(t)
	clock, log := new(clock), new(lockedBuffer)
	certs, err := intake.NewCertificates(cert, key, slog.New(slog.NewTextHandler(log, nil)), clock.now)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := intake.NewServer(intake.ServerConfig{Handler: http.NotFoundHandler(), Certificates: certs})
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	go srv.ServeTLS(listener, "", "")
	t.Cleanup(func() { srv.Close() })
	served := func() []byte {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Raw
	}
	put := func(from, to string) {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
		clock.advance(time.Second)
	}
	stamp := func(name string) { // sets a later modification time
		if err := os.Chtimes(name, time.Time{}, clock.now()); err != nil {
			t.Fatal(err)
		}
	}
	first := served()
	put(nextCert, cert)
	put(nextKey, key)
	if err := certs.Reload(); err != nil {
		t.Fatal(err)
	}
	second := served()
	if bytes.Equal(first, second) {
		t.Error("after a reload the old certificate is served")
	}
	// After half of a renewal the old pair remains in use, and the log says so once.
	put(lastCert, cert)
	stamp(cert)
	for range 3 {
		clock.advance(11 * time.Second)
		if !bytes.Equal(served(), second) {
			t.Error("a certificate is served that does not fit the key")
		}
	}
	if n := strings.Count(log.String(), "cannot be used"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, log)
	}
	if err := certs.Reload(); err == nil {
		t.Error("a reload of files that do not fit is no error")
	}
	put(lastKey, key)
	stamp(key)
	clock.advance(11 * time.Second)
	if third := served(); bytes.Equal(third, second) {
		t.Error("a renewed certificate is not served")
	}
}
