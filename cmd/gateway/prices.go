package main

import (
	"crypto/rand"
	"log/slog"
	"math"
	"os"
	"time"

	"sluice.example/sluice/backends/gpu"
	"sluice.example/sluice/internal/config"
	"sluice.example/sluice/internal/pricer"
	"sluice.example/sluice/pricing"
)

// pricerConfig returns the pricer's configuration for the models of cfg. The pricer calls work only
// when it runs.
func pricerConfig(cfg *config.Config, record *pricer.Record, board *pricing.Board, fleet *gpu.Fleet, work func(model string) float64, log *slog.Logger) pricer.Config {
	return pricer.Config{Models: pricedModels(cfg), Record: record, Board: board, Replica: replicaName(), Log: log, Work: work,
		Load: func(model string, now time.Time) pricing.Load { return poolLoad(fleet.Pool(model), now) }}
}

// pricedModels returns the models of all services with what the pricer needs about them.
func pricedModels(cfg *config.Config) (models []pricer.Model) {
	for _, s := range cfg.Services {
		for _, m := range s.Models {
			model := pricer.Model{Name: m.Name, Base: m.Prices.Rates(), Params: m.Pricing.Params,
				Energy: pricer.Energy{SatPerKWh: m.Pricing.Energy.SatPerKWh, Overhead: m.Pricing.Energy.Overhead},
				Hook:   pricer.Hook{Command: m.Pricing.Hook.Command, URL: m.Pricing.Hook.URL, Timeout: m.Pricing.Hook.Timeout}}
			if m.Pricing.Shadow != nil {
				model.Shadow = &m.Pricing.Shadow.Params
			}
			models = append(models, model)
		}
	}
	return models
}

// replicaName returns a name for this process. It differs from the names of other processes on the
// same ledger and of earlier processes on the same host.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "gateway"
	}
	return host[:min(len(host), 64)] + "-" + rand.Text()[:8]
}

// poolLoad returns the load of a pool. p is nil when the pool's model was just removed from the
// configuration. The load then has no values and is stale.
func poolLoad(p *gpu.Pool, now time.Time) pricing.Load {
	if p == nil {
		return pricing.Load{KV: math.NaN(), SM: math.NaN(), Utilization: math.NaN(), Energy: math.NaN(), Stale: true}
	}
	return p.Load(now)
}
