package main

import "net/http"

// headerClient adds headers to each request. It is for an SDK that has no option for headers.
type headerClient struct{ headers map[string]string }

// Do implements the SDK's interface of an HTTP client.
func (c *headerClient) Do(r *http.Request) (*http.Response, error) {
	for name, value := range c.headers {
		r.Header.Set(name, value)
	}
	return http.DefaultClient.Do(r)
}
