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

// Redact is a text without the backend's key, which some servers repeat in their
// errors.
func (b *Backend) Redact(text string) string {
	key := b.cfg.APIKey.Reveal()
	if key == "" {
		return text
	}
	return strings.ReplaceAll(text, key, "[redacted]")
}
