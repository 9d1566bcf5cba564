package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// target is one way to reach the backend.
type target struct {
	name        string
	server      *server
	credentials string // file; targets other than the gateway get credentials too, so that requests are alike
	accounts    int
	processes   []int // processes that do the target's work
}

const (
	nameDirect = "backend, direct"
	nameProxy  = "ReverseProxy, well tuned"
)

// paidRow is the result for one target and one number of connections. Its values are medians over
// rounds.
type paidRow struct {
	Target      string        `json:"target"`
	Connections int           `json:"connections"`
	PerSecond   float64       `json:"requests_per_second"`
	P50         time.Duration `json:"p50_ns"`
	P99         time.Duration `json:"p99_ns"`
	Ratio       float64       `json:"ratio_to_reverse_proxy"` // median of the ratios within each round
	RatioLow    float64       `json:"ratio_lowest"`
	RatioHigh   float64       `json:"ratio_highest"`
	CPU         time.Duration `json:"cpu_ns_per_request"` // of the target, with PostgreSQL's and without the backend's
	Generator   time.Duration `json:"generator_cpu_ns_per_request"`
	rounds      []loadResult
}

// measurePaid compares a paid, metered request with an unpaid request that nothing meters.
func measurePaid(ctx context.Context, s *site, o options, r *report) error {
	backend, err := s.serve(ctx, "backend", backendPlan{Events: 1, Every: time.Second})
	if err != nil {
		return err
	}
	targets, gateways, err := s.paidTargets(ctx, backend, o, r)
	if err != nil {
		return err
	}
	for _, conns := range o.conns {
		rows := make([]paidRow, len(targets))
		for range o.rounds {
			for i, t := range targets {
				result, err := s.load(ctx, t, loadPlan{Body: unaryBody, Conns: conns, Warm: o.round / 6, For: o.round, Status: http.StatusOK})
				if err != nil {
					return fmt.Errorf("%s, %d connections: %w", t.name, conns, err)
				}
				rows[i].rounds = append(rows[i].rounds, result)
			}
		}
		base := rows[slices.IndexFunc(targets, func(t target) bool { return t.name == nameProxy })].rounds
		for i := range rows {
			rows[i].Target, rows[i].Connections = targets[i].name, conns
			rows[i].sum(base)
		}
		r.Paid = append(r.Paid, rows...)
	}
	if o.profile != "" {
		for _, t := range targets[len(targets)-2*len(gateways):] {
			if err := s.profile(ctx, t, o.profile, loadPlan{Body: unaryBody, Conns: slices.Max(o.conns), Status: http.StatusOK}); err != nil {
				return err
			}
		}
	}
	for _, t := range append([]target{{server: backend}}, targets...) {
		if err := s.stop(t.server.process); err != nil {
			return err
		}
	}
	return nil
}

// paidTargets starts all targets. The gateways come last. Each gateway is two targets: one with one
// account and one with a thousand accounts.
func (s *site) paidTargets(ctx context.Context, backend *server, o options, r *report) (targets []target, gateways []*server, err error) {
	add := func(name string, srv *server, processes ...int) *target {
		targets = append(targets, target{name: name, server: srv, accounts: 1, processes: append(processes, srv.process.Pid())})
		return &targets[len(targets)-1]
	}
	add(nameDirect, backend)
	proxy, err := s.serve(ctx, "proxy", proxyPlan{Backend: backend.Addr})
	if err != nil {
		return nil, nil, err
	}
	add(nameProxy, proxy)
	nginx, err := s.nginx(ctx, backend.Addr)
	if err != nil {
		return nil, nil, err
	}
	if nginx != nil {
		add("nginx proxy_pass", nginx)
	} else {
		r.note("nginx is not installed, so there is no row for it.")
	}
	pg, err := s.freshDatabase(ctx, "paid")
	if err != nil {
		return nil, nil, err
	}
	for _, g := range []struct {
		name, store string
		processes   []int
	}{{"SQLite", s.path("paid.db"), nil}, {"PostgreSQL", pg, []int{s.database.Pid()}}} {
		credentials := s.path("credentials-" + g.name)
		srv, err := s.serve(ctx, "gateway", gatewayPlan{Store: g.store, Backend: backend.Addr, Accounts: 1000, Credentials: credentials, Profile: o.profile != ""})
		if err != nil {
			return nil, nil, err
		}
		gateways = append(gateways, srv)
		for _, n := range []int{1, 1000} {
			t := add(fmt.Sprintf("gateway, %s, %d %s", g.name, n, plural(n, "account")), srv, g.processes...)
			t.credentials, t.accounts = credentials, n
		}
		all := targets[len(targets)-1]
		if _, err := s.load(ctx, all, loadPlan{Body: unaryBody, Conns: 8, Once: true, Status: http.StatusOK}); err != nil {
			return nil, nil, fmt.Errorf("fund the accounts of %s: %w", all.name, err)
		}
	}
	for i := range targets {
		if targets[i].credentials == "" {
			targets[i].credentials = s.path("credentials-SQLite")
		}
	}
	return targets, gateways, nil
}

// load runs one round against a target.
func (s *site) load(ctx context.Context, t target, p loadPlan) (r loadResult, err error) {
	p.Addr, p.Credentials, p.Accounts, p.Processes = t.server.Addr, t.credentials, t.accounts, t.processes
	err = s.work(ctx, "load", p, p.Warm+p.For+time.Minute, &r)
	return r, err
}

// sum computes the medians over the rounds. The ratios are to the rounds of base.
func (row *paidRow) sum(base []loadResult) {
	var rates, ratios []float64
	var p50, p99, cpu, generator []time.Duration
	for i, r := range row.rounds {
		n := time.Duration(max(r.Requests, 1))
		rates = append(rates, r.perSecond())
		ratios = append(ratios, r.perSecond()/max(base[i].perSecond(), 1))
		p50, p99 = append(p50, r.P50), append(p99, r.P99)
		cpu, generator = append(cpu, r.CPU/n), append(generator, r.Generator/n)
	}
	row.PerSecond, row.P50, row.P99 = median(rates), median(p50), median(p99)
	row.CPU, row.Generator = median(cpu), median(generator)
	row.Ratio, row.RatioLow, row.RatioHigh = median(ratios), slices.Min(ratios), slices.Max(ratios)
}

// perSecond returns the requests per second.
func (r loadResult) perSecond() float64 { return float64(r.Requests) / max(r.Elapsed.Seconds(), 1e-9) }

func median[T ~float64 | ~int64](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// profile sends load to a gateway and saves profiles: the use of the CPU, the waits for locks, and
// the allocations.
func (s *site) profile(ctx context.Context, t target, folder string, p loadPlan) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	const seconds = 6
	saved := make(chan error, 1)
	go func() { saved <- s.saveProfiles(ctx, t, folder, seconds) }()
	p.For = (seconds + 2) * time.Second
	if _, err := s.load(ctx, t, p); err != nil {
		return err
	}
	return <-saved
}

func (s *site) saveProfiles(ctx context.Context, t target, folder string, seconds int) error {
	name := strings.NewReplacer(", ", "-", " ", "-").Replace(t.name)
	for _, kind := range []string{fmt.Sprintf("profile?seconds=%d", seconds), "mutex", "allocs"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.server.Pprof+"/debug/pprof/"+kind, nil)
		if err != nil {
			return err
		}
		if err := download(req, filepath.Join(folder, name+"."+strings.TrimSuffix(kind, fmt.Sprintf("?seconds=%d", seconds))+".pprof")); err != nil {
			return fmt.Errorf("profile %s: %w", t.name, err)
		}
	}
	return nil
}

func download(req *http.Request, path string) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
