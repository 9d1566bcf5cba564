// Package lightning speaks to lnd over gRPC: it sells (invoices and the stream
// of settled ones) and it buys (payments from a wallet).
//
// The seller's happy path:
//
//	c, err := lightning.Dial(lightning.Config{Address: "127.0.0.1:10009", TLSCert: cert, Macaroon: mac})
//	go c.Watch(ctx, sink)                // credits every settled invoice, for ever
//	invoice, err := c.AddInvoice(ctx, lightning.Invoice{Preimage: p, Amount: 21_000, Memo: memo, Expiry: time.Hour})
//
// and the buyer's:
//
//	payment, err := c.Pay(ctx, invoice, feeLimit, 30*time.Second)
//
// lnd being away is an everyday state: Dial does not connect, every call has a
// deadline and reports ErrUnavailable, and Watch reconnects until its context
// ends. Watch hands over each settled invoice at least once; its Sink makes
// that exactly once.
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

// DefaultTimeout bounds one call to lnd unless Config.Timeout says otherwise.
const DefaultTimeout = 10 * time.Second

// maxMessage bounds one answer of lnd in bytes. A page of invoices with many
// HTLCs each passes gRPC's default of 4 MiB.
const maxMessage = 64 << 20

// Config says which lnd to speak to and with what rights.
type Config struct {
	// Address is lnd's gRPC listener, host:port.
	Address string
	// TLSCert is lnd's tls.cert in PEM. Empty means the system's roots, for
	// an lnd behind a certificate of a public authority.
	TLSCert []byte
	// Macaroon is the binary macaroon. Selling needs invoices:read and
	// invoices:write (lnd's invoice.macaroon has them); info:read spares the
	// detour by which Watch learns the node's key. Paying needs offchain
	// rights. It is a secret and never reaches an error or a log.
	Macaroon []byte
	// Timeout bounds each call; DefaultTimeout when zero.
	Timeout time.Duration
	// Log takes what Watch has to say; slog.Default when nil.
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
	watching atomic.Pointer[time.Time] // what Watching returns as since; nil while it is not live
}

// Dial prepares a client without connecting, so it succeeds while lnd is away;
// an error means that the configuration cannot work.
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

// Connect prepares the bare connection that Dial builds on, for services of
// lnd that Client does not offer. Without a macaroon it carries no credential,
// as the services of an lnd without a wallet need none.
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
		// lnd answers pings from 5 s on; a dead peer is noticed in 30 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		// An lnd that comes back is found within 5 s.
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

// Close ends the connection and with it every call in flight.
func (c *Client) Close() error { return c.conn.Close() }

// deadline bounds one call by the client's timeout.
func (c *Client) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeout)
}

// macaroonCredential sends the macaroon, in hex, with each call. It prints
// nothing of itself.
type macaroonCredential string

var _ credentials.PerRPCCredentials = macaroonCredential("")

func (m macaroonCredential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"macaroon": string(m)}, nil
}

// RequireTransportSecurity keeps the macaroon off unencrypted connections.
func (macaroonCredential) RequireTransportSecurity() bool { return true }

func (macaroonCredential) String() string   { return "[macaroon redacted]" }
func (macaroonCredential) GoString() string { return "[macaroon redacted]" }
