package config

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"sluice.example/sluice/metering/format/apis"
)

// pathModels is the usual path under which servers list their models: see Backend.Paths.
const pathModels = "/v1/models"

// pathsOf returns the request paths that a key of Backend.Paths means. Nil means that the key is
// neither an API nor a path.
func pathsOf(key string) []string {
	if key == "models" {
		return []string{pathModels}
	}
	for _, f := range apis.All() {
		if f.Name() == key {
			return f.Paths()
		}
	}
	if strings.HasPrefix(key, "/") {
		return []string{key}
	}
	return nil
}

// isAPI says whether a key of Backend.Paths means an API that is sold.
func isAPI(key string) bool {
	for _, f := range apis.All() {
		if f.Name() == key || slices.Contains(f.Paths(), key) {
			return true
		}
	}
	return false
}

// ServerPaths maps the usual path of a request to the path under which this server serves it.
func (b *Backend) ServerPaths() map[string]string {
	all := make(map[string]string, len(b.Paths))
	for key, there := range b.Paths {
		for _, path := range pathsOf(key) {
			all[path] = there
		}
	}
	return all
}

// ServerQuery returns the query that is added to each request, encoded.
func (b *Backend) ServerQuery() Secret {
	query := url.Values{}
	for name, value := range b.Query {
		query.Set(name, value.Reveal())
	}
	return Secret(query.Encode())
}

// HealthPaths returns the path that is asked for the server's health, and the paths to ask if the
// server does not know that path.
func (b *Backend) HealthPaths() (path string, fallback []string) {
	if !b.Health.Default {
		return b.Health.Path, nil
	}
	there := func(path string) string {
		if p, ok := b.ServerPaths()[path]; ok {
			return p
		}
		return path
	}
	return there(b.Health.Path), []string{there(pathModels)}
}

// checkAddress checks the paths of a server's APIs, its query, and the header of its key.
func (c *checker) checkAddress(b *Backend, at string) {
	c.checkKeyHeader(b, at+".key_header")
	for _, key := range slices.Sorted(maps.Keys(b.Paths)) {
		at := at + ".paths." + key
		if pathsOf(key) == nil {
			c.failAt(at, "is neither an API nor a path; %s", suggest(key, append(apis.Names(), "models")))
			continue
		}
		there := b.Paths[key]
		plain, _, _ := strings.Cut(strings.ReplaceAll(there, "{model}", ""), "?")
		_, err := url.PathUnescape(plain)
		switch {
		case !strings.HasPrefix(there, "/"), err != nil, strings.ContainsFunc(there, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }):
			c.failAt(at, "want a path such as /v2/chat, got %q", clip(there))
		case strings.ContainsAny(strings.ReplaceAll(there, "{model}", ""), "{}"):
			c.failAt(at, "only {model} is filled in, got %q", clip(there))
		case strings.Contains(there, "{model}") && !isAPI(key):
			c.failAt(at, "{model} is filled in for the APIs that are sold only: %s", strings.Join(apis.Names(), ", "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Query)) {
		if name == "" {
			c.failAt(at+".query", "a parameter has no name")
		}
	}
}

// writtenHeaders are the request headers to backends that the owner cannot set, because the gateway or
// HTTP itself writes them.
var writtenHeaders = []string{"accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect",
	"host", "idempotency-key", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "x-request-id"}

func (c *checker) checkKeyHeader(b *Backend, at string) {
	switch name := strings.ToLower(b.KeyHeader); {
	case name == "":
	case name == "authorization":
		c.failAt(at, "leave it out: without it the key is sent in Authorization, as a bearer token")
	case !isHeader(name):
		c.failAt(at, "want the name of a header such as api-key or X-Api-Key, got %q", clip(b.KeyHeader))
	case slices.Contains(writtenHeaders, name):
		c.failAt(at, "the gateway writes the header %s itself", b.KeyHeader)
	case b.APIKey == "":
		c.failAt(at, "there is no key for it; give api_key, api_key_file or %s", BackendEnv(b.Name))
	}
}

// isHeader says whether a name in lower case can be the name of a header.
func isHeader(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
