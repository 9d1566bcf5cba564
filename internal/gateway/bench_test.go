package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

const benchAnswer = `{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"the river runs"},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}}`

// BenchmarkPaidUnary measures one paid and metered request over loopback, client and backend
// included. For comparison, BenchmarkReverseProxy measures the same request through net/http's own
// proxy.
func BenchmarkPaidUnary(b *testing.B) {
	backend := benchBackend(b)
	r := newRig(b, func(s *setup) {
		s.backendURLs = []string{backend.URL}
		s.backend = func(c *gpuBackend) { c.Slots = 256 }
	})
	k := r.buy(maxPurchase)
	benchPost(b, r.client, r.url+chatPath, request("max_tokens", "4"), k.with())
}

func BenchmarkReverseProxy(b *testing.B) {
	backend := benchBackend(b)
	target, err := url.Parse(backend.URL)
	if err != nil {
		b.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	front := httptest.NewServer(proxy)
	b.Cleanup(front.Close)
	benchPost(b, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}, front.URL+chatPath, request("max_tokens", "4"), nil)
}

func benchBackend(b *testing.B) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, benchAnswer)
	}))
	b.Cleanup(s.Close)
	return s
}

func benchPost(b *testing.B, client *http.Client, target, body string, headers header) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequest("POST", target, strings.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			for name, value := range headers {
				req.Header.Set(name, value)
			}
			resp, err := client.Do(req)
			if err != nil {
				b.Error(err)
				return
			}
			drainBody(resp)
			if resp.StatusCode != http.StatusOK {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
}
