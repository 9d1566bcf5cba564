package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/apis"
	"sluice.example/sluice/metering/format/openai"
	"sluice.example/sluice/pricing"
)

// checkRequests checks the request fields and media hosts that an owner allows in addition to those
// that the gateway knows.
func (c *checker) checkRequests(fields, hosts []string, at string) {
	for i, name := range fields {
		key := at + ".allow_fields[" + strconv.Itoa(i) + "]"
		if err := openai.CheckAllowField(name); err != nil {
			c.failAt(key, "%v", err)
		}
		if slices.Contains(fields[:i], name) {
			c.failAt(key, "%q is listed twice", clip(name))
		}
	}
	for i, host := range hosts {
		key := at + ".media_hosts[" + strconv.Itoa(i) + "]"
		if !openai.ValidMediaHost(host) {
			c.failAt(key, "want a host name in lower case without scheme and port, such as cdn.example.com or *.example.com, got %q", clip(host))
		}
	}
}

// checkAPIs checks the names of the APIs through which a model is sold.
func (c *checker) checkAPIs(names []string, at string) {
	known := apis.Names()
	if len(names) == 0 {
		c.failAt(at+".apis", "the model is sold through no API; there are %s", strings.Join(known, ", "))
	}
	for i, name := range names {
		key := at + ".apis[" + strconv.Itoa(i) + "]"
		switch {
		case !slices.Contains(known, name):
			c.failAt(key, "there is no API %q; there are %s", clip(name), strings.Join(known, ", "))
		case slices.Contains(names[:i], name):
			c.failAt(key, "%q is listed twice", name)
		}
	}
}

// generates reports whether a model that is sold through these APIs generates tokens. If no name is a
// known API, generates returns true.
func generates(names []string) bool { return meters(names, pricing.OutputTokens) }

// meters reports whether an API with one of these names is metered by the unit. If no name is a known
// API, meters returns true.
func meters(names []string, u pricing.Unit) bool {
	for _, f := range apis.All() {
		if slices.Contains(names, f.Name()) && format.Meters(f, u) {
			return true
		}
	}
	return !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(apis.Names(), name) })
}

// checkHeaders checks the names of the request headers that backends get. Some headers are never
// forwarded. The gateway refuses these names when it is built.
func (c *checker) checkHeaders(names []string, at string) {
	for i, name := range names {
		if !isHeader(strings.ToLower(name)) {
			c.failAt(at+".forward_headers["+strconv.Itoa(i)+"]", "want the name of a header such as X-My-Tenant, got %q", clip(name))
		}
	}
}

// Policy returns what a model's owner allows in requests, which is what the service allows plus what
// the model allows. It also holds the fields that the owner sets and removes.
func (m *Model) Policy(s *Service) format.Policy {
	p := format.Policy{
		AllowFields: append(slices.Clone(s.AllowFields), m.AllowFields...),
		MediaHosts:  append(slices.Clone(s.MediaHosts), m.MediaHosts...),
		Remove:      m.RemoveFields,
	}
	for _, name := range slices.Sorted(maps.Keys(m.SetFields)) {
		p.Set = append(p.Set, format.NewField(name, m.SetFields[name]))
	}
	return p
}
