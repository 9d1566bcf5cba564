package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"sluice.example/sluice/internal/devnet"
	"sluice.example/sluice/internal/lightning"
	"sluice.example/sluice/l402"
)

// challengesRow is the result for one number of callers. Its values are medians over rounds.
type challengesRow struct {
	Callers    int           `json:"callers"`
	Challenges float64       `json:"challenges_per_second"`
	P50        time.Duration `json:"p50_ns"`
	P99        time.Duration `json:"p99_ns"`
	Invoices   float64       `json:"invoices_per_second"` // calls of AddInvoice without a gateway
	InvoiceP50 time.Duration `json:"invoice_p50_ns"`
	InvoiceP99 time.Duration `json:"invoice_p99_ns"`
	Ratio      float64       `json:"ratio"`
	RatioLow   float64       `json:"ratio_lowest"`
	RatioHigh  float64       `json:"ratio_highest"`
	CPU        time.Duration `json:"cpu_ns_per_challenge"` // CPU time of the gateway
}

// invoicesPlan describes a load of many callers that only call AddInvoice.
type invoicesPlan struct {
	Lightning lightning.Config
	Callers   int
	Warm, For time.Duration
}

// runInvoices is the process that calls AddInvoice.
func runInvoices(ctx context.Context, plan []byte, tell func(any) error) error {
	var p invoicesPlan
	if err := json.Unmarshal(plan, &p); err != nil {
		return err
	}
	client, err := lightning.Dial(p.Lightning)
	if err != nil {
		return err
	}
	defer client.Close()
	// The memo is as long as a gateway's memo, which has a product text and a sealed token id.
	memo := fmt.Sprintf("prepaid credit for API calls %0108d", 0)
	begin := time.Now().Add(p.Warm)
	end := begin.Add(p.For)
	took := make([][]time.Duration, p.Callers)
	errs := make([]error, p.Callers)
	var wg sync.WaitGroup
	for i := range p.Callers {
		wg.Go(func() {
			for start := time.Now(); start.Before(end); start = time.Now() {
				_, err := client.AddInvoice(ctx, lightning.Invoice{Preimage: l402.NewPreimage(), Amount: 100 * l402.MsatPerSat, Memo: memo, Expiry: 10 * time.Minute})
				if err != nil {
					errs[i] = err
					return
				}
				if now := time.Now(); !now.Before(begin) && now.Before(end) {
					took[i] = append(took[i], now.Sub(start))
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var all []time.Duration
	for _, t := range took {
		all = append(all, t...)
	}
	r := loadResult{Requests: len(all), Elapsed: p.For}
	r.P50, r.P99 = quantiles(all)
	return tell(r)
}

// measureChallenges compares the rate of 402 answers with the rate of invoices, on one real lnd.
// Each 402 answer needs one invoice.
func measureChallenges(ctx context.Context, s *site, o options, r *report) error {
	network, err := devnet.Start(ctx, devnet.Config{Dir: s.path("devnet"), Out: io.Discard})
	if err != nil {
		return err
	}
	defer network.Stop() // an error of Stop does not affect the results
	seller, err := network.Gateway.SellerConfig()
	if err != nil {
		return err
	}
	backend, err := s.serve(ctx, "backend", backendPlan{Every: time.Second})
	if err != nil {
		return err
	}
	gw, err := s.serve(ctx, "gateway", gatewayPlan{Store: s.path("challenges.db"), Backend: backend.Addr, Lightning: &seller, Profile: o.profile != ""})
	if err != nil {
		return err
	}
	t := target{name: "gateway, challenges", server: gw, processes: []int{gw.process.Pid()}}
	for _, callers := range []int{8, 64} {
		var challenges, bare []loadResult
		for range o.rounds {
			c, err := s.load(ctx, t, loadPlan{Body: unaryBody, Conns: callers, Warm: o.round / 3, For: o.round, Status: http.StatusPaymentRequired})
			if err != nil {
				return err
			}
			var b loadResult
			plan := invoicesPlan{Lightning: seller, Callers: callers, Warm: o.round / 3, For: o.round}
			if err := s.work(ctx, "invoices", plan, time.Minute, &b); err != nil {
				return err
			}
			challenges, bare = append(challenges, c), append(bare, b)
		}
		r.Challenges = append(r.Challenges, sumChallenges(callers, challenges, bare))
	}
	if o.profile != "" {
		if err := s.profile(ctx, t, o.profile, loadPlan{Body: unaryBody, Conns: 64, Status: http.StatusPaymentRequired}); err != nil {
			return err
		}
	}
	return errors.Join(s.stop(gw.process), s.stop(backend.process))
}

func sumChallenges(callers int, challenges, bare []loadResult) challengesRow {
	made, alone := paidRow{rounds: challenges}, paidRow{rounds: bare}
	made.sum(bare)
	alone.sum(bare)
	return challengesRow{Callers: callers, Challenges: made.PerSecond, P50: made.P50, P99: made.P99,
		Invoices: alone.PerSecond, InvoiceP50: alone.P50, InvoiceP99: alone.P99,
		Ratio: made.Ratio, RatioLow: made.RatioLow, RatioHigh: made.RatioHigh, CPU: made.CPU}
}
