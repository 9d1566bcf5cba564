package inference

import (
	"encoding/json"
	"errors"
	"testing"
)

func FuzzChatRequest(f *testing.F) {
	for _, seed := range []string{
		request(""), request(`"n":2,"stop":["a",""],"stream":true,"stream_options":{"include_usage":true}`),
		`{"model":"demo","messages":[{"role":"user","content":[{"type":"text","text":"\ud800"},{"type":"image_url"}]}],"tools":[1]}`,
		`{"model":"demo","messages":[{"role":"assistant","content":null,"tool_calls":[{}]}],"max_tokens":1e3,"temperature":1e-9}`,
		`{"model":null,"messages":[[]],"stream_options":null}`, `null`, `[]`, `{"messages":{}}`,
	} {
		f.Add([]byte(seed))
	}
	s, err := New(Config{ImageTokens: 10, Seed: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var o object
		if json.Unmarshal(body, &o) != nil {
			return
		}
		q, err := s.parseChat(o)
		var refusal *apiError
		switch {
		case err != nil && (!errors.As(err, &refusal) || refusal.Status < 400 || refusal.Status > 404):
			t.Fatalf("%q: %v", body, err)
		case err == nil && (q.maxTokens < 1 || q.promptTokens()+q.maxTokens > s.cfg.MaxModelLen || q.bestOf < q.choices):
			t.Fatalf("%q: %+v", body, q)
		}
	})
}

func FuzzFaults(f *testing.F) {
	for _, seed := range []string{"", "cut:3,no-usage", "stall:4:10ms", "status:503:2", "usage:huge, gzip", "redirect:http://x:1/,", "merge:99999999999999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if p, err := parseFaults(list); (p == nil) == (err == nil) {
			t.Fatalf("%q: %+v, %v", list, p, err)
		}
	})
}
