// Package lightning calls lnd over gRPC. A seller uses it to make invoices and to receive the
// settled invoices. A buyer uses it to pay from a wallet.
//
// This is how a seller uses it:
//
//	c, err := lightning.Dial(lightning.Config{Address: "127.0.0.1:10009", TLSCert: cert, Macaroon: mac})
//	go c.Watch(ctx, sink)                // credits every settled invoice, for ever
//	invoice, err := c.AddInvoice(ctx, lightning.Invoice{Preimage: p, Amount: 21_000, Memo: memo, Expiry: time.Hour})
//
// This is how a buyer uses it:
//
//	payment, err := c.Pay(ctx, invoice, feeLimit, 30*time.Second)
//
// lnd may be unreachable at any time. Dial does not connect. Every call has a deadline and reports
// ErrUnavailable. Watch reconnects until its context ends. Watch gives each settled invoice to its
// Sink at least once, and the Sink makes sure that it counts only once.
package lightning

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"gopkg.in/macaroon.v2"
)

// DefaultTimeout bounds one call to lnd when Config.Timeout is zero.
const DefaultTimeout = 10 * time.Second

// maxMessage bounds one answer of lnd in bytes. gRPC's default of 4 MiB is too small for a page of
// invoices with many HTLCs each.
const maxMessage = 64 << 20

// Config says which lnd to call and with what rights.
type Config struct {
	// Address is lnd's gRPC address, host:port.
	Address string
	// TLSCert is lnd's tls.cert in PEM. Empty means the certificates that the system trusts, for an
	// lnd with a certificate of a public authority.
	TLSCert []byte
	// Macaroon is the binary macaroon. A seller needs invoices:read and invoices:write, which lnd's
	// invoice.macaroon has. Without info:read, Watch has to learn the node's key from an invoice. A
	// buyer needs offchain:read and offchain:write. The macaroon is a secret and never appears in
	// an error or a log.
	Macaroon []byte
	// Timeout bounds each call. Zero means DefaultTimeout.
	Timeout time.Duration
	// Log gets the messages of Watch. nil means slog.Default.
	Log *slog.Logger
}

// Client is a connection to one lnd. It is safe for concurrent use.
type Client struct {
	conn     *grpc.ClientConn
	ln       lnrpc.LightningClient
	router   routerrpc.RouterClient
	timeout  time.Duration
	log      *slog.Logger
	pace     pace
	ready    readiness
	watching atomic.Pointer[time.Time] // what Watching returns as since; nil while no subscription is live
}

// Dial prepares a client without connecting, so it succeeds while lnd cannot be reached. An error
// means that the configuration cannot work.
func Dial(cfg Config) (*Client, error) {
	if len(cfg.Macaroon) == 0 {
		return nil, errors.New("lnd: no macaroon given")
	}
	conn, err := Connect(cfg)
	if err != nil {
		return nil, err
	}
	c := &Client{
		conn:    conn,
		ln:      lnrpc.NewLightningClient(conn),
		router:  routerrpc.NewRouterClient(conn),
		timeout: cfg.Timeout,
		log:     cfg.Log,
		pace:    defaultPace(),
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	return c, nil
}

// Connect returns the plain gRPC connection that Dial uses. It is for services of lnd that Client
// does not offer. When cfg has no macaroon, the connection sends no credential, because the
// services of an lnd without a wallet need none.
func Connect(cfg Config) (*grpc.ClientConn, error) {
	if cfg.Address == "" {
		return nil, errors.New("lnd: no address given (host:port of its gRPC listener)")
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(cfg.TLSCert) > 0 {
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(cfg.TLSCert) {
			return nil, errors.New("lnd: the TLS certificate holds no PEM certificate (give lnd's tls.cert)")
		}
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
		// lnd permits pings every 5 s or slower. With these values a dead peer is noticed within 30
		// s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		// After lnd has come back, the client connects within 5 s.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	}
	if len(cfg.Macaroon) > 0 {
		var mac macaroon.Macaroon
		if err := mac.UnmarshalBinary(cfg.Macaroon); err != nil {
			return nil, errors.New("lnd: the macaroon is not a binary macaroon (give the file's bytes, or their base64 where the configuration asks for it)")
		}
		options = append(options, grpc.WithPerRPCCredentials(macaroonCredential(hex.EncodeToString(cfg.Macaroon))))
	}
	conn, err := grpc.NewClient(cfg.Address, options...)
	if err != nil {
		return nil, fmt.Errorf("lnd: address %q: %w", cfg.Address, err)
	}
	return conn, nil
}

// Close closes the connection and ends every call in flight.
func (c *Client) Close() error { return c.conn.Close() }

// deadline bounds one call by the client's timeout.
func (c *Client) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}

// macaroonCredential sends the macaroon, in hex, with each call. It is redacted wherever it is
// printed.
type macaroonCredential string

var _ credentials.PerRPCCredentials = macaroonCredential("")

func (m macaroonCredential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"macaroon": string(m)}, nil
}

// RequireTransportSecurity returns true, so that gRPC never sends the macaroon over an unencrypted
// connection.
func (macaroonCredential) RequireTransportSecurity() bool { return true }

func (macaroonCredential) String() string   { return "[macaroon redacted]" }
func (macaroonCredential) GoString() string { return "[macaroon redacted]" }
