package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// TestCapIsFittedByTheEnginesWords: an engine that refuses prompt and cap together says what fits.
// If the client gave no cap, the gateway writes a cap that fits, however many bytes a token has.
func TestCapIsFittedByTheEnginesWords(t *testing.T) {
	const context = 8192
	words := map[string]func(prompt, limit int) string{
		"vLLM, older": func(p, c int) string {
			return fmt.Sprintf("This model's maximum context length is %d tokens. However, you requested %d tokens (%d in the messages, %d in the completion). Please reduce the length of the messages or completion.", context, p+c, p, c)
		},
		"vLLM": func(p, c int) string {
			return fmt.Sprintf("'max_tokens' or 'max_completion_tokens' is too large: %d. This model's maximum context length is %d tokens and your request has %d input tokens (%d > %d - %d).", c, context, p, c, context, p)
		},
		"SGLang": func(p, c int) string {
			return fmt.Sprintf("Requested token count exceeds the model's maximum context length of %d tokens. You requested a total of %d tokens: %d tokens from the input messages and %d tokens for the completion.", context, p+c, p, c)
		},
		"TGI": func(p, c int) string {
			return fmt.Sprintf("Input validation error: `inputs` tokens + `max_new_tokens` must be <= %d. Given: %d `inputs` tokens and %d `max_new_tokens`", context, p, c)
		},
	}
	for name, say := range words {
		for _, c := range []struct {
			prompt int
			bytes  float64 // of one token
		}{{5000, 2.5}, {5000, 2}, {7000, 4}, {7000, 3}, {7900, 5}, {3000, 4}, {8100, 2.5}, {6000, 5.5}} {
			engine := newScriptedEngine(t)
			var caps []int
			refuses := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				var body map[string]any
				if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
					t.Error(err)
				}
				limit := number(body, "max_tokens")
				if caps = append(caps, limit); c.prompt+limit > context {
					w.WriteHeader(http.StatusBadRequest)
					fmt.Fprintf(w, `{"error":{"message":%q,"type":"BadRequestError","code":400}}`, say(c.prompt, limit))
					return
				}
				(*answers(http.StatusOK, served))(w, req)
			})
			engine.chat.Store(&refuses)
			r := newRig(t, func(s *setup) {
				s.backendURLs, s.profile, s.rates = []string{engine.URL}, format.Setting{Engine: format.EngineGeneric, CapField: "max_tokens"}, &dialectRates
				s.service = func(svc *gatewayService) {
					svc.Models[0].Limits = format.Limits{ContextTokens: context, MaxCompletion: 4096, MinCompletion: 4, TemplateBase: 20, TemplatePerMessage: 5}
				}
			})
			k := r.buy(maxPurchase)
			text := fmt.Sprintf(`[{"role":"user","content":%q}]`, strings.Repeat("x", int(float64(c.prompt)*c.bytes)))
			a := r.chat(k, request("messages", text, "max_tokens", ""))
			r.idle(k)
			got := caps[len(caps)-1]
			if a.status != http.StatusOK || len(caps) > 2 || got > context-c.prompt || got < (context-c.prompt)/2 && got < 4096/2 {
				t.Errorf("%s, %d tokens of %.1f bytes: status %d, caps %v, %d fit\n%s", name, c.prompt, c.bytes, a.status, caps, context-c.prompt, a.body)
			}
			// A cap of the client is not changed.
			caps = nil
			if a := r.chat(k, request("messages", text, "max_tokens", "6000")); len(caps) != 1 || c.prompt+4096 > context && a.status != http.StatusBadRequest {
				t.Errorf("%s: a cap of the client: status %d, caps %v", name, a.status, caps)
			}
		}
	}
}

// TestOtherRefusalsAreNotFitted: other refusals do not lower the cap. A refusal that does not tell
// the length of the prompt lowers the cap to one that usually fits.
func TestOtherRefusalsAreNotFitted(t *testing.T) {
	for said, tries := range map[string]int{
		"temperature must be <= 2":                           1,
		"This model's maximum context length is 8192 tokens": 2,
		"the prompt has 9000 tokens":                         1,
	} {
		e := newScriptedEngine(t)
		e.chat.Store(answers(http.StatusBadRequest, fmt.Sprintf(`{"error":{"message":%q}}`, said)))
		r := newRig(t, func(s *setup) {
			s.backendURLs, s.rates = []string{e.URL}, &dialectRates
			s.service = func(svc *gatewayService) {
				svc.Models[0].Limits = format.Limits{ContextTokens: 8192, MaxCompletion: 4096, MinCompletion: 4, TemplateBase: 20, TemplatePerMessage: 5}
			}
		})
		k := r.buy(maxPurchase)
		text := fmt.Sprintf(`[{"role":"user","content":%q}]`, strings.Repeat("x", 12_000))
		r.chat(k, request("messages", text, "max_tokens", "")).wantProblem(t, http.StatusBadRequest, "invalid-request")
		r.wantSpent(k, 0)
		if n := int(e.chats.Load()); n != tries {
			t.Errorf("%q: asked %d times, want %d", said, n, tries)
		}
	}
}
