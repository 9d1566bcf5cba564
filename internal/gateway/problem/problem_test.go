package problem_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway/problem"
	"sluice.example/sluice/metering"
)

// TestOperatorsWordsStayHere: no body has the fields that are only for the log or for the
// connection, in any dialect.
func TestOperatorsWordsStayHere(t *testing.T) {
	p := problem.Retryable(problem.New(http.StatusBadGateway, problem.BackendUnavailable, "the backend failed"), time.Minute)
	p.Challenge, p.NoRetry, p.CloseClient, p.Expected = `L402 macaroon="secret"`, true, true, true
	p.Cause = errors.New("key sk-1 at 10.0.0.1")
	for _, d := range []problem.Dialect{problem.Plain, problem.OpenAI, problem.Anthropic} {
		w := httptest.NewRecorder()
		p.WriteAs(w, d)
		var body map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body["detail"] != "the backend failed" {
			t.Fatalf("dialect %d: %v: %s", d, err, w.Body)
		}
		for name := range body {
			switch name {
			case "type", "title", "status", "detail", "error", "message", "problem":
			default:
				t.Errorf("dialect %d has a member %q: %s", d, name, w.Body)
			}
		}
		if text := w.Body.String(); strings.Contains(text, "sk-1") || strings.Contains(text, "secret") {
			t.Errorf("dialect %d tells %s", d, text)
		}
	}
}

// TestUnknownErrorTellsNothing: an error that For does not list is a 500 without the error's text.
func TestUnknownErrorTellsNothing(t *testing.T) {
	p := problem.For(errors.New("pq: password of 10.0.0.1"))
	if p.Status != http.StatusInternalServerError || strings.Contains(p.Detail, "10.0.0.1") {
		t.Errorf("the client is told %d %q", p.Status, p.Detail)
	}
	if p := problem.For(metering.ErrBusy); p.Status != http.StatusServiceUnavailable || p.Kind() != problem.QueueFull {
		t.Errorf("a busy ledger is a %d %s", p.Status, p.Kind())
	}
}
