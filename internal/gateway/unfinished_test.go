package gateway_test

import (
	"strings"
	"testing"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
)

// endingWord is an event with a word and a finish_reason.
func endingWord(text, reason string) string {
	return `data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":"` + reason + `"}]}` + "\n\n"
}

// A finish_reason that text comes after was none, whatever it is called; nor is a word
// that says that the answer goes on.
func TestReasonThatIsNoEnd(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"FINISH_REASON_UNSPECIFIED", "in_progress", "continue", "unfinished", "not_finished", "incomplete", "running",
		"generating", "pending", "partial", "streaming", "no", "false", "-", "N/A", "laufend", "stop"} {
		for _, c := range []struct {
			body    string
			outcome metering.Outcome
		}{
			{strings.Repeat(endingWord("four", reason), 5), metering.OutcomeBackendCut},
			{strings.Repeat(endingWord("four", reason), 5) + endingWord("", "length"), metering.OutcomeComplete},
			{strings.Repeat(endingWord("four", reason), 5) + finishEvent + usageEvent(50, 5), ""},
		} {
			want := c.outcome
			if want == "" {
				if want = metering.OutcomeComplete; reason == "stop" {
					want = metering.OutcomeBackendCut // nothing tells this one from the others
				}
			}
			r := playing(t, format.EngineGeneric, says(sse, c.body))
			k := r.buy(minPurchase)
			a := r.chat(k, asStream(100))
			e := r.lastCharge(k)
			if whole := strings.Contains(string(a.body), "[DONE]"); e.Outcome != want || whole != (want == metering.OutcomeComplete) {
				t.Errorf("%s: %s for %s", reason, e.Outcome, tail([]byte(c.body)))
			}
		}
	}
}

// What follows the end makes the answer no less whole: a usage, an event without text, a
// member that is not known, and, behind a word that is known to be an end, the marker.
func TestWhatFollowsTheEnd(t *testing.T) {
	text := strings.Repeat(word("four", ""), 5)
	for name, body := range map[string]string{
		"nothing":         text + finishEvent,
		"a new reason":    text + endingWord("", "fini"),
		"a usage":         text + finishEvent + usageEvent(50, 5),
		"an empty delta":  text + finishEvent + delta(`"delta":{"content":""}`, ""),
		"a role":          text + finishEvent + roleEvent,
		"a second reason": text + finishEvent + finishEvent,
		"a new member":    text + finishEvent + delta(`"delta":{"note":"made by a model"}`, ""),
		"the marker":      strings.Repeat(endingWord("four", "stop"), 5) + doneEvent,
		"the marker, n 2": text + finishEvent + strings.ReplaceAll(text+finishEvent, `"index":0`, `"index":1`) + doneEvent,
	} {
		r := playing(t, format.EngineGeneric, says(sse, body))
		k := r.buy(minPurchase)
		a := r.chat(k, asStream(100))
		if e := r.lastCharge(k); e.Outcome != metering.OutcomeComplete || !strings.Contains(string(a.body), "[DONE]") {
			t.Errorf("%s: %s %s", name, e.Outcome, tail(a.body))
		}
	}
}
