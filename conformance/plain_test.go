package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// plain is the answer to a request that the test made without an SDK.
type plain struct {
	status int
	header http.Header
	body   []byte
}

// ask makes a request without any SDK.
func (p *place) ask(ctx context.Context, method, path, key, body string, headers map[string]string) (*plain, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(p.url, "/v1")+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return &plain{resp.StatusCode, resp.Header, content}, err
}

// mustAsk is like ask, but ends the test on an error.
func (p *place) mustAsk(method, path, key, body string, headers map[string]string) *plain {
	p.t.Helper()
	a, err := p.ask(p.t.Context(), method, path, key, body, headers)
	must(p.t, err)
	return a
}

// account is the balance of an account, in msat.
type account struct {
	Available int `json:"available_msat"`
	Held      int `json:"held_msat"`
	Charged   int `json:"charged_msat"`
}

// settled returns the balance of a key's account once nothing is held.
func (p *place) settled(key string) (b account) {
	p.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		a := p.mustAsk(http.MethodGet, "/l402/balance", key, "", nil)
		if b = (account{}); a.status == http.StatusOK {
			must(p.t, json.Unmarshal(a.body, &b))
		}
		switch {
		case b.Held == 0:
			return b
		case time.Now().After(deadline):
			p.t.Fatalf("%d msat are still held", b.Held)
		}
	}
}

// detail returns why a request is refused, in the words that SDKs must show. It returns "" for a
// request that is not refused.
func (p *place) detail(path, key, body string, headers map[string]string) string {
	p.t.Helper()
	a := p.mustAsk(http.MethodPost, path, key, body, headers)
	if a.status == http.StatusOK {
		return ""
	}
	var problem struct {
		Detail string
		Error  struct{ Message, Code, Type string }
	}
	must(p.t, json.Unmarshal(a.body, &problem))
	if problem.Detail == "" || problem.Error.Message != problem.Detail || problem.Error.Code == "" || problem.Error.Type == "" {
		p.t.Errorf("%s: SDKs show nothing of %d %s", path, a.status, a.body)
	}
	return problem.Detail
}

// TestPlainRerankAndScore buys through the two APIs that OpenAI's SDKs do not have.
func TestPlainRerankAndScore(t *testing.T) {
	s := newShop(t)
	documents := func(n int) string {
		list, err := json.Marshal(longInput(n))
		must(t, err)
		return string(list)
	}
	for name, c := range map[string]struct {
		path, body string
		results    int
	}{
		"rerank":           {"/v1/rerank", `{"model":"demo","query":"the river","documents":["The river.","A lock."]}`, 2},
		"the best of many": {"/v1/rerank", `{"model":"demo","query":"the river","documents":` + documents(300) + `,"top_n":3,"return_documents":true}`, 3},
		"the most":         {"/v1/rerank", `{"model":"demo","query":"the river","documents":` + documents(1000) + `}`, 1000},
		"another path":     {"/v2/rerank", `{"model":"demo","query":"the river","documents":["The river."]}`, 1},
		"score":            {"/v1/score", `{"model":"demo","text_1":"the river","text_2":["The river.","A lock.","Rain."]}`, 3},
		"pair by pair":     {"/v1/score", `{"model":"demo","text_1":["a","b"],"text_2":["c","d"]}`, 2},
	} {
		key, before := rich(s.place), len(s.requests())
		a := s.mustAsk(http.MethodPost, c.path, key, c.body, nil)
		var answer struct {
			Results, Data []json.RawMessage
			Usage         struct {
				Prompt int `json:"prompt_tokens"`
			}
		}
		must(t, json.Unmarshal(a.body, &answer))
		if n := len(answer.Results) + len(answer.Data); a.status != http.StatusOK || n != c.results {
			t.Errorf("%s: %d with %d results: %.300s", name, a.status, n, a.body)
			continue
		}
		did := s.truth(before)
		if b := s.settled(key); b.Charged != did.PromptTokens || answer.Usage.Prompt != did.PromptTokens || a.header.Get("L402-Cost-Msat") != fmt.Sprint(did.PromptTokens) || did.PromptTokens == 0 {
			t.Errorf("%s: charged %+v, told %s, the backend counted %d", name, b, a.header.Get("L402-Cost-Msat"), did.PromptTokens)
		}
	}
}

// TestPlainRerankIsRefused checks that refusals have the member that SDKs read, and that they cost
// nothing.
func TestPlainRerankIsRefused(t *testing.T) {
	s := newShop(t)
	const body = `{"model":"demo","query":"the river","documents":["The river."],"text_1":"a","text_2":"b"}`
	for path, ask := range map[string]string{
		"/v1/rerank": `{"model":"MODEL","query":"the river","documents":["The river.","A lock."]}`,
		"/v1/score":  `{"model":"MODEL","text_1":"the river","text_2":["The river.","A lock."]}`,
	} {
		limited := s.key(4_000_000, service+"_capabilities=embeddings")
		for name, c := range map[string]struct {
			key, model, body string
			headers          map[string]string
			says             string
		}{
			"no token":         {key: "sk-none", says: "pay the invoice"},
			"a small balance":  {key: s.key(1), says: "balance"},
			"an unknown model": {model: "nope", says: "no such model"},
			"both APIs' words": {body: body, says: "text_"},
			"too dear":         {headers: map[string]string{"L402-Max-Cost-Msat": "1"}, says: "cost"},
			"other calls only": {key: limited, says: "capabilities"},
			"no backend":       {model: modelDown, says: "nothing was charged"},
			"a failure":        {headers: map[string]string{"X-Fault": "status:500"}, says: "backend"},
		} {
			if c.key == "" {
				c.key = rich(s.place)
			}
			if c.model == "" {
				c.model = modelTokens
			}
			if c.body == "" {
				c.body = strings.Replace(ask, "MODEL", c.model, 1)
			}
			if says := s.detail(path, c.key, c.body, c.headers); !strings.Contains(says, c.says) {
				t.Errorf("%s, %s: %q lacks %q", path, name, says, c.says)
			}
			if b := s.settled(c.key); b.Charged != 0 {
				t.Errorf("%s, %s: charged %d msat", path, name, b.Charged)
			}
		}
	}
}

// TestPlainRerankIsLeft checks that a caller pays nothing who hangs up before a score of the answer has
// begun, because the backend may have stalled.
func TestPlainRerankIsLeft(t *testing.T) {
	s := newShop(t)
	key := rich(s.place)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	_, err := s.ask(ctx, http.MethodPost, "/v1/rerank", key, `{"model":"demo","query":"the river","documents":["The river.","A lock."]}`,
		map[string]string{"X-Fault": "slow-body:20s"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the answer came: %v", err)
	}
	if charged := s.settled(key).Charged; charged != 0 {
		t.Errorf("charged %d msat for a document of which no score had begun", charged)
	}
}

// TestCutByTheBalance checks that an answer whose GPU time exceeds the balance is cut with a clear
// message and costs at most the balance.
func TestCutByTheBalance(t *testing.T) {
	const credit = 10_000
	for sdk, command := range map[string][]string{"openai-go": buildGo(t, "go.mod"), "openai-node": javascript(t)} {
		p := newPlace(t)
		key := p.key(credit)
		j := job{SDK: sdk, Name: "a text", URL: p.url, Key: key, Model: modelTime, Stream: true, Prompt: doTalk, Purchase: &purchase{API: "completions", Input: doTalk}}
		r := run(t, command, []job{j})[0]
		b := p.settled(key)
		if !r.Raised || !strings.Contains(r.Error, "the balance does not cover more of the answer") {
			t.Errorf("%s: the user sees %+v", sdk, r)
		}
		if b.Charged <= 0 || b.Charged > credit || b.Available != credit-b.Charged {
			t.Errorf("%s: %+v of a balance of %d", sdk, b, credit)
		}
	}
}
