package gateway_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// lastBlock returns the last block of a stream, without its blank line.
func lastBlock(t *testing.T, stream string) []string {
	t.Helper()
	if !strings.HasSuffix(stream, "\n\n") {
		t.Fatalf("the stream ends within an event:\n%s", tail([]byte(stream)))
	}
	blocks := strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n")
	return strings.Split(blocks[len(blocks)-1], "\n")
}

// wantErrorFrame checks the end of a stream that is not whole. It must have the lines that make the
// official SDKs raise an error, in an order that suits all of them.
func wantErrorFrame(t *testing.T, what, stream, kind, code, words string) {
	t.Helper()
	lines := lastBlock(t, stream)
	if len(lines) != 3 || !strings.HasPrefix(lines[0], `data: {"error":{"message":"`) || lines[1] != "event: error" || !strings.HasPrefix(lines[2], ": l402 ") {
		t.Errorf("%s: the last block is %q", what, lines)
		return
	}
	var data struct {
		Error map[string]any `json:"error"`
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[0], "data: ")), &data); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	param, hasParam := data.Error["param"]
	message, _ := data.Error["message"].(string)
	if data.Error["type"] != kind || data.Error["code"] != code || param != nil || !hasParam || len(data.Error) != 4 || !strings.Contains(message, words) {
		t.Errorf("%s: the error is %v, want type %s, code %s and %q", what, data.Error, kind, code, words)
	}
	if strings.Contains(stream, "[DONE]") {
		t.Errorf("%s: it looks whole", what)
	}
	wantBlocksWithData(t, what, stream)
}

// wantBlocksWithData checks that each block has data, and that no line is in the stream which makes
// SDKs fail. A comment before a block is not such a line.
func wantBlocksWithData(t *testing.T, what, stream string) {
	t.Helper()
	for _, block := range strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		if strings.Count("\n"+block, "\ndata: ") != 1 {
			t.Errorf("%s: a block has not one line of data: %q", what, block)
		}
		for line := range strings.SplitSeq(block, "\n") {
			if strings.HasPrefix(line, "id:") || strings.HasPrefix(line, "retry:") || strings.Contains(line, "\r") || line == "" {
				t.Errorf("%s: the line %q is in %q", what, line, block)
			}
		}
	}
}

func TestStreamCutByTheBackendNeverLooksWhole(t *testing.T) {
	words := word("one ", "") + word("two ", "")
	unended := func(reason string) string {
		return strings.ReplaceAll(words, `"finish_reason":null`, `"finish_reason":`+reason)
	}
	for name, c := range map[string]struct {
		body, code, words string
	}{
		"no end":                     {roleEvent + words, "backend_cut", "broke off"},
		"within an event":            {roleEvent + words + `data: {"choices":[{"index":0,"del`, "backend_cut", "broke off"},
		"an empty reason":            {unended(`""`), "backend_cut", "broke off"},
		"a reason that is null":      {unended(`"null"`), "backend_cut", "broke off"},
		"a usage and no end":         {words + usageEvent(12, 2), "backend_cut", "broke off"},
		"an error, then the marker":  {words + `data: {"error":{"message":"CUDA out of memory","type":"InternalServerError","code":500}}` + "\n\n" + doneEvent, "backend_failed", "CUDA out of memory"},
		"an error by its name":       {words + "event: error\ndata: {\"message\":\"lost a worker\"}\n\n" + doneEvent, "backend_failed", "lost a worker"},
		"an error as an object":      {words + `data: {"object":"error","message":"too long","code":400}` + "\n\n" + doneEvent, "backend_failed", "too long"},
		"an error of llama.cpp":      {words + `error: {"code":500,"message":"slot lost"}` + "\n\n", "backend_failed", "slot lost"},
		"an error outside of events": {words + `{"error":{"message":"gone"}}` + "\n", "backend_failed", "gone"},
		"half a chunk":               {words + `data: {"choices":[{"index":0,"del` + "\n\n" + doneEvent, "backend_failed", "not valid JSON"},
	} {
		r := playing(t, format.EngineGeneric, says(sse, c.body))
		k := r.buy(minPurchase)
		a := r.chat(k, asStream(24))
		wantErrorFrame(t, name, string(a.body), "backend-unavailable", c.code, c.words)
		e := r.lastCharge(k)
		if told, _ := comment(t, a.body); e.Outcome != metering.OutcomeBackendCut || told != e.Charged || e.Usage[pricing.OutputTokens] != 2 {
			t.Errorf("%s: told %d, entry %+v", name, told, e)
		}
		if failed := r.metric(`sluice_backend_failures_total{backend="gpu0"}`); (failed == 1) != !strings.Contains(c.body, `"code":400`) {
			t.Errorf("%s: the backend was blamed %v times", name, failed)
		}
	}
}

func TestStreamCutByTheBalanceNeverLooksWhole(t *testing.T) {
	r := playing(t, format.EngineVLLM, says(sse, strings.Repeat(word("a ", ""), 40)+finishEvent+doneEvent), func(s *setup) {
		rates := dialectRates
		rates[pricing.Bytes] = 50_000_000 // bytes have no bound beforehand
		s.rates = &rates
	})
	k := r.buy(minPurchase)
	a := r.chat(k, asStream(100))
	wantErrorFrame(t, "balance", string(a.body), "insufficient-balance", "balance_exhausted", "top up")
	if e := r.lastCharge(k); e.Outcome != metering.OutcomeHoldExhausted {
		t.Errorf("entry %+v", e)
	}
}

func TestStreamCutAtTheCapNeverLooksWhole(t *testing.T) {
	var events strings.Builder
	for i := range 40 {
		events.WriteString(word("a ", `,"usage":{"prompt_tokens":12,"completion_tokens":`+amountText(l402Msat(i+1))+`}`))
	}
	r := playing(t, format.EngineVLLM, says(sse, events.String()+finishEvent+doneEvent))
	k := r.buy(minPurchase)
	a := r.chat(k, asStream(10))
	wantErrorFrame(t, "cap", string(a.body), "backend-unavailable", "cap_exceeded", "beyond the cap")
	r.wantCharged(k, "cap", cost10(12, 10))
	if r.metric(`sluice_backend_overruns_total{backend="gpu0",kind="completion"}`) != 1 ||
		r.metric(`sluice_backend_overrun_msat_total{backend="gpu0"}`) != 10 || r.metric(`sluice_unbilled_msat_total{model="demo"}`) != 10 {
		t.Error("what was delivered beyond the cap does not show in the metrics")
	}
	if !strings.Contains(r.log.String(), "delivered more than its request could cost") {
		t.Error("nobody was warned")
	}
}

func TestStreamCutByADrainNeverLooksWhole(t *testing.T) {
	r := playing(t, format.EngineGeneric, saysAndWaits(sse, roleEvent, word("one ", "")))
	k := r.buy(minPurchase)
	resp := r.open(t.Context(), "POST", chatPath, asStream(24), k.with())
	begun := readEvents(t, resp.Body, 2)
	limit, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	go r.gw.Drain(limit, r.srv)
	rest, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	wantErrorFrame(t, "drain", string(begun)+string(rest), "backend-unavailable", "shutting_down", "repeat")
}

// TestEventsArriveAsEverySDKReadsThem: whatever the backend's events look like, each event arrives
// in a form that every SDK can read, and the comment with the cost is in the block of the end
// marker.
func TestEventsArriveAsEverySDKReadsThem(t *testing.T) {
	whole := roleEvent + word("one ", "") + word("two ", "") + finishEvent + doneEvent
	line := strings.ReplaceAll(whole, "\n\n", "\n")
	for name, body := range map[string]string{
		"lf":                      whole,
		"crlf":                    strings.ReplaceAll(whole, "\n", "\r\n"),
		"cr":                      strings.ReplaceAll(whole, "\n", "\r"),
		"one lf":                  line,
		"one crlf":                strings.ReplaceAll(line, "\n", "\r\n"),
		"one cr":                  strings.ReplaceAll(line, "\n", "\r"),
		"ids, names and retries":  "retry: 100\n\n" + strings.ReplaceAll(whole, "data:", "id: 7\nevent: message\ndata:") + "id: 9\n\n",
		"blocks without data":     "event: open\n\n\n\n" + strings.ReplaceAll(whole, "data: ", "event: tick\n\ndata: "),
		"no line end at the end":  strings.TrimSuffix(whole, "\n\n"),
		"one line end at the end": strings.TrimSuffix(whole, "\n"),
		"no end marker":           strings.TrimSuffix(whole, doneEvent),
		"neither":                 strings.TrimSuffix(whole, "\n\n"+doneEvent),
		"objects in two lines":    strings.ReplaceAll(whole, `,"choices"`, ",\ndata: \"choices\""),
		"heartbeats":              strings.ReplaceAll(whole, "data: {", "data: ping\n\ndata: {"),
		"other objects":           strings.ReplaceAll(whole, "data: {", "data: {\"type\":\"ping\"}\n\ndata: {"),
		"a byte order mark":       "\ufeff" + whole,
		"a cost of its own":       ": l402 cost_msat=1 balance_msat=1\n\n" + whole,
	} {
		r := playing(t, format.EngineGeneric, says(sse, body))
		k := r.buy(minPurchase)
		a := r.chat(k, asStream(24))
		stream := string(a.body)
		wantBlocksWithData(t, name, stream)
		if got := dataLines(a.body); len(got) != 5 || !strings.Contains(got[1], `"one "`) || !strings.Contains(got[2], `"two "`) || got[4] != "[DONE]" {
			t.Errorf("%s: the client got %q", name, got)
		}
		if end := lastBlock(t, stream); len(end) != 2 || !strings.HasPrefix(end[0], ": l402 cost_msat=") || end[1] != "data: [DONE]" || strings.Count(stream, ": l402") != 1 {
			t.Errorf("%s: the last block is %q", name, end)
		}
		if e := r.lastCharge(k); e.Outcome != metering.OutcomeComplete || e.Usage[pricing.OutputTokens] != 2 {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestHeartbeatsPassAtOnce: a backend's comment with one line end is a sign of life, and reaches
// the client before anything else comes.
func TestHeartbeatsPassAtOnce(t *testing.T) {
	more := make(chan struct{})
	r := playing(t, format.EngineGeneric, func(w http.ResponseWriter, req *http.Request) {
		says(sse, ": ping\n")(w, req)
		select {
		case <-more:
		case <-req.Context().Done():
		}
		says(sse, word("one ", ""), ": ping\r\n", finishEvent, doneEvent)(w, req)
	})
	k := r.buy(minPurchase)
	resp := r.open(t.Context(), "POST", chatPath, asStream(24), k.with())
	defer resp.Body.Close()
	first := make([]byte, len(": ping\n"))
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != ": ping\n" {
		t.Fatalf("%q, %v", first, err)
	}
	close(more)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || strings.Count(string(rest), ": ping\n") != 1 || strings.Contains(string(rest), ": ping\n\n") {
		t.Errorf("%v\n%s", err, rest)
	}
	wantBlocksWithData(t, "heartbeats", strings.ReplaceAll(string(rest), ": ping\n", ""))
}
