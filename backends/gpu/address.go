package gpu

import (
	"net/url"
	"strings"
)

// modelSlot is a placeholder in a configured path. The server's name of the model takes its place.
const modelSlot = "{model}"

// Path returns the path under which the backend serves what other servers serve under path. model is
// the public name of a model. The caller gives the result to Do.
func (b *Backend) Path(path, model string) string {
	there, ok := b.cfg.Paths[path]
	if !ok {
		return path
	}
	return strings.ReplaceAll(there, modelSlot, url.PathEscape(b.Upstream(model)))
}

// address returns the URL of a request. path may be escaped, and may hold a query.
func (b *Backend) address(path string) url.URL {
	u := b.base
	path, u.RawQuery, _ = strings.Cut(path, "?")
	if query := b.cfg.Query.Reveal(); query != "" {
		if u.RawQuery != "" {
			query = u.RawQuery + "&" + query
		}
		u.RawQuery = query
	}
	if strings.Contains(path, "%") {
		if plain, err := url.PathUnescape(path); err == nil {
			u.RawPath = u.EscapedPath() + path
			path = plain
		}
	}
	u.Path += path
	return u
}

// shortKey and shortParameter are lengths in bytes. A key or a query parameter that is shorter is not
// replaced in texts: a secret is longer, and an ordinary word may be as short.
const (
	shortKey       = 6
	shortParameter = 16
)

// secretsOf lists the texts that Redact removes from what a server says.
func secretsOf(cfg *BackendConfig) (secrets []string) {
	if key := cfg.APIKey.Reveal(); len(key) >= shortKey {
		secrets = append(secrets, key)
	}
	// The gateway sends a query that cannot be parsed to the server as it is.
	query, _ := url.ParseQuery(cfg.Query.Reveal())
	for _, values := range query {
		for _, value := range values {
			if len(value) >= shortParameter {
				secrets = append(secrets, value)
				if sent := url.QueryEscape(value); sent != value {
					secrets = append(secrets, sent) // a server may repeat the query as it came
				}
			}
		}
	}
	return secrets
}

// Redact returns a text without the backend's key and without the secrets in its query, because some
// servers repeat them in their errors.
func (b *Backend) Redact(text string) string {
	for _, secret := range b.secrets {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return text
}
