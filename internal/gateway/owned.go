package gateway

import (
	"fmt"
	"net/http"

	"sluice.example/sluice/l402"
)

// ownHeaders returns the headers that a model's owner sets in requests to backends; nil if the
// owner sets none. Nobody may write to the result.
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

// own adds to h the headers that a model's owner sets in requests to backends, and returns h.
func own(h, owners http.Header) http.Header {
	for name, values := range owners {
		h[name] = values
	}
	return h
}
