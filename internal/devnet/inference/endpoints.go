package inference

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// guarded calls next only for a request with the API key, if the server has an API key.
func (s *Server) guarded(next http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte(s.cfg.APIKey))
	return func(w http.ResponseWriter, r *http.Request) {
		key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(key))
		if s.cfg.APIKey != "" && subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			writeError(w, &apiError{http.StatusUnauthorized, "AuthenticationError", "Unauthorized: this server wants its API key as a bearer token."})
			return
		}
		next(w, r)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "cannot encode the answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // an error means that the client is gone and needs no answer
}

// writeError answers with an error in the form of the OpenAI API.
func writeError(w http.ResponseWriter, err error) {
	api := &apiError{http.StatusInternalServerError, "InternalServerError", ""}
	errors.As(err, &api)
	writeJSON(w, api.Status, map[string]any{"error": map[string]any{
		"message": err.Error(), "type": api.Kind, "param": nil, "code": api.Status,
	}})
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{map[string]any{
		"id": s.cfg.Model, "object": "model", "created": s.started.Unix(), "owned_by": "sluice",
		"root": s.cfg.Model, "parent": nil, "max_model_len": s.cfg.MaxModelLen,
	}}})
}

// tokenize counts the tokens of a prompt or of messages, as vLLM's /tokenize does.
func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	body, o, err := readObject(r)
	s.record(r, body)
	if err != nil {
		writeError(w, err)
		return
	}
	switch p := s.script.standing(); {
	case p.tokenizeStall:
		<-r.Context().Done()
		return
	case p.tokenizeStatus != 0:
		writeError(w, &apiError{p.tokenizeStatus, "ScriptedError", "scripted fault"})
		return
	}
	q, err := s.parseTokenize(o)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"count": q.promptTokens(), "max_model_len": s.cfg.MaxModelLen, "tokens": q.prompt, "token_strs": nil,
	})
}

func (s *Server) parseTokenize(o object) (*chatRequest, error) {
	q := &chatRequest{prompt: []int{}}
	var prompt *string
	generation := true
	name := s.cfg.Model
	err := errors.Join(o.get("model", &name), o.get("prompt", &prompt), o.get("add_generation_prompt", &generation))
	switch {
	case err != nil:
		return nil, err
	case name != s.cfg.Model:
		return nil, &apiError{http.StatusNotFound, "NotFoundError", fmt.Sprintf("The model `%s` does not exist.", name)}
	case prompt != nil:
		q.prompt = s.model.tok.Append(q.prompt, *prompt)
		return q, nil
	}
	return q, s.parsePrompt(q, o, generation)
}

func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	_, o, err := readObject(r)
	var ids []int
	var text string
	if err == nil {
		err = o.get("tokens", &ids)
	}
	if err == nil {
		if text, err = s.model.tok.Decode(ids); err != nil {
			err = badRequest("tokens: %v", err)
		}
	}
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"prompt": text})
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if status := s.script.standing().healthStatus; status != 0 {
		w.WriteHeader(status)
	}
}

// kvTokensPerSlot is how many tokens the simulated KV cache holds per slot.
const kvTokensPerSlot = 1024

// metrics writes the metrics of vLLM that a gateway reads.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	st := s.Stats()
	kv := float64(s.count.cachedTokens.Load()) / float64(s.cfg.Slots*kvTokensPerSlot)
	var b strings.Builder
	sample := func(name, kind, help string, value float64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s{model_name=%q} %v\n", name, help, name, kind, name, s.cfg.Model, value)
	}
	sample("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.", float64(st.Running))
	sample("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed.", float64(st.Waiting))
	sample("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", min(kv, 1))
	sample("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed.", float64(st.PromptTokens))
	sample("vllm:generation_tokens_total", "counter", "Number of generation tokens processed.", float64(st.GeneratedTokens))
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write([]byte(b.String())) // an error means that the client is gone and needs no answer
}
