package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// TestRequestFaultWithinAnAnswer: an engine's words within an answer of 200, before any part of the
// answer, are read like the words of a status. The client is told the request's fault, and the
// backend is not blamed.
func TestRequestFaultWithinAnAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"TGI":              {`data: {"error":"Input validation error: inputs must have less than 4096 tokens","error_type":"validation"}` + "\n\n", "Input validation error"},
		"OpenAI":           {`data: {"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}` + "\n\n", "maximum context length"},
		"a code in a text": {`data: {"error":{"message":"it has too many words","type":"BadRequestError","param":null,"code":"400"}}` + "\n\n", "too many words"},
		"a document":       {`{"error":{"message":"image input is not supported","type":"invalid_request_error"}}`, "image input is not supported"},
		"moderation":       {`data: {"error":{"message":"Your input was flagged","code":403}}` + "\n\n", "flagged"},
	} {
		for _, stream := range []string{"true", "false"} {
			t.Run(name+stream, func(t *testing.T) {
				t.Parallel()
				one, two := newScriptedEngine(t), newScriptedEngine(t)
				for _, e := range []*scriptedEngine{one, two} {
					e.chat.Store(picky(answers(http.StatusOK, c.body)))
				}
				r, k := engineRig(t, 0, one, two)
				for i := range 8 {
					a := r.chat(k, request("stream", stream, "messages", fmt.Sprintf(`[{"role":"user","content":"%s %d"}]`, marked, i)))
					p := a.wantProblem(t, http.StatusBadRequest, "invalid-request")
					if a.header.Get("X-Should-Retry") != "false" || !strings.Contains(fmt.Sprint(p["detail"]), c.want) {
						t.Errorf("retry %q, detail %q", a.header.Get("X-Should-Retry"), p["detail"])
					}
				}
				for _, s := range r.fleet.Status() {
					if s.Ejected || s.Failed != 0 {
						t.Errorf("the backend is blamed: %+v", s)
					}
				}
				r.wantSpent(k, 0)
			})
		}
	}
}

// TestFailureWithinAnAnswerNeedsSeveralAccounts: a failure within an answer whose fault is not
// known counts by accounts, as a 5xx does.
func TestFailureWithinAnAnswerNeedsSeveralAccounts(t *testing.T) {
	e := newScriptedEngine(t)
	e.chat.Store(picky(answers(http.StatusOK, "data: {\"error\":{\"message\":\"shape mismatch\"}}\n\n")))
	r, k := engineRig(t, 0, e)
	for i := range 8 {
		r.chat(k, asking(fmt.Sprint(marked, i))).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	}
	if s := r.fleet.Status()[0]; s.Ejected || s.Failed != 8 {
		t.Errorf("failures of one account: %+v", s)
	}
	for i := range 3 {
		r.chat(r.mint(testService, newTokenID(), maxPurchase, tomorrow()), asking(fmt.Sprint(marked, "of another", i)))
	}
	if s := r.fleet.Status()[0]; !s.Ejected {
		t.Errorf("failures of several accounts: %+v", s)
	}
}

// TestRateLimitWithinAnAnswer: a rate limit that comes within an answer counts as a rate limit.
func TestRateLimitWithinAnAnswer(t *testing.T) {
	e := newScriptedEngine(t)
	e.chat.Store(answers(http.StatusOK, "data: {\"error\":{\"message\":\"slow down\",\"code\":429}}\n\n"))
	r, k := engineRig(t, 0, e)
	for range 4 {
		r.chat(k, asStream(24)).wantProblem(t, http.StatusTooManyRequests, "rate-limited")
	}
	if s := r.fleet.Status()[0]; s.Ejected || s.Failed != 0 {
		t.Errorf("the backend is blamed: %+v", s)
	}
}

// TestWordsOfRefusalsInManyForms: the gateway finds the words of a refusal in each form that
// services use, and counts the 5xx of all services alike.
func TestWordsOfRefusalsInManyForms(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   int
		words  string
	}{
		"Google":               {400, `[{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]`, 400, "input token count"},
		"Google's 500":         {500, `[{"error":{"code":500,"message":"An internal error has occurred. Image input is not supported","status":"INTERNAL"}}]`, 400, "Image input is not supported"},
		"Mistral":              {422, `{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","x"],"msg":"Extra inputs are not permitted","input":24}]},"type":"invalid_request_error","param":null,"code":null,"raw_status_code":422}`, 422, "Extra inputs are not permitted"},
		"Cloudflare":           {400, `{"errors":[{"message":"AiError: Bad input: max tokens too large","code":5006}],"success":false,"result":{},"messages":[]}`, 400, "max tokens too large"},
		"Cloudflare's 500":     {500, `{"errors":[{"message":"AiError: image input is not supported","code":5021}],"success":false,"result":{},"messages":[]}`, 400, "image input is not supported"},
		"a line of text":       {400, "prompt is too long\n", 400, "prompt is too long"},
		"a detail of an error": {400, `{"detail":{"error":"prompt is too long"}}`, 400, "prompt is too long"},
		"a list of messages":   {400, `{"statusCode":400,"message":["prompt is too long"],"error":"Bad Request"}`, 400, "prompt is too long"},
		"a message in parts":   {400, `{"error":{"message":{"text":"prompt is too long"}}}`, 400, "prompt is too long"},
		"a page":               {400, "<html><body>prompt</body></html>", 400, "refused the request with status 400"},
		"a page of text":       {400, "nginx\nat your service\n", 400, "refused the request with status 400"},
		"half a document":      {400, `{"error":{"message":"prompt`, 400, "refused the request with status 400"},
		"of a key":             {400, `[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}]`, 502, "failed with status 400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newScriptedEngine(t)
			e.chat.Store(picky(answers(c.status, c.body)))
			r, k := engineRig(t, 0, e)
			for range 4 {
				a := r.chat(k, asking(marked))
				if detail := fmt.Sprint(a.json(t)["detail"]); a.status != c.want || !strings.Contains(detail, c.words) {
					t.Errorf("status %d, detail %q", a.status, detail)
				}
			}
			if s := r.fleet.Status()[0]; s.Ejected || c.want < 500 && s.Failed != 0 {
				t.Errorf("the backend is blamed: %+v", s)
			}
		})
	}
	e := newScriptedEngine(t)
	e.chat.Store(answers(404, `[{"error":{"code":404,"message":"models/upstream/demo is not found for API version v1main","status":"NOT_FOUND"}}]`))
	r, k := engineRig(t, 0, e)
	r.chat(k, request()).wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if s := r.fleet.Status()[0]; s.Lacks["demo"] == "" || r.available() {
		t.Errorf("the model is not known there: %+v", s)
	}
}

// TestBackendThatBlamesEveryRequest: a backend that blames the request for every failure is found
// out by a request that cannot be at fault.
func TestBackendThatBlamesEveryRequest(t *testing.T) {
	for name, refuse := range map[string]*http.HandlerFunc{
		"a status":         answers(500, `{"error":{"message":"FlashAttention is not supported on this device","type":"internal_server_error","code":500}}`),
		"within an answer": answers(200, "data: {\"error\":{\"message\":\"FlashAttention is not supported on this device\"}}\n\n"),
	} {
		good, bad := newScriptedEngine(t), newScriptedEngine(t)
		bad.chat.Store(refuse)
		r, _ := engineRig(t, 0, good, bad)
		refused := 0
		for i := range 40 {
			k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
			if a := r.chat(k, asking(fmt.Sprint("number ", i))); a.status != http.StatusOK {
				a.wantProblem(t, http.StatusBadRequest, "invalid-request")
				if refused++; refused == 3 {
					r.until("it is ejected", func() bool { return r.fleet.Status()[1].Ejected })
				}
			}
		}
		if refused > 3 {
			t.Errorf("%s: %d of 40 accounts were refused although another backend serves", name, refused)
		}
	}
	// A backend that serves the smallest request is believed.
	e := newScriptedEngine(t)
	e.chat.Store(picky(answers(500, `{"error":{"message":"image input is not supported"}}`)))
	r, _ := engineRig(t, 0, e)
	for i := range 12 {
		r.chat(r.mint(testService, newTokenID(), maxPurchase, tomorrow()), asking(fmt.Sprint(marked, i))).wantProblem(t, http.StatusBadRequest, "invalid-request")
	}
	if n := e.chats.Load(); n != 13 {
		t.Errorf("asked %d times, want 12 and once by the gateway", n)
	}
	if s := r.fleet.Status()[0]; s.Ejected || s.Failed != 0 {
		t.Errorf("the backend is blamed: %+v", s)
	}
}

// TestCapIsFittedByWordsWithinAnAnswer: the words of an engine within an answer of 200 lower the
// cap too.
func TestCapIsFittedByWordsWithinAnAnswer(t *testing.T) {
	const said = `{"error":"Input validation error: inputs tokens + max_new_tokens must be <= 8192. Given: 5000 inputs tokens and %d max_new_tokens","error_type":"validation"}`
	for name, c := range map[string]struct {
		engine         format.Engine
		stream, framed string
	}{
		"a stream":   {format.EngineGeneric, "true", "data: %s\n\n"},
		"a document": {format.EngineGeneric, "false", "%s"},
		"gathered":   {format.EngineVLLM, "false", "data: %s\n\n"},
	} {
		engine := newScriptedEngine(t)
		var caps []int
		refuses := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			var body map[string]any
			if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			limit := number(body, "max_tokens")
			if caps = append(caps, limit); 5000+limit > 8192 {
				fmt.Fprintf(w, c.framed, fmt.Sprintf(said, limit))
				return
			}
			(*answers(http.StatusOK, served))(w, req)
		})
		engine.chat.Store(&refuses)
		r := newRig(t, func(s *setup) {
			s.backendURLs, s.profile, s.rates = []string{engine.URL}, format.Setting{Engine: c.engine, CapField: "max_tokens"}, &dialectRates
			s.service = func(svc *gatewayService) {
				svc.Models[0].Limits = format.Limits{ContextTokens: 8192, MaxCompletion: 4096, MinCompletion: 4, TemplateBase: 20, TemplatePerMessage: 5}
			}
		})
		k := r.buy(maxPurchase)
		text := fmt.Sprintf(`[{"role":"user","content":%q}]`, strings.Repeat("x", 12_500))
		a := r.chat(k, request("messages", text, "max_tokens", "", "stream", c.stream))
		if a.status != http.StatusOK || len(caps) != 2 || caps[1] != 3192 || !strings.Contains(string(a.body), "four") {
			t.Errorf("%s: status %d, caps %v\n%s", name, a.status, caps, a.body)
		}
		if s := r.fleet.Status()[0]; s.Failed != 0 {
			t.Errorf("%s: the backend is blamed: %+v", name, s)
		}
	}
}
