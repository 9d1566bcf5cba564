package gateway

import (
	"fmt"
	"net/http"

	"sluice.example/sluice/l402"
)

// ownHeaders are the headers that a model's owner sets in requests to backends; nil:
// none. They are never written to.
func ownHeaders(set map[string]l402.Secret) (http.Header, error) {
	if len(set) == 0 {
		return nil, nil
	}
	h := make(http.Header, len(set))
	for name, value := range set {
		if err := checkForwarded(name); err != nil {
			return nil, fmt.Errorf("header %q: %w", name, err)
		}
		h.Set(name, value.Reveal())
	}
	return h, nil
}

// own adds the headers of a model's owner to those of a request to a backend.
func own(h, owners http.Header) http.Header {
	for name, values := range owners {
		h[name] = values
	}
	return h
}
