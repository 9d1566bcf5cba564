package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRequestThatTheEngineCannotServe: a client is told in the engine's words if the engine can
// never serve the request, and is told not to retry. The backend remains in use for all others.
func TestRequestThatTheEngineCannotServe(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"llama.cpp": {`{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}`, "image input is not supported"},
		"vLLM":      {`{"object":"error","message":"upstream/demo is not a multimodal model","type":"BadRequestError","param":null,"code":500}`, "demo is not a multimodal model"},
		"Ollama":    {`{"error":{"message":"registry.ollama.ai/library/x does not support tools","type":"api_error","param":null,"code":null}}`, "does not support tools"},
		"bare text": {`{"error":"Unsupported: grammar","error_type":"validation"}`, "Unsupported: grammar"},
		"FastAPI":   {`{"detail":[{"loc":["body"],"msg":"logprobs not supported"}]}`, "logprobs not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newScriptedEngine(t)
			r, k := engineRig(t, 0, e)
			e.chat.Store(answers(500, c.body))
			for range 5 {
				a := r.chat(k, request())
				p := a.wantProblem(t, http.StatusBadRequest, "invalid-request")
				if a.header.Get("X-Should-Retry") != "false" {
					t.Error("an SDK would repeat it")
				}
				if detail := fmt.Sprint(p["detail"]); !strings.Contains(detail, c.want) || strings.Contains(detail, "upstream/") || strings.Contains(detail, "registry.ollama.ai") {
					t.Errorf("detail %q", detail)
				}
			}
			if s := r.fleet.Status()[0]; s.Ejected || s.Failed != 0 {
				t.Errorf("the backend is blamed: %+v", s)
			}
			r.wantSpent(k, 0)
		})
	}
}

// TestFailureOfUnknownFaultNeedsSeveralAccounts: a 500 with unknown words may be the fault of the
// request or of the engine. So one account's failures do not take the backend away from the others,
// and failures of many accounts show that the backend is broken.
func TestFailureOfUnknownFaultNeedsSeveralAccounts(t *testing.T) {
	good, bad := newScriptedEngine(t), newScriptedEngine(t)
	r, k := engineRig(t, 0, good, bad)
	strange := `{"error":{"message":"CUDA error at /opt/venv/lib/python3.12/site-packages/vllm/worker.py on gpu-7.cluster.local:8000 (10.1.2.3): shape mismatch","type":"internal"}}`
	bad.chat.Store(answers(500, strange))
	failed := 0
	for i := range 12 { // idle backends take turns
		a := r.chat(k, request("messages", fmt.Sprintf(`[{"role":"user","content":"number %d"}]`, i)))
		if a.status == http.StatusOK {
			continue
		}
		failed++
		p := a.wantProblem(t, http.StatusBadGateway, "backend-unavailable")
		detail := fmt.Sprint(p["detail"])
		if !strings.Contains(detail, "CUDA error") || !strings.Contains(detail, "shape mismatch") {
			t.Errorf("detail %q does not say what the engine said", detail)
		}
		for _, secret := range []string{"/opt", "worker.py", "gpu-7", "10.1.2.3"} {
			if strings.Contains(string(a.body), secret) {
				t.Errorf("the answer tells %q: %s", secret, a.body)
			}
		}
		if a.header.Get("X-Should-Retry") != "" {
			t.Error("a failure that was seen once is not repeated")
		}
	}
	if failed < 4 || r.fleet.Status()[1].Ejected {
		t.Errorf("%d failures of one account: %+v", failed, r.fleet.Status()[1])
	}
	// For a second failure of the same body, a retry is pointless.
	body, last := request("messages", `[{"role":"user","content":"again"}]`), (*answer)(nil)
	for seen := 0; seen < 2; {
		if a := r.chat(k, body); a.status != http.StatusOK {
			last = a
			seen++
		}
	}
	if last.header.Get("X-Should-Retry") != "false" {
		t.Error("a request that fails again and again is repeated for ever")
	}
	for i := 0; !r.fleet.Status()[1].Ejected; i++ {
		if i == 20 {
			t.Fatalf("a backend that fails everybody is not ejected: %+v", r.fleet.Status()[1])
		}
		r.chat(r.mint(testService, newTokenID(), maxPurchase, tomorrow()), request())
	}
}

// TestFailureWithoutWordsIsTheBackends: a failure without an engine's words is the backend's fault.
func TestFailureWithoutWordsIsTheBackends(t *testing.T) {
	good, bad := newScriptedEngine(t), newScriptedEngine(t)
	r, k := engineRig(t, 0, good, bad)
	bad.chat.Store(answers(502, `<html>Bad Gateway</html>`))
	for i := 0; !r.fleet.Status()[1].Ejected; i++ {
		if i == 8 {
			t.Fatalf("not ejected: %+v", r.fleet.Status()[1])
		}
		if a := r.chat(k, request()); a.status != http.StatusOK && strings.Contains(string(a.body), "html") {
			t.Errorf("a page is passed on: %s", a.body)
		}
	}
}

func TestEnginesMessagesAreShort(t *testing.T) {
	e := newScriptedEngine(t)
	r, k := engineRig(t, 0, e)
	long, err := json.Marshal(strings.Repeat("prompt is too long — ", 1000))
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{400, 413, 422, 500} {
		e.chat.Store(answers(status, `{"error":{"message":`+string(long)+`,"param":"messages"}}`))
		a := r.chat(k, request())
		detail, _ := a.json(t)["detail"].(string)
		if len(detail) > 600 || !strings.Contains(detail, "prompt is too long") {
			t.Errorf("%d: detail of %d bytes", status, len(detail))
		}
		if status != 500 && (a.status != status || a.json(t)["param"] != "messages") {
			t.Errorf("%d: status %d %s", status, a.status, a.body)
		}
	}
}

// TestBackendThatRefusesTheKey: if one backend refuses the gateway's key, the owner must correct
// the key, and no buyer loses by it.
func TestBackendThatRefusesTheKey(t *testing.T) {
	t.Parallel()
	good, bad := newScriptedEngine(t), newScriptedEngine(t)
	bad.models.Store(answers(401, `{"error":"bad key"}`))
	bad.chat.Store(answers(401, `{"error":"bad key"}`))
	r, k := engineRig(t, 100*time.Millisecond, good, bad)
	r.until("the first checks", func() bool { s := r.fleet.Status(); return s[0].Checked && s[1].Checked })
	for range 20 {
		if a := r.chat(k, request()); a.status != http.StatusOK {
			t.Errorf("status %d\n%s", a.status, a.body)
		}
	}
	if n := bad.chats.Load(); n < 1 || n > 3 {
		t.Errorf("it was asked %d times, want once, or thrice at most", n)
	}
	r.until("it is known to refuse the key", func() bool { return r.fleet.Status()[1].KeyRefused })
	if n := strings.Count(r.log.String(), "refuses the gateway's key"); n != 1 || !strings.Contains(r.log.String(), "level=ERROR") {
		t.Errorf("logged %d times, want once", n)
	}
	status, _, _, warnings := r.ready()
	if status != http.StatusOK || len(warnings) != 1 || !strings.Contains(warnings[0], "key") {
		t.Errorf("readiness: %d %v", status, warnings)
	}
	if r.metric(`sluice_backend_key_refused{backend="gpu1"}`) != 1 {
		t.Error("the metric does not show it")
	}
	good.chat.Store(answers(401, "{}"))
	good.models.Store(answers(401, "{}"))
	r.until("both refuse it", func() bool { return r.chat(k, request()).status == http.StatusServiceUnavailable && !r.available() })
	r.until("readiness says so", func() bool {
		status, parts, _, _ := r.ready()
		return status == http.StatusServiceUnavailable && strings.Contains(parts["backends"], "key")
	})
	// The owner corrects the key at the backend.
	bad.chat.Store(answers(200, served))
	bad.models.Store(answers(200, "{}"))
	r.until("it is used again", func() bool { return r.chat(k, request()).status == http.StatusOK })
}

// TestOneRefusalOfTheKeyIsConfirmed: a single 401 is about the request if the backend accepts the
// key for another request.
func TestOneRefusalOfTheKeyIsConfirmed(t *testing.T) {
	e := newScriptedEngine(t)
	r, k := engineRig(t, 0, e)
	e.chat.Store(picky(answers(401, "{}")))
	for range 3 {
		r.chat(k, asking(marked)).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	}
	for range 10 {
		if a := r.chat(k, request()); a.status != http.StatusOK {
			t.Fatalf("status %d\n%s", a.status, a.body)
		}
	}
	if r.fleet.Status()[0].KeyRefused {
		t.Error("the backend is taken for one that refuses the key")
	}
}

// TestMisnamedModelIsSaidOnceAndNotSold: if the backend does not know the model's name, operators
// are told once, and the model is not sold.
func TestMisnamedModelIsSaidOnceAndNotSold(t *testing.T) {
	t.Parallel()
	good, bad := newScriptedEngine(t), newScriptedEngine(t)
	r, k := engineRig(t, 0, good, bad)
	missing := answers(404, "{\"error\":{\"message\":\"The model `upstream/demo` does not exist.\",\"type\":\"NotFoundError\",\"code\":404}}")
	bad.chat.Store(missing)
	for range 10 {
		if a := r.chat(k, request()); a.status != http.StatusOK {
			t.Errorf("status %d\n%s", a.status, a.body)
		}
	}
	if n := bad.chats.Load(); n != 1 {
		t.Errorf("it was asked %d times, want once", n)
	}
	var told bool
	for line := range strings.SplitSeq(r.log.String(), "\n") {
		if strings.Contains(line, "does not know the model") {
			if told || !strings.Contains(line, "level=WARN") || !strings.Contains(line, "backend=gpu1") || !strings.Contains(line, "does not exist") || !strings.Contains(line, "upstream/demo") {
				t.Errorf("log line %q", line)
			}
			told = true
		}
	}
	if !told {
		t.Error("the log does not say it")
	}
	if a := r.ask("GET", "/admin/backends", adminToken); !strings.Contains(string(a.body), `"unknown_models":{"demo":`) {
		t.Errorf("the operator does not see it: %s", a.body)
	}
	good.chat.Store(missing)
	a := r.chat(k, request())
	a.wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if strings.Contains(string(a.body), "upstream") {
		t.Errorf("the answer tells the backend's name of the model: %s", a.body)
	}
	r.stranger().wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
	if r.available() {
		t.Error("it is listed as available")
	}
	good.chat.Store(answers(200, served))
	good.models.Store(answers(200, `{"object":"list","data":[{"id":"other"},{"id":"upstream/demo"}]}`))
	r.until("it is sold again", r.available)
	if a := r.chat(k, request()); a.status != http.StatusOK {
		t.Errorf("status %d\n%s", a.status, a.body)
	}
}
