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

// pricerConfig maps the models to the pricer's. work is asked once the pricer
// runs.
func pricerConfig(cfg *config.Config, record *pricer.Record, board *pricing.Board, fleet *gpu.Fleet, work func(model string) float64, log *slog.Logger) pricer.Config {
	return pricer.Config{Models: pricedModels(cfg), Record: record, Board: board, Replica: replicaName(), Log: log, Work: work,
		Load: func(model string, now time.Time) pricing.Load { return poolLoad(fleet.Pool(model), now) }}
}

// pricedModels are the models as they are priced.
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

// replicaName tells this process from others on the same ledger, and from the
// one before it on the same host.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "gateway"
	}
	return host[:min(len(host), 64)] + "-" + rand.Text()[:8]
}

// poolLoad is the load of a pool; nil: its model goes in this moment.
func poolLoad(p *gpu.Pool, now time.Time) pricing.Load {
	if p == nil {
		return pricing.Load{KV: math.NaN(), SM: math.NaN(), Utilization: math.NaN(), Energy: math.NaN(), Stale: true}
	}
	return p.Load(now)
}
