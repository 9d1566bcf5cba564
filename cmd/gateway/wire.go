package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

func lightningConfig(cfg config.Lightning, log *slog.Logger) lightning.Config {
	return lightning.Config{Address: cfg.GRPC, TLSCert: cfg.TLSCert, Macaroon: []byte(cfg.Macaroon.Reveal()), Timeout: cfg.Timeout, Log: log}
}

// auditEvery returns how often the ledger audits itself. A negative value means never.
func auditEvery(cfg config.Audit) time.Duration {
	if cfg.Every == 0 {
		return -1
	}
	return cfg.Every
}

// fleetConfig returns the fleet's configuration. It makes the fleet's backends from the backends of
// cfg, with the feeds that read their load, and the fleet's pools from the models.
func fleetConfig(cfg *config.Config, r *reading, log *slog.Logger) (gpu.Config, error) {
	fleet := gpu.Config{Log: log}
	for i := range cfg.Backends {
		b := &cfg.Backends[i]
		backend := gpu.BackendConfig{
			Name: b.Name, URL: b.URL, APIKey: b.APIKey, KeyHeader: b.KeyHeader, Paths: b.ServerPaths(), Query: b.ServerQuery(),
			Slots: b.Slots, Weight: b.Weight, HealthEvery: b.Health.Every,
			ConnectTimeout: b.Timeouts.Connect, FirstByteTimeout: b.Timeouts.FirstByte,
			FirstEventTimeout: b.Timeouts.FirstEvent, IdleTimeout: b.Timeouts.Idle,
			Models: b.Models,
		}
		backend.HealthPath, backend.HealthFallback = b.HealthPaths()
		if err := r.bind(b, &backend); err != nil {
			return fleet, err
		}
		fleet.Backends = append(fleet.Backends, backend)
	}
	seen := map[string]bool{}
	for _, s := range cfg.Services {
		for _, m := range s.Models {
			if seen[m.Name] {
				continue
			}
			seen[m.Name] = true
			fleet.Pools = append(fleet.Pools, gpu.PoolConfig{Model: m.Name, Backends: m.Backends, QueueLimit: m.Queue.Limit, PerAccount: m.Queue.PerAccount,
				QueueTimeout: m.Queue.Timeout, NeedGPUTime: m.Prices.GPUSecond != 0 && m.GPUFallback == config.FallbackRefuse})
		}
	}
	return fleet, nil
}

// gatewayConfig adds the settings of the file to g, which holds the parts that are already built.
func gatewayConfig(cfg *config.Config, g gateway.Config) gateway.Config {
	for i := range cfg.Services {
		s := &cfg.Services[i]
		service := gateway.Service{
			Name: s.Name, Hosts: s.Hosts, MinPurchase: s.MinPurchase, MaxPurchase: s.MaxPurchase,
			TokenLifetime: s.TokenLifetime, ChargeCallOn4xx: s.ChargeCallOn4xx, ForwardHeaders: s.ForwardHeaders, Origins: s.CORS.Origins,
		}
		for j := range s.Models {
			m := &s.Models[j]
			service.Models = append(service.Models, gateway.Model{
				Name: m.Name, Aliases: m.Aliases, OwnedBy: m.OwnedBy, Formats: m.APIs, Base: m.Prices.Rates(), GPUSlice: m.GPUSlice,
				Limits: format.Limits{
					ContextTokens: m.ContextTokens, MaxCompletion: m.MaxCompletionTokens, MinCompletion: m.MinCompletionTokens,
					TemplateBase: m.TemplateTokens.Base, TemplatePerMessage: m.TemplateTokens.PerMessage, MediaTokens: m.MediaTokens, MaxItems: m.MaxItems,
				},
				Policy: m.Policy(s), SetHeaders: m.SetHeaders,
			})
		}
		g.Services = append(g.Services, service)
	}
	g.Profiles = profiles(cfg)
	g.ProductText = cfg.Lightning.Memo
	g.InvoiceExpiry, g.InvoiceTimeout, g.QuoteTTL = cfg.Lightning.InvoiceExpiry, cfg.Lightning.Timeout, cfg.QuoteTTL
	g.DrainTimeout = cfg.DrainTimeout
	l := cfg.Limits
	g.MaxInvoices, g.MaxBody, g.BodyTimeout, g.WriteStall = l.Invoices, int64(l.Body), l.BodyTimeout, l.WriteStall
	g.MaxEvent, g.UnaryHoldBack = int(l.Event), int(l.UnaryHold)
	g.MaxRequests, g.MaxBodies = l.Requests, int64(l.Bodies)
	g.Challenges = &intake.ChallengeLimits{
		Address: intake.Rate(l.Challenges.PerAddress), Subnet: intake.Rate(l.Challenges.PerSubnet),
		Network: intake.Rate(l.Challenges.PerNetwork), Total: intake.Rate(l.Challenges.Total), Account: intake.Rate(l.Challenges.PerAccount),
	}
	g.TrustedProxies, g.ForwardedHeader = cfg.TrustedProxies, cfg.ForwardedHeader
	g.AdminToken = cfg.Admin.Token.Reveal()
	return g
}

// profiles returns the settings of each backend that serves a model, by the backend's name.
func profiles(cfg *config.Config) map[string]format.Setting {
	settings := map[string]format.Setting{}
	for i := range cfg.Backends {
		b := &cfg.Backends[i]
		serves := func(m config.Model) bool { return slices.Contains(m.Backends, b.Name) }
		if slices.ContainsFunc(cfg.Services, func(s config.Service) bool { return slices.ContainsFunc(s.Models, serves) }) {
			settings[b.Name] = format.Setting{
				Engine: format.Engine(b.Engine.Name), Tokenize: b.Tokenize, ContinuousUsage: b.ContinuousUsage, CapField: b.CapField,
			}
		}
	}
	return settings
}

// invoicer makes the gateway's invoices at lnd.
type invoicer struct{ node *lightning.Client }

var _ gateway.Invoicer = invoicer{}

func (i invoicer) AddInvoice(ctx context.Context, inv gateway.Invoice) (string, error) {
	return i.node.AddInvoice(ctx, lightning.Invoice{Preimage: inv.Preimage, Amount: inv.Amount, Memo: inv.Memo, Expiry: inv.Expiry})
}

func (i invoicer) Ready(ctx context.Context) error { return i.node.Ready(ctx) }

// sink credits the invoices that the Lightning node reports as settled.
type sink struct {
	*metering.Reader // for the method Born
	ledger           *metering.Ledger
	keys             atomic.Pointer[l402.Keyring] // in force
	log              *slog.Logger
}

var _ lightning.Sink = (*sink)(nil)

// Cursor returns how many settled invoices of a node were processed. known is false for a node
// without a cursor.
func (s *sink) Cursor(ctx context.Context, node string) (c lightning.Cursor, known bool, err error) {
	row, known, err := s.Reader.Cursor(ctx, node)
	return lightning.Cursor{Index: row.Index, Hash: row.Hash}, known, err
}

// Restart replaces the cursor of a node whose history began anew.
func (s *sink) Restart(ctx context.Context, node string, c lightning.Cursor) error {
	return s.ledger.AdvanceCursor(ctx, metering.CursorRow{Node: node, Index: c.Index, Hash: c.Hash}, true)
}

// owner returns the account that an invoice pays for. It returns zero when the invoice is not from
// this ledger.
func (s *sink) owner(inv lightning.SettledInvoice) l402.TokenID {
	account, err := s.keys.Load().OpenMemo(gateway.SealedMemo(inv.Memo), inv.Hash, inv.Amount)
	if err != nil {
		return l402.TokenID{}
	}
	return account
}

// Settled credits an invoice of this ledger. Its memo proves that, because only the ledger's keys
// can have sealed the memo for that payment hash and amount. Any other invoice on the same node
// only moves the cursor.
func (s *sink) Settled(ctx context.Context, inv lightning.SettledInvoice) error {
	account := s.owner(inv)
	if account == (l402.TokenID{}) {
		return s.ledger.AdvanceCursor(ctx, metering.CursorRow{Node: inv.Node, Index: inv.Cursor.Index, Hash: inv.Cursor.Hash}, false)
	}
	_, err := s.ledger.CreditSettled(ctx, metering.Settled{
		Deposit: metering.Deposit{Hash: inv.Hash, Account: account, Amount: inv.Paid},
		Node:    inv.Node, Index: inv.Cursor.Index, Cursor: inv.Cursor.Hash, At: inv.At,
	})
	if errors.Is(err, metering.ErrForeignDeposit) || errors.Is(err, metering.ErrAmount) {
		// The ledger has counted the invoice and moved the cursor. Another attempt would fail in
		// the same way.
		s.log.Error("settled invoice cannot be credited", "payment_hash", inv.Hash.String(), "amount_msat", int64(inv.Paid), "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("credit %s: %w", inv.Hash, err)
	}
	return nil
}
