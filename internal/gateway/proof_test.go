package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// fromMany sends requests, each of its own account, until the model is not sold. The
// test fails if the model is still sold after most requests.
func fromMany(r *rig, most int) {
	r.t.Helper()
	for i := 0; r.available(); i++ {
		if i == most {
			r.t.Fatalf("still sold after %d requests that all failed: %+v", i, r.fleet.Status()[0])
		}
		k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
		if a := r.chat(k, request("messages", fmt.Sprintf(`[{"role":"user","content":"number %d"}]`, i))); a.status == http.StatusOK {
			r.t.Fatalf("served: %s", a.body)
		}
		r.wantSpent(k, 0)
	}
}

// TestNothingIsSoldThatFails: a model whose only backend fails all requests is sold to no stranger,
// however it fails and whatever its health check and its list of models answer. The model is sold
// again once a request succeeds, and the gateway's own request is the first to succeed.
func TestNothingIsSoldThatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*http.HandlerFunc{
		"a wrong key, its list is public":      answers(401, `{"error":{"message":"bad key"}}`),
		"a hosted service without credit":      answers(402, `{"error":{"message":"Insufficient Balance"}}`),
		"a quota that is used up":              answers(429, `{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}`),
		"a proxy on the way":                   answers(407, ``),
		"moved":                                answers(301, ``),
		"no such path":                         answers(404, `{"detail":"Not Found"}`),
		"no such path, a page":                 answers(404, `<html>404</html>`),
		"another method":                       answers(405, `{"detail":"Method Not Allowed"}`),
		"not implemented":                      answers(501, ``),
		"an error of the driver":               answers(500, `{"error":{"message":"CUDA error: the provided PTX was compiled with an unsupported toolchain."}}`),
		"a page":                               answers(200, `<html>hello</html>`),
		"a model that a hosted service denies": answers(400, `{"error":{"message":"Model Not Exist","type":"invalid_request_error"}}`),
		"another name of a model":              answers(400, `{"error":{"message":"upstream/demo is not a valid model ID","code":400}}`),
		"a model by its code":                  answers(404, `{"error":{"message":"Unable to access it","code":"model_not_available"}}`),
		"an error in events":                   answers(200, "data: {\"error\":{\"message\":\"CUDA error\",\"code\":500}}\n\ndata: [DONE]\n\n"),
		"it hangs":                             hangs(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newScriptedEngine(t)
			r, k := engineRig(t, 100*time.Millisecond, e)
			r.until("the first check", func() bool { return r.fleet.Status()[0].Checked })
			e.models.Store(answers(200, `{"object":"list","data":[{"id":"upstream/demo"}]}`))
			e.chat.Store(c)
			fromMany(r, 12)
			r.stranger().wantProblem(t, http.StatusServiceUnavailable, "backend-unavailable")
			r.until("readiness says so", func() bool { status, _, _, _ := r.ready(); return status == http.StatusServiceUnavailable })
			asked := e.chats.Load()
			r.until("it was asked by the gateway", func() bool { return e.chats.Load() > asked+1 })
			if r.available() {
				t.Error("it is sold although the gateway's own request failed")
			}
			e.chat.Store(answers(200, served))
			r.until("it is sold again", r.available)
			if a := r.chat(k, request()); a.status != http.StatusOK {
				t.Errorf("status %d\n%s", a.status, a.body)
			}
		})
	}
}

// TestAnswersThatBreakOffTakeNoModelOffSale: a backend whose answers break off is ejected, and its
// model is still sold, because the answers begin and clients pay only for what they got.
func TestAnswersThatBreakOffTakeNoModelOffSale(t *testing.T) {
	e := newScriptedEngine(t)
	r, _ := engineRig(t, 0, e)
	breaks := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"choices":[{"index":0,"message":{"content":"one tw`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	e.chat.Store(&breaks)
	for range 6 {
		k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
		r.chat(k, request()).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	}
	r.until("it is sold", r.available)
	r.stranger().wantProblem(t, http.StatusPaymentRequired, "payment-required")
}

// TestWordsOfClientsTakeNoModelOffSale: a client's words, which engines repeat in a 400, cannot
// make a model look unknown.
func TestWordsOfClientsTakeNoModelOffSale(t *testing.T) {
	e := newScriptedEngine(t)
	r, k := engineRig(t, 0, e)
	for _, said := range []string{
		"messages: Unexpected role 'unknown model' (model not found)", "tool 'model does not exist' is no function", "image not found in model"} {
		e.chat.Store(answers(400, fmt.Sprintf(`{"error":{"message":%q}}`, said)))
		for range 3 {
			a := r.chat(k, request())
			a.wantProblem(t, http.StatusBadRequest, "invalid-request")
		}
	}
	if !r.available() || strings.Contains(r.log.String(), "does not know the model") {
		t.Error("the model is taken for one that the backend does not know")
	}
}

// TestHealthPathOfOtherServers: the default health path shows nothing about a server that answers
// it with a redirect, a refusal or a bad request.
func TestHealthPathOfOtherServers(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 308, 400, 401, 406, 410, 421} {
		e := newScriptedEngine(t)
		e.health.Store(answers(status, ``))
		r, k := engineRig(t, 50*time.Millisecond, e)
		r.until("some checks", func() bool { return e.checks.Load() > 0 && r.fleet.Status()[0].Checked })
		time.Sleep(150 * time.Millisecond)
		if a := r.chat(k, request()); a.status != http.StatusOK || !r.available() {
			t.Errorf("%d on the health path: %d, sold %t", status, a.status, r.available())
		}
	}
}

// TestFailuresOfRequestsTakeNoModelOffSale: a backend that fails clients' requests, and serves the
// gateway's own request, is still sold, because the clients' requests may be at fault. The backend
// is used last.
func TestFailuresOfRequestsTakeNoModelOffSale(t *testing.T) {
	e := newScriptedEngine(t)
	r, _ := engineRig(t, 0, e)
	picky := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		if strings.Contains(string(body), `"Hi"`) {
			(*answers(200, served))(w, req)
			return
		}
		(*answers(502, ``))(w, req)
	})
	e.chat.Store(&picky)
	for range 8 {
		k := r.mint(testService, newTokenID(), maxPurchase, tomorrow())
		r.chat(k, request()).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
	}
	if !r.fleet.Status()[0].Ejected {
		t.Error("the backend is not ejected")
	}
	r.until("it is sold", r.available)
	e.chat.Store(answers(200, served))
	r.until("it serves", func() bool {
		return r.chat(r.mint(testService, newTokenID(), maxPurchase, tomorrow()), request()).status == http.StatusOK
	})
}
