package gpu

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A server has its APIs at the paths that its owner configures. It gets the configured parameters in
// each query and its key in the configured header.
func TestAddressOfARequest(t *testing.T) {
	var got *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer srv.Close()
	b := oneBackend(t, srv.URL+"/a%20b/", func(c *BackendConfig) {
		c.APIKey, c.KeyHeader, c.Query = "sk-backend", "X-Api-Key", "v=1&w=a%2Fb"
		c.Paths = map[string]string{"/v1/chat/completions": "/of/{model}/chat?x=y", "/v1/models": "/models"}
		c.Models = map[string]string{"m": "org/name 7"}
	})
	for path, want := range map[string]string{
		b.Path("/v1/chat/completions", "m"):     "/a%20b/of/org%2Fname%207/chat?x=y&v=1&w=a%2Fb",
		b.Path("/v1/chat/completions", "plain"): "/a%20b/of/plain/chat?x=y&v=1&w=a%2Fb",
		b.Path("/v1/models", ""):                "/a%20b/models?v=1&w=a%2Fb",
		b.Path("/tokenize", ""):                 "/a%20b/tokenize?v=1&w=a%2Fb",
	} {
		resp, err := b.Do(context.Background(), "POST", path, []byte("x"), http.Header{"X-Api-Key": {"of the caller"}, "Authorization": {"L402 a:b"}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got.RequestURI != want || got.Header.Get("X-Api-Key") != "sk-backend" || got.Header.Get("Authorization") != "" {
			t.Errorf("%s came to %s with %v, want %s", path, got.RequestURI, got.Header, want)
		}
	}
	keyed := oneBackend(t, srv.URL, func(c *BackendConfig) { c.APIKey, c.Query = "sk-backend", "key=a%2Fb-0123456789abcdef&v=2024-10-21" })
	if text := keyed.Redact("no key sk-backend, sk-backend, a/b-0123456789abcdef in 2024-10-21"); text != "no key [redacted], [redacted], [redacted] in 2024-10-21" {
		t.Errorf("%q", text)
	}
}

// A backend whose address changes, or whose key is sent in another way, is replaced by a new backend.
func TestAnotherAddressIsAnotherBackend(t *testing.T) {
	base := oneBackend(t, "http://127.0.0.1:1", func(c *BackendConfig) { c.APIKey = "k" })
	for name, change := range map[string]func(*BackendConfig){
		"the same":   func(*BackendConfig) {},
		"a path":     func(c *BackendConfig) { c.Paths = map[string]string{"/a": "/b"} },
		"a query":    func(c *BackendConfig) { c.Query = "a=b" },
		"key header": func(c *BackendConfig) { c.KeyHeader = "api-key" },
	} {
		other := oneBackend(t, "http://127.0.0.1:1", func(c *BackendConfig) { c.APIKey = "k"; change(c) })
		if same := base.same(other); same != (name == "the same") {
			t.Errorf("%s: the same backend: %v", name, same)
		}
	}
}
