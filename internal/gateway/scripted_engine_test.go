package gateway_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// scriptedEngine is an inference server. A test may replace the handler of each path at any time.
type scriptedEngine struct {
	*httptest.Server
	health, models, chat atomic.Pointer[http.HandlerFunc]
	chats, checks        atomic.Int64
}

// served is the whole document of an answer.
const served = `{"choices":[{"index":0,"message":{"role":"assistant","content":"four"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}`

func answers(status int, body string) *http.HandlerFunc {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	return &h
}

// hangs takes the request and does not answer.
func hangs() *http.HandlerFunc {
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	return &h
}

func newScriptedEngine(t testing.TB) *scriptedEngine {
	e := new(scriptedEngine)
	e.health.Store(answers(http.StatusOK, `{}`))
	e.models.Store(answers(http.StatusOK, `{"object":"list","data":[]}`))
	e.chat.Store(answers(http.StatusOK, served))
	e.Server = httptest.NewUnstartedServer(e.handler())
	e.Start()
	t.Cleanup(e.Close)
	return e
}

func (e *scriptedEngine) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) { e.checks.Add(1); (*e.health.Load())(w, r) })
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) { (*e.models.Load())(w, r) })
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { e.chats.Add(1); (*e.chat.Load())(w, r) })
	return mux
}

// die ends the server, so that it refuses connections. revive starts another server at the same
// address.
func (e *scriptedEngine) die(t testing.TB) (revive func()) {
	addr := e.Listener.Addr().String()
	e.CloseClientConnections()
	e.Close()
	return func() {
		var l net.Listener
		for deadline := time.Now().Add(10 * time.Second); ; {
			var err error
			if l, err = net.Listen("tcp", addr); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		s := &httptest.Server{Listener: l, Config: &http.Server{Handler: e.handler()}}
		s.Start()
		t.Cleanup(s.Close)
	}
}

// engineRig returns a gateway with scripted engines as backends, and an account with money. every
// is the interval of the health checks; 0 leaves the rig's.
func engineRig(t testing.TB, every time.Duration, engines ...*scriptedEngine) (*rig, token) {
	r := newRig(t, func(s *setup) {
		s.backendURLs = nil
		for _, e := range engines {
			s.backendURLs = append(s.backendURLs, e.URL)
		}
		s.backend = func(b *gpuBackend) {
			b.FirstByteTimeout = time.Second
			if every > 0 {
				b.HealthPath, b.HealthFallback, b.HealthEvery = "/health", []string{"/v1/models"}, every
			}
		}
	})
	return r, r.mint(testService, newTokenID(), maxPurchase, tomorrow())
}

// decode reads the JSON of an answer into a value.
func (a *answer) decode(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// stranger sends a request without a credential.
func (r *rig) stranger() *answer { return r.do("POST", "/v1/chat/completions", request(), nil) }

// available returns whether /v1/models shows the model as available.
func (r *rig) available() bool {
	var list struct {
		Data []struct {
			L402 struct {
				Available *bool `json:"available"`
			} `json:"l402"`
		} `json:"data"`
	}
	r.do("GET", "/v1/models", "", nil).decode(r.t, &list)
	if len(list.Data) != 1 || list.Data[0].L402.Available == nil {
		r.t.Fatalf("the list of models does not say what is available: %+v", list)
	}
	return *list.Data[0].L402.Available
}

// ready returns the answer of /readyz.
func (r *rig) ready() (status int, parts, models map[string]string, warnings []string) {
	var body struct {
		Parts    map[string]string `json:"parts"`
		Models   map[string]string `json:"models_unavailable"`
		Warnings []string          `json:"warnings"`
	}
	a := r.do("GET", "/readyz", "", nil)
	a.decode(r.t, &body)
	return a.status, body.Parts, body.Models, body.Warnings
}
