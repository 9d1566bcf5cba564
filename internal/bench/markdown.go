package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// markdown prints the report as Markdown.
func (r *report) markdown(out io.Writer) error {
	w := bufio.NewWriter(out)
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, %s, %s; a write and fsync takes %s; load average before: %s. %s, %s.\n",
		m.CPU, m.Cores, m.OS, m.Go, short(m.Sync), m.Load, m.At.Format("2006-01-02 15:04 MST"), r.Took.Round(time.Second))
	for _, t := range []struct {
		measured bool
		print    func(io.Writer)
	}{
		{len(r.Paid) > 0, r.paidTable}, {len(r.Streams) > 0, r.streamsTable}, {len(r.Challenges) > 0, r.challengesTable},
		{len(r.Ledger) > 0, r.ledgerTable}, {r.Stopped != nil, r.stoppedTable}, {len(r.Locked) > 0, r.lockedTable},
		{len(r.Holders) > 0, r.holdersTable}, {r.Holds != nil, r.holdsTable}, {len(r.History) > 0, r.historyTable},
		{len(r.Audit) > 0, r.auditTable},
	} {
		if t.measured {
			t.print(w)
		}
	}
	if lines := r.goals(); len(lines) > 0 {
		fmt.Fprint(w, "\n### Goals\n\n| goal | measured | |\n|---|---|---|\n")
		for _, g := range lines {
			fmt.Fprintf(w, "| %s | %s | %s |\n", g.what, g.measured, verdict(g.met))
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\n%s\n", n)
	}
	return w.Flush()
}

func (r *report) paidTable(w io.Writer) {
	fmt.Fprint(w, "\n### A request\n\n| connections | target | requests/s | p50 | p99 | × ReverseProxy (range) | CPU per request |\n|---|---|---|---|---|---|---|\n")
	for _, row := range r.Paid {
		fmt.Fprintf(w, "| %d | %s | %s | %s | %s | %.2f (%.2f–%.2f) | %s |\n", row.Connections, row.Target, count(row.PerSecond),
			short(row.P50), short(row.P99), row.Ratio, row.RatioLow, row.RatioHigh, short(row.CPU))
	}
}

func (r *report) streamsTable(w io.Writer) {
	fmt.Fprintf(w, "\n### %d streams at once, an event each %s\n\n| target | RSS per stream | × ReverseProxy | added delay per event, p50 | p99 | CPU per event |\n|---|---|---|---|---|---|\n", r.Streams[0].Streams, eventEvery)
	for _, row := range r.Streams {
		if row.Target == nameDirect {
			fmt.Fprintf(w, "| %s | | | (%s from write to read) | (%s) | %s |\n", row.Target, short(row.P50), short(row.P99), short(row.CPU))
			continue
		}
		fmt.Fprintf(w, "| %s | %.1f KiB | %.2f | %s | %s | %s |\n", row.Target, float64(row.PerStream)/1024, row.Ratio,
			short(row.AddedP50), short(row.AddedP99), short(row.CPU))
	}
}

func (r *report) challengesTable(w io.Writer) {
	fmt.Fprint(w, "\n### A challenge, beside the bare AddInvoice on the same lnd\n\n| callers | challenges/s | p50 | p99 | invoices/s | p50 | p99 | ratio (range) | gateway's CPU per challenge |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, row := range r.Challenges {
		fmt.Fprintf(w, "| %d | %s | %s | %s | %s | %s | %s | %.2f (%.2f–%.2f) | %s |\n", row.Callers, count(row.Challenges), short(row.P50), short(row.P99),
			count(row.Invoices), short(row.InvoiceP50), short(row.InvoiceP99), row.Ratio, row.RatioLow, row.RatioHigh, short(row.CPU))
	}
}

func (r *report) ledgerTable(w io.Writer) {
	fmt.Fprintf(w, "\n### The ledger alone, reserve + settle, %d callers\n\n| store | accounts | pairs/s | p50 | p99 | × 1000 accounts | CPU per pair | operations per commit |\n|---|---|---|---|---|---|---|---|\n", ledgerCallers)
	for _, row := range r.Ledger {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %.2f | %s | %.0f |\n", row.Store, count(float64(row.Accounts)), count(row.Pairs),
			short(row.P50), short(row.P99), row.Ratio, short(row.CPU), row.Batch)
	}
}

// beginTable prints the title and the head of a table.
func beginTable(w io.Writer, title string, columns ...string) {
	fmt.Fprintf(w, "\n### %s\n\n| %s |\n|%s\n", title, strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
}

// goal is one goal for the figures, and whether the figures reach it.
type goal struct {
	what, measured string
	met            bool
}

// goals checks the figures against the goals of this project.
func (r *report) goals() (goals []goal) {
	add := func(met bool, measured, format string, args ...any) {
		goals = append(goals, goal{fmt.Sprintf(format, args...), measured, met})
	}
	p50 := map[string]time.Duration{}
	for _, row := range r.Paid {
		if row.Connections == 1 {
			p50[row.Target] = row.P50
		}
	}
	for _, row := range r.Paid {
		store, isGateway := storeOf(row.Target)
		least := map[string]float64{"SQLite": 0.6, "PostgreSQL": 0.4}[store]
		switch {
		case isGateway && row.Connections == 256:
			add(row.Ratio >= least, fmt.Sprintf("%.3f", row.Ratio), "%s, 256 connections: at least %.1f × ReverseProxy", row.Target, least)
		case isGateway && row.Connections == 1 && store == "SQLite":
			more := p50[row.Target] - p50[nameProxy]
			add(more <= time.Millisecond, short(more), "%s, 1 connection: at most 1 ms more than ReverseProxy at p50", row.Target)
		}
	}
	for _, row := range r.Streams {
		if _, isGateway := storeOf(row.Target); isGateway {
			add(row.Ratio <= 1.25, fmt.Sprintf("%.3f", row.Ratio), "RSS per stream at most 1.25 × ReverseProxy's")
		}
	}
	for _, row := range r.Challenges {
		add(row.Ratio >= 0.9, fmt.Sprintf("%.3f", row.Ratio), "%d callers: at least 0.9 challenges per bare invoice", row.Callers)
	}
	for _, row := range r.Ledger {
		if row.Accounts >= 1_000_000 {
			add(row.Ratio >= 0.8, fmt.Sprintf("%.3f", row.Ratio), "%s: the ledger at a million accounts at least 0.8 × that at 1000", row.Store)
		}
	}
	return slices.Concat(goals, r.stoppedGoals(), r.lockedGoals(), r.holdersGoals(), r.holdsGoals(), r.historyGoals(),
		r.auditGoals())
}

// storeOf returns the store in the name of a gateway target. isGateway is false for another target.
func storeOf(target string) (store string, isGateway bool) {
	for _, s := range []string{"SQLite", "PostgreSQL"} {
		if len(target) >= len("gateway, "+s) && target[:len("gateway, "+s)] == "gateway, "+s {
			return s, true
		}
	}
	return "", false
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

// short returns a duration as text with three digits.
func short(d time.Duration) string {
	if d < 0 {
		return "−" + short(-d)
	}
	unit := time.Nanosecond
	for _, u := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= u {
			unit = u
			break
		}
	}
	name := map[time.Duration]string{time.Second: "s", time.Millisecond: "ms", time.Microsecond: "µs", time.Nanosecond: "ns"}[unit]
	v := float64(d) / float64(unit)
	switch {
	case v >= 100 || unit == time.Nanosecond:
		return fmt.Sprintf("%.0f %s", v, name)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, name)
	}
	return fmt.Sprintf("%.2f %s", v, name)
}

// count returns a number as text with its thousands separated.
func count(v float64) string {
	n := int64(v + 0.5)
	if n < 1000 {
		return fmt.Sprint(n)
	}
	if n < 1_000_000 {
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	return fmt.Sprintf("%d,%03d,%03d", n/1_000_000, n/1000%1000, n%1000)
}
