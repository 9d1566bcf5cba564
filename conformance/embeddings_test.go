package conformance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// dimensions is the length of the scripted backend's vectors.
const dimensions = 32

// embed answers as an inference server does. Each byte of a text is one token.
func embed(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Input    json.RawMessage
		Encoding string `json:"encoding_format"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	var text string
	var texts []string
	var ids [][]int
	var sizes []int
	switch {
	case json.Unmarshal(request.Input, &text) == nil:
		sizes = []int{len(text)}
	case json.Unmarshal(request.Input, &texts) == nil:
		for _, t := range texts {
			sizes = append(sizes, len(t))
		}
	case json.Unmarshal(request.Input, &ids) == nil:
		for _, list := range ids {
			sizes = append(sizes, len(list))
		}
	}
	tokens, data := 0, make([]any, len(sizes))
	for i, n := range sizes {
		tokens += n
		var vector any = make([]float32, dimensions)
		if request.Encoding == "base64" {
			vector = base64.StdEncoding.EncodeToString(make([]byte, 4*dimensions))
		}
		data[i] = map[string]any{"object": "embedding", "index": i, "embedding": vector}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"object": "list", "model": modelTokens, "data": data,
		"usage": map[string]any{"prompt_tokens": tokens, "total_tokens": tokens}})
}

// TestSDKsEmbed checks that a user of any SDK gets all requested vectors and pays what the backend
// counts. openai-node requests base64 by itself.
func TestSDKsEmbed(t *testing.T) {
	for sdk, command := range map[string][]string{"openai-go": buildGo(t, "go.mod"), "go-openai": buildGo(t, "go.mod"), "openai-node": javascript(t)} {
		p := newPlace(t)
		many := make([]string, 2048)
		for i := range many {
			many[i] = fmt.Sprintf("text %04d", i)
		}
		for name, c := range map[string]struct {
			input  any
			key    string
			tokens int // -1: the user gets an error with the text raises
			count  int
			raises string
		}{
			"single":              {"four", rich(p), 4, 1, ""},
			"batch":               {many, rich(p), 9 * 2048, 2048, ""},
			"token ids":           {[][]int{{1, 2, 3}, {4}}, rich(p), 4, 2, ""},
			"402":                 {"four", "sk-none", -1, 0, "pay the invoice, then repeat the request"},
			"cut by the balance":  {many, p.key(10_000), -1, 0, "the balance does not cover this request"},
			"an empty list (400)": {[][]int{{}}, rich(p), -1, 0, "a list of token ids is empty"},
		} {
			r := run(t, command, []job{{SDK: sdk, Name: name, URL: p.url, Key: c.key, Model: modelTokens, Input: c.input}})[0]
			if c.tokens < 0 {
				if !r.Raised || !strings.Contains(r.Error, c.raises) {
					t.Errorf("%s, %s: the user sees %+v", sdk, name, r)
				}
				continue
			}
			if want := fmt.Sprintf("%d of %d, %d tokens", c.count, dimensions, c.tokens); r.Raised || r.Content != want {
				t.Errorf("%s, %s: the user sees %+v, want %q", sdk, name, r, want)
			}
			if charged := p.charged(c.key); charged != c.tokens {
				t.Errorf("%s, %s: charged %d msat for %d tokens", sdk, name, charged, c.tokens)
			}
		}
	}
}

// charged returns the sum of all charges of a key's account, in msat.
func (p *place) charged(key string) int {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, strings.TrimSuffix(p.url, "/v1")+"/l402/balance", nil)
	must(p.t, err)
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	must(p.t, err)
	defer resp.Body.Close()
	var balance struct {
		Charged int `json:"charged_msat"`
	}
	must(p.t, json.NewDecoder(resp.Body).Decode(&balance))
	return balance.Charged
}
