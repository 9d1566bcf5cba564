package config

import "time"

func (c *checker) checkLimits() {
	cfg, l := c.cfg, c.cfg.Limits
	for _, s := range []struct {
		key        string
		value      Size
		least, max Size
	}{
		{"body", l.Body, 1 << 10, 1 << 30},
		{"headers", l.Headers, 16 << 10, 1 << 20}, // a credential alone may be 8 KiB, which is 11 KiB in base64
		{"event", l.Event, 64 << 10, 256 << 20},
		{"unary_hold", l.UnaryHold, 64 << 10, 256 << 20},
	} {
		if s.value < s.least || s.value > s.max {
			c.failAt("limits."+s.key, "want %s to %s", s.least, s.max)
		}
	}
	c.within("limits.header_timeout", l.HeaderTimeout, 100*time.Millisecond, time.Hour)
	c.within("limits.body_timeout", l.BodyTimeout, 100*time.Millisecond, time.Hour)
	c.within("limits.idle_timeout", l.IdleTimeout, 100*time.Millisecond, time.Hour)
	c.within("limits.write_stall", l.WriteStall, 100*time.Millisecond, time.Hour)
	c.between("limits.invoices", int64(l.Invoices), 4, 10_000)
	c.checkCrowds()
	c.within("drain_timeout", cfg.DrainTimeout, 0, 24*time.Hour)
	c.within("quote_ttl", cfg.QuoteTTL, time.Second, 24*time.Hour)
	c.within("ledger.lease", cfg.Ledger.Lease, time.Second, 5*time.Minute)
	c.within("ledger.renew", cfg.Ledger.Renew, 100*time.Millisecond, time.Minute)
	// Two renewals may fail before a hold is lost.
	if cfg.Ledger.Renew > cfg.Ledger.Lease/3 {
		c.failAt("ledger.renew", "want at most a third of ledger.lease (%v)", cfg.Ledger.Lease)
	}
	c.between("ledger.max_budgets", int64(cfg.Ledger.MaxBudgets), 1, 1_000_000)
	c.between("ledger.max_sub_budgets", int64(cfg.Ledger.MaxSubBudgets), 1, 1_000_000)
	c.within("ledger.confirm_within", cfg.Ledger.ConfirmWithin, time.Minute, 24*time.Hour)
	if cfg.Audit.Every != 0 {
		c.within("audit.every", cfg.Audit.Every, time.Second, 30*24*time.Hour)
	}
	switch cfg.Audit.Seal {
	case SealMonthly:
		if cfg.Audit.Every == 0 && c.lines["audit.seal"] == 0 {
			cfg.Audit.Seal = SealOff
		} else if cfg.Audit.Every == 0 {
			c.failAt("audit.seal", "is monthly, and audit.every is 0s: only an audit closes a month; set seal to off as well")
		}
	case SealOff:
	default:
		c.failAt("audit.seal", "want monthly or off, got %q", clip(cfg.Audit.Seal))
	}
	if f := cfg.Log.Format; f != "text" && f != "json" {
		c.failAt("log.format", "want text or json, got %q", clip(f))
	}
}

// checkCrowds checks the limits that apply to many callers together.
func (c *checker) checkCrowds() {
	l := &c.cfg.Limits
	if l.PerAddress == 0 && c.lines["limits.connections_per_address"] == 0 {
		l.PerAddress = max(1, l.Connections/4)
	}
	c.between("limits.requests", int64(l.Requests), 16, 1_000_000)
	c.between("limits.connections", int64(l.Connections), 16, 1_000_000)
	c.between("limits.connections_per_address", int64(l.PerAddress), 1, int64(max(l.Connections, 1)))
	// Callers without a token share an eighth of bodies, and one body must fit in that share.
	if least := 8 * l.Body; l.Bodies < least || l.Bodies > 1<<40 {
		c.failAt("limits.bodies", "want 8 times limits.body (%s) to 1TiB", least)
	}
	ch := l.Challenges
	for _, narrow := range []struct {
		key    string
		f      Frequency
		wide   Frequency
		around string
	}{
		{"per_address", ch.PerAddress, ch.PerSubnet, "per_subnet"},
		{"per_subnet", ch.PerSubnet, ch.PerNetwork, "per_network"},
		{"per_network", ch.PerNetwork, ch.Total, "total"},
	} {
		none := narrow.f == (Frequency{}) || narrow.wide == (Frequency{})
		if !none && (narrow.f.PerSecond > narrow.wide.PerSecond || narrow.f.Burst > narrow.wide.Burst) {
			c.failAt("limits.challenges."+narrow.around, "%s is less than %s, %s; the wider limit would make the narrower one void",
				narrow.wide, narrow.key, narrow.f)
		}
	}
	switch c.cfg.ForwardedHeader {
	case "X-Forwarded-For", "Forwarded":
	default:
		c.failAt("forwarded_header", "want X-Forwarded-For or Forwarded, got %q", clip(c.cfg.ForwardedHeader))
	}
}
