package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering/format"
)

// TestWhiteSpaceBeforeAnAnswerIsSkipped: servers send blank lines as signs of life while they make
// an answer, and some servers send a byte order mark. Neither is part of a document, and the
// gateway skips both.
func TestWhiteSpaceBeforeAnAnswerIsSkipped(t *testing.T) {
	t.Parallel()
	events := roleEvent + word("four", "") + finishEvent + usageEvent(7, 3) + doneEvent
	for name, lead := range map[string]string{
		"600 blank lines":      strings.Repeat("\n", 600),
		"the same as CRLF":     strings.Repeat("\r\n", 600),
		"almost 64 KiB":        strings.Repeat(" ", 64<<10-100),
		"a mark":               "\ufeff",
		"a mark and space":     "\ufeff" + strings.Repeat("\n", 600),
		"a mark behind space":  strings.Repeat("\n", 510) + "\ufeff",
		"a mark at the border": strings.Repeat("\n", 511) + "\ufeff",
	} {
		for _, body := range []string{served, events} {
			for _, stream := range []string{"true", "false"} {
				for _, kind := range []string{"application/json", sse} {
					r := playing(t, format.EngineGeneric, says(kind, lead, body))
					k := r.buy(minPurchase)
					a := r.chat(k, request("stream", stream, "max_tokens", "24"))
					if a.status != http.StatusOK || !strings.Contains(string(a.body), "four") || strings.Contains(string(a.body), "\ufeff") ||
						stream == "false" && a.body[0] != '{' || stream == "true" && !strings.HasSuffix(string(a.body), doneEvent) {
						t.Errorf("%s, stream %s, %s: %d %.300q", name, stream, kind, a.status, a.body)
					}
					r.wantCharged(k, name, cost10(7, 3))
				}
			}
		}
	}
}

// TestWhiteSpaceBeforeALongDocumentIsSkipped: the same is skipped before a document that is too
// long to be held back.
func TestWhiteSpaceBeforeALongDocumentIsSkipped(t *testing.T) {
	r := playing(t, format.EngineGeneric, says("application/json", "\ufeff"+strings.Repeat("\n", 600), served), func(s *setup) {
		s.gateway = func(g *gateway.Config) { g.UnaryHoldBack = 64 }
	})
	k := r.buy(minPurchase)
	if a := r.chat(k, request()); a.status != http.StatusOK || string(a.body) != served {
		t.Errorf("%d %q", a.status, a.body)
	}
	r.wantCharged(k, "long", cost10(7, 3))
}

// TestWhiteSpaceAloneIsNoAnswer: endless white space is not an answer, and neither is half a byte
// order mark.
func TestWhiteSpaceAloneIsNoAnswer(t *testing.T) {
	for name, body := range map[string]string{
		"beyond the limit": strings.Repeat("\n", 65<<10) + served, "nothing else": strings.Repeat(" ", 600), "half a mark": "\xef\xbb",
		"two marks": "\ufeff\ufeff" + served,
	} {
		for _, stream := range []string{"true", "false"} {
			r := playing(t, format.EngineGeneric, says("application/json", body))
			k := r.buy(minPurchase)
			r.chat(k, request("stream", stream)).wantProblem(t, http.StatusBadGateway, "backend-unavailable")
			r.wantSpent(k, 0)
			if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); failed != 1 {
				t.Errorf("%s, stream %s: the backend was blamed %v times", name, stream, failed)
			}
		}
	}
}

// TestLeavingDuringWhiteSpaceBlamesNobody: if a client leaves a stream of which only white space
// came, the backend is not blamed.
func TestLeavingDuringWhiteSpaceBlamesNobody(t *testing.T) {
	for _, stream := range []string{"true", "false"} {
		r := playing(t, format.EngineGeneric, saysAndWaits("application/json", "\n\n"))
		k := r.buy(minPurchase)
		r.leave(k, request("stream", stream), 300*time.Millisecond)
		r.idle(k)
		if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); failed != 0 {
			t.Errorf("stream %s: the backend was blamed %v times", stream, failed)
		}
	}
}
