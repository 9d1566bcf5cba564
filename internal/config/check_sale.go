package config

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/pricing"
)

// checkBackends checks each backend and returns the backends by name.
func (c *checker) checkBackends() map[string]*Backend {
	byName := map[string]*Backend{}
	for i := range c.cfg.Backends {
		b, at := &c.cfg.Backends[i], "backends["+strconv.Itoa(i)+"]"
		switch {
		case !isName(b.Name):
			c.failAt(at+".name", "want 1 to 64 letters, digits, '-', '_' and '.', got %q", clip(b.Name))
		case byName[b.Name] != nil:
			c.failAt(at+".name", "another backend has the name %q", b.Name)
		}
		byName[b.Name] = b
		c.preset(b, at)
		c.checkURL(b, at+".url")
		c.checkAddress(b, at)
		c.between(at+".slots", int64(b.Slots), 1, 1<<20)
		c.between(at+".weight", int64(b.Weight), 1, 1000)
		if p := b.Health.Path; p != "" && (p[0] != '/' || strings.ContainsAny(p, " #")) {
			c.failAt(at+".health.path", "want a path such as /health, or \"\" for no check, got %q", clip(p))
		}
		b.Health.Default = c.lines[at+".health.path"] == 0
		c.within(at+".health.every", b.Health.Every, 100*time.Millisecond, time.Hour)
		c.within(at+".timeouts.connect", b.Timeouts.Connect, time.Millisecond, time.Minute)
		c.within(at+".timeouts.first_byte", b.Timeouts.FirstByte, time.Millisecond, 24*time.Hour)
		c.within(at+".timeouts.first_event", b.Timeouts.FirstEvent, time.Millisecond, 24*time.Hour)
		c.within(at+".timeouts.idle", b.Timeouts.Idle, time.Millisecond, 24*time.Hour)
		switch b.CapField {
		case "", "max_tokens", "max_completion_tokens":
		default:
			c.failAt(at+".cap_field", "want max_tokens or max_completion_tokens, got %q", clip(b.CapField))
		}
	}
	return byName
}

func (c *checker) checkURL(b *Backend, at string) {
	u := b.URL
	switch {
	case u == nil:
		c.failAt(at, "is missing; %v", errURL)
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "h2c":
		c.failAt(at, "the scheme is not http, https or h2c (HTTP/2 without TLS)")
	case u.User != nil:
		c.failAt(at, "holds a user or password; give the key as api_key")
	case u.RawQuery != "" || u.Fragment != "":
		c.failAt(at, "want scheme, host and path only")
	case strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v1") && len(b.Paths) == 0:
		c.failAt(at, "ends in /v1; leave that out, it is part of every request's path, or say in paths where the server has its APIs")
	}
}

func (c *checker) checkServices(backends map[string]*Backend) {
	if len(c.cfg.Services) == 0 {
		c.failAt("services", "there is no service; nothing could be sold")
	}
	names, hosts, models := map[string]bool{}, map[string]string{}, map[string]*Model{}
	for i := range c.cfg.Services {
		s, at := &c.cfg.Services[i], "services["+strconv.Itoa(i)+"]"
		if err := l402.ValidateService(s.Name); err != nil {
			c.failAt(at+".name", "%v", err)
		} else if names[s.Name] {
			c.failAt(at+".name", "another service has the name %q", s.Name)
		}
		names[s.Name] = true
		c.checkHosts(s, at, hosts)
		c.checkOrigins(s, at)
		c.checkPurchase(s, at)
		c.checkRequests(s.AllowFields, s.MediaHosts, at)
		c.checkHeaders(s.ForwardHeaders, at)
		if len(s.Models) == 0 {
			c.failAt(at+".models", "the service sells no model")
		}
		anyCall := false
		for j := range s.Models {
			m, at := &s.Models[j], at+".models["+strconv.Itoa(j)+"]"
			// Names are unique over all services, because queues, prices and metrics are kept by the
			// model's name.
			if models[m.Name] != nil {
				c.failAt(at+".name", "the model %q is there already; give this one another public name", clip(m.Name))
			}
			models[m.Name] = m
			c.checkModel(m, at, backends)
			c.checkAliases(m, at)
			c.checkAPIs(m.APIs, at)
			c.checkRequests(m.AllowFields, m.MediaHosts, at)
			c.checkOwned(m, at)
			c.between(at+".media_tokens", m.MediaTokens, 0, 1<<20)
			c.checkPricing(m, at)
			c.checkPrices(s, m, at, backends)
			anyCall = anyCall || m.Prices.Call > 0
		}
		if s.ChargeCallOn4xx && !anyCall {
			c.failAt(at+".charge_call_on_4xx", "no model of the service has a call price, so it would charge nothing")
		}
	}
	c.checkUpstreamNames(models)
}

func (c *checker) checkHosts(s *Service, at string, taken map[string]string) {
	if len(s.Hosts) == 0 {
		if other, ok := taken[""]; ok {
			c.failAt(at+".hosts", "is missing, and service %q takes every other host already", other)
		}
		taken[""] = s.Name
	}
	for i, h := range s.Hosts {
		key := at + ".hosts[" + strconv.Itoa(i) + "]"
		h = strings.ToLower(h)
		s.Hosts[i] = h
		if h == "" || strings.ContainsAny(h, ":/ *") {
			c.failAt(key, "want a host name without scheme and port, got %q", clip(h))
		} else if other, ok := taken[h]; ok {
			c.failAt(key, "the host belongs to service %q already", other)
		}
		taken[h] = s.Name
	}
}

// checkOrigins refuses origins that no browser sends, because they would never equal a request's
// origin.
func (c *checker) checkOrigins(s *Service, at string) {
	usual := map[string]string{"http": "80", "https": "443"}
	seen := map[string]bool{}
	for i, o := range s.CORS.Origins {
		key := at + ".cors.origins[" + strconv.Itoa(i) + "]"
		o = strings.ToLower(o)
		u, err := url.Parse(o)
		switch {
		case seen[o]:
			c.failAt(key, "the origin is there already")
		case o == "*" && len(s.CORS.Origins) > 1:
			c.failAt(key, "\"*\" stands for all origins; name it alone or leave it out")
		case o == "*":
		case err != nil || usual[u.Scheme] == "" || u.Host == "" || o != u.Scheme+"://"+u.Host || strings.Contains(o, "*"):
			c.failAt(key, "want scheme and host of a web page, such as https://app.example, or \"*\", got %q", clip(o))
		case u.Port() != "" && u.Port() == usual[u.Scheme]:
			c.failAt(key, "leave the port %s out: browsers do not send the usual one", u.Port())
		}
		seen[o], s.CORS.Origins[i] = true, o
	}
}

func (c *checker) checkPurchase(s *Service, at string) {
	for _, p := range []struct {
		key   string
		value l402.Msat
	}{{".min_purchase", s.MinPurchase}, {".max_purchase", s.MaxPurchase}} {
		if p.value < l402.MsatPerSat || p.value%l402.MsatPerSat != 0 {
			c.failAt(at+p.key, "want whole satoshis, at least 1 sat, got %v", p.value)
		}
	}
	if s.MinPurchase > s.MaxPurchase {
		c.failAt(at+".min_purchase", "%v is more than max_purchase, %v", s.MinPurchase, s.MaxPurchase)
	}
	c.within(at+".token_lifetime", s.TokenLifetime, time.Hour, MaxDuration)
}

func (c *checker) checkModel(m *Model, at string, backends map[string]*Backend) {
	if !isModelName(m.Name) {
		c.failAt(at+".name", "want 1 to 128 printable ASCII characters without spaces, commas and quotes, got %q", clip(m.Name))
	}
	if len(m.Backends) == 0 {
		c.failAt(at+".backends", "the model has no backend")
	}
	seen := map[string]bool{}
	for i, name := range m.Backends {
		key := at + ".backends[" + strconv.Itoa(i) + "]"
		if backends[name] == nil {
			c.failAt(key, "there is no backend %q; %s", clip(name), suggest(name, slices.Collect(maps.Keys(backends))))
		} else if seen[name] {
			c.failAt(key, "the backend %q is named twice", name)
		}
		seen[name] = true
	}
	const most = 1 << 30
	c.between(at+".context_tokens", m.ContextTokens, 1, most)
	least := int64(1)
	if !generates(m.APIs) {
		least = 0
	}
	c.between(at+".max_completion_tokens", m.MaxCompletionTokens, least, most)
	c.between(at+".min_completion_tokens", m.MinCompletionTokens, 1, most)
	c.between(at+".template_tokens.base", m.TemplateTokens.Base, 0, 1<<20)
	c.between(at+".template_tokens.per_message", m.TemplateTokens.PerMessage, 0, 1<<20)
	c.between(at+".max_items", m.MaxItems, 0, 1<<16)
	if m.MaxCompletionTokens > m.ContextTokens {
		c.failAt(at+".max_completion_tokens", "%d is more than context_tokens, %d", m.MaxCompletionTokens, m.ContextTokens)
	}
	if m.MaxCompletionTokens > 0 && m.MinCompletionTokens > m.MaxCompletionTokens {
		c.failAt(at+".min_completion_tokens", "%d is more than max_completion_tokens, %d", m.MinCompletionTokens, m.MaxCompletionTokens)
	}
	c.between(at+".queue.limit", int64(m.Queue.Limit), 0, 1<<20)
	if n := m.Queue.PerAccount; n < 0 || n > max(m.Queue.Limit, 0) {
		c.failAt(at+".queue.per_account", "want 1 to queue.limit, %d, or 0 for no limit of its own", m.Queue.Limit)
	}
	c.within(at+".queue.timeout", m.Queue.Timeout, 10*time.Millisecond, time.Hour)
}

// checkUnits refuses prices that no request to the model can be charged through its APIs.
func (c *checker) checkUnits(m *Model, at string) {
	for _, r := range []struct {
		key  string
		rate Rate
		unit pricing.Unit
		apis string
	}{{"search", m.Prices.Search, pricing.Searches, "rerank"}, {"document", m.Prices.Document, pricing.Documents, "rerank or score"}} {
		if r.rate != 0 && !meters(m.APIs, r.unit) {
			c.failAt(at+".prices."+r.key, "no request can be charged it, because the model is only sold through %s: leave it out, or add %s to apis",
				strings.Join(m.APIs, ", "), r.apis)
		}
	}
}

// smallPrompt is the length of a prompt, in tokens, that a purchase must always cover.
const smallPrompt = 100

func (c *checker) checkPrices(s *Service, m *Model, at string, backends map[string]*Backend) {
	p := m.Prices
	for _, r := range []struct {
		key  string
		rate Rate
	}{{"mib", p.MiB}, {"second", p.Second}} {
		if r.rate != 0 {
			c.failAt(at+".prices."+r.key, "no API that is sold is metered by it; price it with input, output, call, search, document and gpu_second")
			return
		}
	}
	c.checkUnits(m, at)
	for _, name := range m.Backends {
		if b := backends[name]; p.GPUSecond != 0 && b != nil && len(b.GPUs) == 0 {
			c.failAt(at+".prices.gpu_second", "the backend %q names no gpus, so its GPU time cannot be read", name)
		}
	}
	c.within(at+".gpu_slice", m.GPUSlice, time.Second, time.Hour)
	if m.GPUFallback != FallbackWall && m.GPUFallback != FallbackRefuse {
		c.failAt(at+".gpu_time_fallback", "want wall or refuse, got %q", clip(m.GPUFallback))
	}
	if p == (Prices{}) {
		c.failAt(at+".prices", "every price is zero, so the model would be free")
		return
	}
	if p == (Prices{Output: p.Output}) && !generates(m.APIs) {
		c.failAt(at+".prices", "only output has a price, and the APIs of the model write none, so the model would be free")
		return
	}
	if p.CachedInput > p.Input {
		c.failAt(at+".prices.cached_input", "is more than input; the hold of a request is reckoned with input")
	}
	ceiling := 1.0
	if m.Pricing.Policy != pricing.PolicyStatic {
		ceiling = max(ceiling, m.Pricing.Ceiling)
	}
	cost, err := p.Rates().Scale(ceiling).Cost(pricing.Units{
		pricing.InputTokens:  smallPrompt + m.TemplateTokens.Base + m.TemplateTokens.PerMessage,
		pricing.OutputTokens: m.MaxCompletionTokens, pricing.Calls: 1, pricing.GPUMicros: m.GPUSlice.Microseconds(),
	})
	switch {
	case m.MaxCompletionTokens <= 0 && generates(m.APIs): // reported before
	case err != nil:
		c.failAt(at+".prices", "a request of %d tokens that sets no maximum costs more than there is money", smallPrompt)
	case cost > s.MaxPurchase:
		c.failAt(at+".prices", "a request of %d tokens that sets no maximum costs up to %v (at %g times the rate card), more than the service's max_purchase of %v: raise that, or lower max_completion_tokens or pricing.ceiling",
			smallPrompt, cost, ceiling, s.MaxPurchase)
	}
}

// checkUpstreamNames reports names in backends' models that no request uses.
func (c *checker) checkUpstreamNames(models map[string]*Model) {
	for i, b := range c.cfg.Backends {
		at := "backends[" + strconv.Itoa(i) + "].models."
		for _, public := range slices.Sorted(maps.Keys(b.Models)) {
			switch m := models[public]; {
			case m == nil:
				c.failAt(at+public, "there is no model %q; %s", clip(public), suggest(public, slices.Collect(maps.Keys(models))))
			case !slices.Contains(m.Backends, b.Name):
				c.failAt(at+public, "the model %q does not name this backend", public)
			case b.Models[public] == "":
				c.failAt(at+public, "want the model's name at the backend")
			}
		}
	}
}

func isName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}
