package config

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/l402"
)

// checker completes a decoded configuration and looks for what cannot work.
type checker struct {
	*decoder
	cfg     *Config
	dir     string
	envKey  bool            // keys[0] comes from the environment, not from the file
	envUsed map[string]bool // variables of backends' keys that were read
}

// failAt reports an error at the line of a key. If the file does not have the key, the line is that of
// the nearest key above it.
func (c *checker) failAt(key, format string, args ...any) {
	at := key
	for at != "" && c.lines[at] == 0 {
		if i := strings.LastIndexAny(at, ".["); i >= 0 {
			at = at[:i]
		} else {
			at = ""
		}
	}
	line := c.lines[at]
	if at == "" {
		line = 0 // no key on the way is in the file, and the file's first line would not help
	}
	c.fail(line, key, format, args...)
}

func (c *checker) check() {
	c.checkListeners()
	c.checkKeys()
	c.checkLightning()
	c.checkLimits()
	backends := c.checkBackends()
	c.checkTelemetry()
	c.checkServices(backends)
}

const minAdminToken = 16

func (c *checker) checkListeners() {
	cfg := c.cfg
	c.address("listen", cfg.Listen)
	admin := c.address("admin.listen", cfg.Admin.Listen)
	token := string(cfg.Admin.Token)
	switch {
	case token == "" && admin != "" && !loopback(admin):
		c.failAt("admin.listen", "%s is not a loopback address; set admin.token or %s, or listen on 127.0.0.1", cfg.Admin.Listen, EnvAdminToken)
	case token != "" && len(token) < minAdminToken:
		c.failAt("admin.token", "has fewer than %d characters; make one with `openssl rand -hex 16`", minAdminToken)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		c.failAt("admin.token", "holds a character that cannot stand in a header")
	}
	if cfg.Listen == cfg.Admin.Listen && !strings.HasSuffix(cfg.Listen, ":0") {
		c.failAt("admin.listen", "is the same as listen; the operator's side needs a listener of its own")
	}
	c.checkTLS()
}

func (c *checker) checkTLS() {
	t := c.cfg.TLS
	if t.Cert == "" && t.Key == "" {
		return
	}
	if t.Cert == "" || t.Key == "" {
		c.failAt("tls", "needs both cert and key")
		return
	}
	cert, err := readFile(t.Cert)
	if err != nil {
		c.failAt("tls.cert", "%v", err)
		return
	}
	key, err := readFile(t.Key)
	if err != nil {
		c.failAt("tls.key", "%v", err)
		return
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		c.failAt("tls", "%v", err)
	}
	c.checkPrivate("tls.key", t.Key)
}

// address checks host:port and returns the host. It returns "*" for all interfaces, and "" if addr is
// wrong.
func (c *checker) address(key, addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || strings.ContainsAny(host, " /") {
		c.failAt(key, "want host:port such as 127.0.0.1:8402 or :8402, got %q", clip(addr))
		return ""
	}
	if host == "" {
		return "*"
	}
	return host
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

func (c *checker) checkKeys() {
	cfg := c.cfg
	if len(cfg.Keys) == 0 {
		c.failAt("keys", "there is no master key; give one, or set %s (64 hex digits, from `openssl rand -hex 32`)", EnvMasterKey)
		return
	}
	mint := false
	ids, secrets := map[string]bool{}, map[[32]byte]bool{}
	for i, k := range cfg.Keys {
		at := "keys[" + strconv.Itoa(i) + "]"
		if c.envKey {
			if at = EnvMasterKey; i > 0 {
				at = "keys[" + strconv.Itoa(i-1) + "]"
			}
		}
		switch {
		case k.ID == "" || len(k.ID) > 64:
			c.failAt(at+".id", "want 1 to 64 characters that name the key in logs")
		case ids[k.ID]:
			c.failAt(at+".id", "another key has the id %q", k.ID)
		case k.Master.Secret != [32]byte{} && secrets[k.Master.Secret]:
			c.failAt(at, "another key has the same secret")
		}
		ids[k.ID], secrets[k.Master.Secret] = true, true
		switch k.State {
		case l402.KeyMint:
			mint = true
		case l402.KeyVerify, l402.KeyRevoked:
		default:
			c.failAt(at+".state", "%s", suggestState(string(k.State)))
		}
	}
	if !mint {
		c.failAt("keys", "none is in state mint; no token could be made")
	}
}

func suggestState(s string) string {
	return "unknown state " + strconv.Quote(clip(s)) + "; " +
		suggest(s, []string{string(l402.KeyMint), string(l402.KeyVerify), string(l402.KeyRevoked)})
}

func (c *checker) checkLightning() {
	l := c.cfg.Lightning
	if l.GRPC == "" {
		c.failAt("lightning.grpc", "is missing; give lnd's gRPC listener as host:port, usually port 10009")
	} else if host := c.address("lightning.grpc", l.GRPC); host == "*" {
		c.failAt("lightning.grpc", "has no host")
	}
	c.within("lightning.timeout", l.Timeout, 100*time.Millisecond, time.Minute)
	if l.InvoiceExpiry%time.Second != 0 {
		c.failAt("lightning.invoice_expiry", "want whole seconds")
	}
	c.within("lightning.invoice_expiry", l.InvoiceExpiry, time.Minute, 7*24*time.Hour)
	if l.InvoiceExpiry < c.cfg.QuoteTTL {
		c.failAt("lightning.invoice_expiry", "is less than quote_ttl; an invoice must outlive its quote")
	}
	if len(l.Memo) > 200 {
		c.failAt("lightning.memo", "has %d bytes, want at most 200", len(l.Memo))
	}
}

func (c *checker) within(key string, d, least, most time.Duration) {
	if d < least || d > most {
		c.failAt(key, "want %s to %s", short(least), short(most))
	}
}

func (c *checker) between(key string, n, least, most int64) {
	switch {
	case n >= least && n <= most:
	case c.lines[key] == 0: // defaults are within bounds, so the key has none and is missing
		c.failAt(key, "is missing; want %d to %d", least, most)
	default:
		c.failAt(key, "want %d to %d, got %d", least, most, n)
	}
}

// short returns a duration as the file would write it.
func short(d time.Duration) string {
	if d > 0 && d%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// String returns a size as the file would write it.
func (s Size) String() string {
	for _, u := range []struct {
		unit string
		size Size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s >= u.size && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.unit
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}
