package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// marked is in the prompts that a picky engine refuses.
const marked = "MARKED"

// picky answers marked requests with refuse, and serves all others.
func picky(refuse *http.HandlerFunc) *http.HandlerFunc {
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		req.Body = io.NopCloser(strings.NewReader(""))
		if strings.Contains(string(body), marked) {
			(*refuse)(w, req)
			return
		}
		(*answers(http.StatusOK, served))(w, req)
	})
	return &h
}

// asking returns a request with this prompt.
func asking(prompt string) string {
	return request("messages", fmt.Sprintf(`[{"role":"user","content":%q}]`, prompt))
}

// TestForbiddenRequestTakesNoBackendFromOthers: a 403 about a client's prompt concerns only that
// client. The client is told, and told not to retry. The backend serves all others, whatever its
// list of models answers.
func TestForbiddenRequestTakesNoBackendFromOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"moderation":       {`{"error":{"message":"openai/o3 requires moderation on OpenAI. Your input was flagged for \"illicit\". No credits were charged.","code":403}}`, "Your input was flagged"},
		"one word":         {`{"error":{"message":"flagged","code":403}}`, "flagged"},
		"words of no kind": {`{"error":{"message":"this cannot be done"}}`, "this cannot be done"},
		"a firewall":       {`<html><head><title>403 Forbidden</title></head></html>`, "status 403"},
	} {
		for _, models := range []int{http.StatusOK, http.StatusForbidden} {
			t.Run(fmt.Sprint(name, models), func(t *testing.T) {
				t.Parallel()
				e := newScriptedEngine(t)
				e.chat.Store(picky(answers(http.StatusForbidden, c.body)))
				e.models.Store(answers(models, `{"object":"list","data":[]}`))
				r, good := engineRig(t, 0, e)
				bad := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
				if a := r.chat(good, request()); a.status != http.StatusOK {
					t.Fatalf("status %d\n%s", a.status, a.body)
				}
				for round := range 3 {
					var burst sync.WaitGroup
					for i := range 6 {
						burst.Go(func() {
							a := r.chat(bad, asking(fmt.Sprint(marked, round, i)))
							p := a.wantProblem(t, http.StatusBadRequest, "invalid-request")
							if a.header.Get("X-Should-Retry") != "false" || !strings.Contains(fmt.Sprint(p["detail"]), c.want) {
								t.Errorf("retry %q, detail %q", a.header.Get("X-Should-Retry"), p["detail"])
							}
						})
					}
					burst.Wait()
					time.Sleep(20 * time.Millisecond) // time for a verdict, which must not come
					if a := r.chat(good, asking(fmt.Sprint("round ", round))); a.status != http.StatusOK {
						t.Fatalf("another buyer: %d %s", a.status, a.body)
					}
					r.stranger().wantProblem(t, http.StatusPaymentRequired, "payment-required")
				}
				if s := r.fleet.Status()[0]; s.Ejected || s.KeyRefused {
					t.Errorf("status %+v", s)
				}
				r.wantSpent(bad, 0)
			})
		}
	}
}

// TestRefusedKeyIsJudgedByWhatIsSold: one refusal shows that a backend refuses the gateway's key for
// everything, and a request shows that the backend accepts the key again. The list of models
// refuses this key all the time.
func TestRefusedKeyIsJudgedByWhatIsSold(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		e := newScriptedEngine(t)
		e.models.Store(answers(http.StatusForbidden, `{"error":{"message":"Missing scopes: api.model.read"}}`))
		r, k := engineRig(t, 0, e)
		if a := r.chat(k, request()); a.status != http.StatusOK {
			t.Fatalf("status %d\n%s", a.status, a.body)
		}
		e.chat.Store(answers(status, `{"error":{"message":"Your account has no access: incorrect API key sk-123","type":"invalid_request_error"}}`))
		a := r.chat(k, request())
		if a.status != http.StatusBadGateway && a.status != http.StatusServiceUnavailable || strings.Contains(string(a.body), "sk-123") || strings.Contains(string(a.body), "account has") {
			t.Errorf("%d: status %d\n%s", status, a.status, a.body)
		}
		r.until("it is known", func() bool { return r.fleet.Status()[0].KeyRefused && !r.available() })
		r.stranger().wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
		e.chat.Store(answers(http.StatusOK, served))
		r.until("it is sold again", r.available)
		if a := r.chat(k, request()); a.status != http.StatusOK {
			t.Errorf("status %d\n%s", a.status, a.body)
		}
	}
}

// TestForbiddenByTheKeyGoesOnToAnotherBackend: if the key may not do something at one backend, the
// other backend is asked, and the client is told nothing about the owner's key.
func TestForbiddenByTheKeyGoesOnToAnotherBackend(t *testing.T) {
	good, bad := newScriptedEngine(t), newScriptedEngine(t)
	bad.chat.Store(answers(http.StatusForbidden, `{"error":{"message":"You have insufficient permissions for this operation"}}`))
	r, k := engineRig(t, 0, good, bad)
	for range 8 {
		if a := r.chat(k, request()); a.status != http.StatusOK {
			t.Fatalf("status %d\n%s", a.status, a.body)
		}
	}
	r.until("it is known", func() bool { return r.fleet.Status()[1].KeyRefused })
}
