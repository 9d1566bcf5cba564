package intake

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"
)

// ServerConfig describes one listener's HTTP server.
type ServerConfig struct {
	Handler           http.Handler
	ReadHeaderTimeout time.Duration // zero: 10 s
	IdleTimeout       time.Duration // for a connection between requests; zero: 2 min
	MaxHeaderBytes    int           // zero: 64 KiB; a credential takes up to 16 KiB in base64 or hex
	// MaxConnections is how many connections may be open at once; zero: 10,000. A further
	// connection is closed as soon as it comes. MaxPerAddress is how many of them may come from one
	// IPv4 address or IPv6 /64 that is not a trusted proxy; zero: a quarter.
	MaxConnections, MaxPerAddress int
	TrustedProxies                []netip.Prefix
	// Connections replaces the three fields above, for a caller who changes the bounds later; nil:
	// not used.
	Connections *Connections
	// CertFile and KeyFile, in PEM, turn TLS on. Either both or none must be set. The files are
	// read again when they change.
	CertFile, KeyFile string
	// Certificates replaces CertFile and KeyFile, for a caller that reloads them itself; nil: not used.
	Certificates *Certificates
	Log          *slog.Logger // gets errors of connections; nil: no log
}

// NewServer makes an HTTP server for untrusted clients. It speaks HTTP/1.1 and HTTP/2, the latter
// with TLS, or without TLS to clients that know beforehand that the server speaks HTTP/2. It has no
// write timeout, because a stream may take hours; each write has a deadline instead. Start it with
// Serve, or with ServeTLS("", "") if TLS is on.
func NewServer(cfg ServerConfig) (*http.Server, error) {
	if cfg.Handler == nil {
		return nil, errors.New("server: no handler")
	}
	orDefault := func(d, def time.Duration) time.Duration {
		if d <= 0 {
			return def
		}
		return d
	}
	s := &http.Server{
		Handler:           cfg.Handler,
		ReadHeaderTimeout: orDefault(cfg.ReadHeaderTimeout, 10*time.Second),
		IdleTimeout:       orDefault(cfg.IdleTimeout, 2*time.Minute),
		MaxHeaderBytes:    cfg.MaxHeaderBytes,
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 250, MaxReceiveBufferPerConnection: receiveBuffer, MaxReceiveBufferPerStream: receiveBuffer,
			SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	if cfg.Connections == nil {
		cfg.Connections = NewConnections(cfg.MaxConnections, cfg.MaxPerAddress, cfg.TrustedProxies)
	}
	s.ConnState = cfg.Connections.state
	s.ConnContext = withConnection
	if s.MaxHeaderBytes <= 0 {
		s.MaxHeaderBytes = 64 << 10
	}
	if cfg.Log != nil {
		s.ErrorLog = slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	if cfg.Certificates == nil && (cfg.CertFile != "" || cfg.KeyFile != "") {
		var err error
		if cfg.Certificates, err = NewCertificates(cfg.CertFile, cfg.KeyFile, cfg.Log, nil); err != nil {
			return nil, fmt.Errorf("server: %w", err)
		}
	}
	if cfg.Certificates != nil {
		s.TLSConfig = &tls.Config{GetCertificate: cfg.Certificates.get, MinVersion: tls.VersionTLS12}
	}
	return s, nil
}
