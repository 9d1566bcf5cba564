package gpu

import (
	"net/url"
	"strings"
)

// modelSlot stands in a path for the server's name of a model.
const modelSlot = "{model}"

// Path is where the server has what others have at path, for a public model. It is
// for Do.
func (b *Backend) Path(path, model string) string {
	there, ok := b.cfg.Paths[path]
	if !ok {
		return path
	}
	return strings.ReplaceAll(there, modelSlot, url.PathEscape(b.Upstream(model)))
}

// address is the URL of a request. path may be escaped, and may carry a query.
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

// shortKey and shortParameter are lengths in bytes below which a key, or a parameter of
// a query, is not looked for in texts: no secret is as short, and words are.
const (
	shortKey       = 6
	shortParameter = 16
)

// secretsOf lists what must not be seen in a server's words.
func secretsOf(cfg *BackendConfig) (secrets []string) {
	if key := cfg.APIKey.Reveal(); len(key) >= shortKey {
		secrets = append(secrets, key)
	}
	query, _ := url.ParseQuery(cfg.Query.Reveal()) // what cannot be read goes to the server as it is
	for _, values := range query {
		for _, value := range values {
			if len(value) >= shortParameter {
				secrets = append(secrets, value)
			}
		}
	}
	return secrets
}

// Redact is a text without the backend's key, which some servers repeat in their
// errors.
func (b *Backend) Redact(text string) string {
	for _, secret := range b.secrets {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return text
}
