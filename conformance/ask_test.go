package conformance

import (
	"io"
	"net/http"
	"strings"
)

// post makes one paid request without any SDK and returns the status.
func (p *place) post(key, body string) int {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url+"/chat/completions", strings.NewReader(body))
	must(p.t, err)
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	must(p.t, err)
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	must(p.t, err)
	return resp.StatusCode
}
