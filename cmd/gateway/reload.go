package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/catalog"
	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/l402"
)

var _ catalog.Applier = (*server)(nil)

// Prepare checks another configuration with all parts of the server and returns a function that
// puts it in force. The caller has checked that the file is correct and changes nothing that a
// running gateway cannot change.
func (s *server) Prepare(next *config.Config) (commit func(), err error) {
	reading := s.sensors.plan(next)
	wanted, err := fleetConfig(next, reading, s.log)
	if err != nil {
		return nil, err
	}
	plan, err := s.fleet.Prepare(wanted)
	if err != nil {
		return nil, err
	}
	models := pricedModels(next)
	if err := s.pricer.Check(models); err != nil {
		return nil, err
	}
	keys, err := s.keyring(next)
	if err != nil {
		return nil, err
	}
	swap, err := s.gateway.Prepare(gatewayConfig(next, gateway.Config{Keys: keys, Feeds: reading.list()}), plan.Pool)
	if err != nil {
		return nil, err
	}
	return func() {
		before := s.sensors.use(reading)
		leaving := plan.Commit()
		// On an error of the store, the pricer reads the prices at its next turn.
		_ = s.pricer.Change(context.Background(), models)
		swap()
		s.sink.keys.Store(keys)
		s.reloadCertificate(next.TLS)
		s.level.Set(next.Log.Level)
		for _, c := range s.connections {
			c.Limit(next.Limits.Connections, next.Limits.PerAddress, next.TrustedProxies)
		}
		s.gateway.CutLeft(next.DrainTimeout, leaving...)
		s.follow(leaving, before)
	}, nil
}

// follow finishes a change while the gateway serves. It asks new backends for their properties. It
// stops the feeds of the removed backends once those backends have no calls left.
func (s *server) follow(leaving []*gpu.Backend, before *reading) {
	if s.working == nil {
		return
	}
	s.background.Go(func() { s.gateway.Probe(s.working) })
	s.background.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for slices.ContainsFunc(leaving, func(b *gpu.Backend) bool { return !b.Gone() }) {
			select {
			case <-s.working.Done():
				return
			case <-tick.C:
			}
		}
		s.sensors.retire(before)
	})
}

// keyring returns the keyring in force when the keys did not change. Otherwise it returns a new
// keyring that is bound to the ledger.
func (s *server) keyring(next *config.Config) (*l402.Keyring, error) {
	now := s.live.Current().Config
	if slices.Equal(now.MasterKeys(), next.MasterKeys()) {
		return s.sink.keys.Load(), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	return bindKeys(ctx, next, s.ledger)
}

// reloadCertificate reads the TLS certificate again at each reload, whatever the reason of the
// reload. A configuration with a wrong certificate was refused before.
func (s *server) reloadCertificate(t config.TLS) {
	if s.certs == nil {
		return
	}
	if err := s.certs.Use(t.Cert, t.Key); err != nil {
		s.log.Error("the TLS certificate stays what it was", "error", err)
	}
}

// above lists what the operator changed over the admin API. Such a change overrides the file until
// the operator resets it.
func (s *server) above() (lines []string) {
	for _, m := range pricedModels(s.live.Current().Config) {
		if standing, ok := s.board.Standing(m.Name); ok && standing.Fixed > 0 {
			lines = append(lines, fmt.Sprintf("price of model %s is fixed at %g times the rate card; POST /admin/prices with multiplier 0 resets it", m.Name, standing.Fixed))
		}
	}
	for _, name := range s.fleet.Drained() {
		lines = append(lines, fmt.Sprintf("backend %s is drained; POST /admin/backends with drain false resets it", name))
	}
	return lines
}

// operator answers the requests of the admin API about the configuration.
type operator struct{ live *catalog.Live }

var _ gateway.Operator = operator{}

func (o operator) Reload(context.Context) (any, error) { return o.live.Reload("admin") }
func (o operator) Compare(file []byte) (any, error)    { return o.live.Compare(file) }

func (o operator) Status() gateway.ConfigStatus {
	now, s := o.live.Current(), o.live.Status()
	status := gateway.ConfigStatus{File: o.live.Path(), Generation: now.Generation, Since: now.Since, Watched: now.Config.Watch,
		Succeeded: s.Succeeded, Refused: s.Refused, SuccessAt: s.SuccessAt, Above: o.live.Above()}
	for _, c := range s.Changes {
		status.Changes = append(status.Changes, c.String())
	}
	if s.Last != nil {
		status.Last = &gateway.ReloadStatus{At: s.Last.At, Trigger: s.Last.Trigger, OK: s.Last.Err == nil}
		if s.Last.Err != nil {
			status.Last.Error = s.Last.Err.Error()
		}
	}
	return status
}
