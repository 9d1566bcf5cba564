package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/catalog"
	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/internal/gateway/intake"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/internal/quiet"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/pricing"
)

// closeGrace bounds the work after the drain: writing the ledger's queue.
const closeGrace = 10 * time.Second

// gcPercent is GOGC unless the environment sets GOGC. At the default of 100 a busy gateway spends a
// tenth of its time on garbage collection. At 200 it spends half of that.
const gcPercent = 200

func serve(e env, set *pflag.FlagSet) cli.Run {
	path := set.String("config", "", "configuration `FILE` (required)")
	return func(ctx context.Context, _ []string) error {
		cfg, err := loadConfig(e, *path)
		if err != nil {
			return err
		}
		if e.getenv("GOGC") == "" {
			debug.SetGCPercent(gcPercent)
		}
		level := new(slog.LevelVar)
		log := newLogger(e, cfg.Log, level)
		for _, w := range cfg.Warnings {
			log.Warn("configuration", "warning", w)
		}
		// From here on SIGHUP does not end the process. The gateway reloads its configuration for
		// it once the gateway serves.
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		s, err := newServer(ctx, origin{path: *path, getenv: e.getenv, first: cfg}, log, level)
		if err != nil {
			return err
		}
		s.hangups = hangups
		return s.run(ctx)
	}
}

func loadConfig(e env, path string) (*config.Config, error) {
	if path == "" {
		return nil, errors.New("name the configuration file with --config FILE")
	}
	cfg, err := config.Load(path, e.getenv)
	if err != nil {
		return nil, fmt.Errorf("configuration %w", err)
	}
	return cfg, nil
}

// newLogger returns a logger that writes to stderr. A warning that repeats is counted instead of
// written again. Durations are written as text such as 1.5s in both formats, because JSON would
// otherwise have a plain number of nanoseconds. newLogger sets level, and the caller may change
// level later.
func newLogger(e env, cfg config.Log, level *slog.LevelVar) *slog.Logger {
	level.Set(cfg.Level)
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if cfg.Format == "json" {
		return slog.New(quiet.New(slog.NewJSONHandler(e.stderr, options)))
	}
	return slog.New(quiet.New(slog.NewTextHandler(e.stderr, options)))
}

// server has all parts of one `gateway serve`.
type server struct {
	cfg     *config.Config // the configuration at the start, for the settings that cannot change
	live    *catalog.Live  // the configuration in force, for the settings that can change
	log     *slog.Logger
	level   *slog.LevelVar
	board   *pricing.Board
	store   store
	ledger  *metering.Ledger
	node    *lightning.Client
	sensors *sensors
	fleet   *gpu.Fleet
	pricer  *pricer.Pricer
	gateway *gateway.Gateway
	sink    *sink
	certs   *intake.Certificates // nil: no TLS
	hangups <-chan os.Signal     // delivers SIGHUP; nil: no signal is delivered

	connections []*intake.Connections // the connections of each listener
	working     context.Context       // ends when the gateway has drained; nil: the server does not run
	background  sync.WaitGroup        // the goroutines that run as long as working
}

// origin says where the configuration comes from.
type origin struct {
	path   string
	getenv func(string) string
	first  *config.Config // the configuration as it was first read
}

// newServer opens the store and builds the parts. It connects only to the store, so lnd and the
// backends need not be reachable.
func newServer(ctx context.Context, from origin, log *slog.Logger, level *slog.LevelVar) (_ *server, err error) {
	cfg := from.first
	s := &server{cfg: cfg, log: log, level: level, board: new(pricing.Board)}
	s.live = catalog.New(catalog.Config{Path: from.path, Getenv: from.getenv, First: cfg, Apply: s, Above: s.above, Log: log})
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.store, err = openStore(ctx, cfg.Store, log); err != nil {
		return nil, err
	}
	tellPromises(ctx, s.store, log)
	s.ledger, err = metering.Open(ctx, metering.Config{
		Store: s.store, Lease: cfg.Ledger.Lease, RenewEvery: cfg.Ledger.Renew,
		MaxBudgetsPerAccount: cfg.Ledger.MaxBudgets, MaxBudgetsPerBudget: cfg.Ledger.MaxSubBudgets,
		ConfirmWithin: cfg.Ledger.ConfirmWithin, AuditEvery: auditEvery(cfg.Audit), SealMonths: cfg.Audit.Seal == config.SealMonthly,
		Log: log,
	})
	if err != nil {
		return nil, err
	}
	keys, err := bindKeys(ctx, cfg, s.ledger)
	if err != nil {
		return nil, err
	}
	if s.node, err = lightning.Dial(lightningConfig(cfg.Lightning, log)); err != nil {
		return nil, err
	}
	s.sink = &sink{Reader: s.ledger.Reader, ledger: s.ledger, log: log}
	s.sink.keys.Store(keys)
	if err := s.buildFleet(); err != nil {
		return nil, err
	}
	prices := pricer.NewRecord(s.store)
	work := func(model string) float64 { return float64(s.gateway.Work(model)) }
	priced := pricerConfig(cfg, prices, s.board, s.fleet, work, log)
	priced.Moved = func(ctx context.Context, e pricing.Epoch) { s.gateway.PriceMoved(ctx, e) }
	if s.pricer, err = pricer.New(priced); err != nil {
		return nil, err
	}
	s.gateway, err = gateway.New(gatewayConfig(cfg, gateway.Config{
		Ledger: s.ledger, Keys: keys, Board: s.board, Prices: prices, Fleet: s.fleet, Feeds: s.sensors.before().list(), Invoices: invoicer{s.node},
		Operator: operator{s.live}, Override: s.pricer.Override, Version: buildVersion(), Log: log,
	}))
	if err != nil {
		return nil, err
	}
	return s, s.pricer.Open(ctx)
}

func (s *server) doubts() *doubts {
	return &doubts{ledger: s.ledger, node: s.node, sink: s.sink, grace: s.cfg.Ledger.ConfirmWithin, expiry: s.cfg.Lightning.InvoiceExpiry, log: s.log}
}

// buildFleet makes the fleet and the sensors that read its load.
func (s *server) buildFleet() error {
	s.sensors = newSensors(s.cfg, s.log)
	reading := s.sensors.plan(s.cfg)
	fleet, err := fleetConfig(s.cfg, reading, s.log)
	if err != nil {
		return err
	}
	s.sensors.use(reading)
	s.fleet, err = gpu.NewFleet(fleet)
	return err
}

// bindKeys builds the keyring and checks that the keys and the database belong together.
func bindKeys(ctx context.Context, cfg *config.Config, ledger *metering.Ledger) (*l402.Keyring, error) {
	if pin := cfg.Ledger.ID; pin != (l402.LedgerID{}) && pin != ledger.ID() {
		return nil, fmt.Errorf("the configuration names ledger %s, but this database holds ledger %s: point it to the right database", pin, ledger.ID())
	}
	masters := cfg.MasterKeys()
	keys, err := l402.NewKeyring(ledger.ID(), masters)
	if err != nil {
		return nil, err
	}
	var fingerprints [][32]byte
	for _, m := range masters {
		fingerprints = append(fingerprints, m.Fingerprint(ledger.ID()))
	}
	if err := ledger.BindKeys(ctx, fingerprints); err != nil {
		if errors.Is(err, metering.ErrForeignKeys) {
			err = fmt.Errorf("%w: use the keys that this database was made with, or the database that belongs to these keys", err)
		}
		return nil, err
	}
	return keys, nil
}

// run serves until ctx ends, then drains the gateway.
func (s *server) run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.working = working
	s.fleet.Start(working)
	s.sensors.run(working)
	s.background.Go(func() { s.pricer.Run(working) })
	s.background.Go(func() { _ = s.node.Watch(working, s.sink) }) // Watch only ends when its context ends
	s.background.Go(func() { s.doubts().run(working) })
	s.background.Go(func() { s.gateway.Probe(working) })
	defer func() {
		stop()
		s.background.Wait()
	}()
	servers, failed, err := s.listen()
	if err != nil {
		return err
	}
	s.log.Info("serving", "listen", s.cfg.Listen, "tls", s.cfg.TLS.Enabled(), "admin", s.cfg.Admin.Listen, "ledger", s.ledger.ID().String(), "version", buildVersion())
	s.background.Go(func() { s.live.Watch(ctx) })
	err = s.wait(ctx, failed)
	limit, cancel := context.WithTimeout(working, s.live.Current().Config.DrainTimeout)
	defer cancel()
	return errors.Join(err, s.gateway.Drain(limit, servers...))
}

// wait returns nil when ctx ends, and an error when a listener failed.
func (s *server) wait(ctx context.Context, failed <-chan error) error {
	for {
		select {
		case <-ctx.Done():
			s.log.Info("shutting down: finishing open answers", "at_most", s.live.Current().Config.DrainTimeout)
			return nil
		case err := <-failed:
			return err
		case <-s.hangups:
			_, _ = s.live.Reload("SIGHUP") // the log and the status report the result
		}
	}
}

// listen opens both listeners and serves them. failed delivers the error of a listener that ended
// before it was shut down.
func (s *server) listen() (servers []*http.Server, failed <-chan error, err error) {
	errs := make(chan error, 2)
	if s.cfg.TLS.Enabled() {
		if s.certs, err = intake.NewCertificates(s.cfg.TLS.Cert, s.cfg.TLS.Key, s.log, nil); err != nil {
			return nil, nil, err
		}
	}
	for _, l := range []struct {
		addr    string
		handler http.Handler
		certs   *intake.Certificates
	}{
		{s.cfg.Listen, s.gateway.Handler(), s.certs},
		{s.cfg.Admin.Listen, s.gateway.AdminHandler(), nil},
	} {
		limits := intake.NewConnections(s.cfg.Limits.Connections, s.cfg.Limits.PerAddress, s.cfg.TrustedProxies)
		server, err := intake.NewServer(intake.ServerConfig{
			Handler: l.handler, Certificates: l.certs, Log: s.log, Connections: limits,
			ReadHeaderTimeout: s.cfg.Limits.HeaderTimeout, IdleTimeout: s.cfg.Limits.IdleTimeout, MaxHeaderBytes: int(s.cfg.Limits.Headers),
		})
		if err != nil {
			return nil, nil, err
		}
		s.connections = append(s.connections, limits)
		listener, err := net.Listen("tcp", l.addr)
		if err != nil {
			return nil, nil, fmt.Errorf("listen: %w", err)
		}
		servers = append(servers, server)
		go func() {
			var err error
			if l.certs != nil {
				err = server.ServeTLS(listener, "", "")
			} else {
				err = server.Serve(listener)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				errs <- fmt.Errorf("serve %s: %w", l.addr, err)
			}
		}()
	}
	return servers, errs, nil
}

// close closes the parts that newServer made, also when newServer failed halfway.
func (s *server) close() error {
	var errs []error
	if s.fleet != nil {
		s.fleet.Close()
	}
	if s.sensors != nil {
		s.sensors.close()
	}
	if s.node != nil {
		errs = append(errs, s.node.Close())
	}
	if s.ledger != nil {
		limit, cancel := context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
		errs = append(errs, s.ledger.Close(limit))
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

func checkConfig(e env, _ *pflag.FlagSet) cli.Run {
	return func(_ context.Context, args []string) error {
		cfg, err := loadConfig(e, args[0])
		if err != nil {
			return err
		}
		models := 0
		for _, s := range cfg.Services {
			models += len(s.Models)
		}
		for _, w := range cfg.Warnings {
			fmt.Fprintf(e.stdout, "warning: %s\n", w)
		}
		fmt.Fprintf(e.stdout, "%s is fine: %d services, %d models, %d backends\n", args[0], len(cfg.Services), models, len(cfg.Backends))
		return nil
	}
}

// executable returns the path of this program, which the demo starts for its child processes.
func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return path, nil
}
