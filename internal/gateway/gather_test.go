package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// askedFor keeps what a backend was asked for.
type askedFor struct {
	Stream        bool `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
}

// inTurn answers with a stream if the request asks for a stream, otherwise with a document.
func inTurn(stream, document http.HandlerFunc, asked *askedFor) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		*asked = askedFor{}
		_ = json.NewDecoder(req.Body).Decode(asked)
		if asked.Stream {
			stream(w, req)
			return
		}
		document(w, req)
	}
}

// TestGatheredAnswerIsTheEnginesOwn: a document that was made of a stream equals the engine's own
// document, with the name by which the client knows the model.
func TestGatheredAnswerIsTheEnginesOwn(t *testing.T) {
	chunk := func(choices, more string) string {
		return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1735787045,"model":"up/m","system_fingerprint":"fp_1","choices":[` + choices + "]" + more + "}\n\n"
	}
	stream := chunk(`{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}`, `,"usage":null`) +
		chunk(`{"index":1,"delta":{"role":"assistant","content":""},"finish_reason":null}`, "") +
		": ping\n\n" +
		chunk(`{"index":0,"delta":{"reasoning_content":"Let me "},"finish_reason":null}`, "") +
		chunk(`{"index":1,"delta":{"content":"\u00e9t\u00e9 \ud83d"},"finish_reason":null}`, "") +
		chunk(`{"index":0,"delta":{"reasoning_content":"think."},"finish_reason":null}`, "") +
		chunk(`{"index":1,"delta":{"content":"\ude00 \"so\"\n"},"finish_reason":null}`, "") +
		chunk(`{"index":0,"delta":{"content":"Hel"},"logprobs":{"content":[{"token":"Hel","logprob":-0.5,"bytes":[72,101,108],"top_logprobs":[]}],"refusal":null},"finish_reason":null}`, "") +
		chunk(`{"index":0,"delta":{"content":"lo"},"logprobs":{"content":[{"token":"lo","logprob":-0.25,"bytes":null,"top_logprobs":[]}],"refusal":null},"finish_reason":null}`, "") +
		chunk(`{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"get","arguments":""}}]},"finish_reason":null}`, "") +
		chunk(`{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]},"finish_reason":null}`, "") +
		chunk(`{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}},{"index":1,"id":"call_2","type":"function","function":{"name":"put","arguments":"{}"}}]},"finish_reason":null}`, "") +
		chunk(`{"index":0,"delta":{"tomorrow":"new ","list":[1]},"finish_reason":null}`, "") +
		chunk(`{"index":0,"delta":{"tomorrow":"things","list":[2,3]},"finish_reason":"tool_calls","stop_reason":128008}`, "") +
		chunk(`{"index":1,"delta":{},"finish_reason":"stop"}`, "") +
		chunk("", `,"usage":{"prompt_tokens":40,"completion_tokens":17,"total_tokens":57,"prompt_tokens_details":{"cached_tokens":8}}`) + doneEvent
	const document = `{"id":"chatcmpl-1","object":"chat.completion","created":1735787045,"model":"up/m","system_fingerprint":"fp_1","choices":[
		{"index":0,"message":{"role":"assistant","content":"Hello","reasoning_content":"Let me think.","tomorrow":"things","list":[2,3],
			"tool_calls":[{"id":"call_1","type":"function","function":{"name":"get","arguments":"{\"a\":1}"}},{"id":"call_2","type":"function","function":{"name":"put","arguments":"{}"}}]},
			"logprobs":{"content":[{"token":"Hel","logprob":-0.5,"bytes":[72,101,108],"top_logprobs":[]},{"token":"lo","logprob":-0.25,"bytes":null,"top_logprobs":[]}],"refusal":null},
			"finish_reason":"tool_calls","stop_reason":128008},
		{"index":1,"message":{"role":"assistant","content":"été 😀 \"so\"\n"},"finish_reason":"stop"}],
		"usage":{"prompt_tokens":40,"completion_tokens":17,"total_tokens":57,"prompt_tokens_details":{"cached_tokens":8}}}`
	var asked askedFor
	r := playing(t, format.EngineLlamaCpp, inTurn(says(sse, stream), says("", document), &asked))
	k := r.buy(minPurchase)
	a := r.chat(k, request("max_tokens", "100"))
	if !asked.Stream || !asked.StreamOptions.IncludeUsage {
		t.Errorf("the backend was asked %+v", asked)
	}
	var got, want any
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatalf("%v\n%s", err, a.body)
	}
	if err := json.Unmarshal([]byte(strings.Replace(document, "up/m", testModel, 1)), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the client got\n%s\nwant\n%s", a.body, document)
	}
	if a.header.Get("Content-Type") != "application/json" || a.header.Get("L402-Cost-Msat") != amountText(cost10(40, 17)) {
		t.Errorf("header %v", a.header)
	}
	r.wantCharged(k, "gathered", cost10(40, 17))
}

// TestWhatIsNotGathered: the gateway asks for a document if only a document has what the client
// wants, or if the engine's streams are not known to be as good.
func TestWhatIsNotGathered(t *testing.T) {
	document := says("", `{"choices":[{"index":0,"message":{"content":"four"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}`)
	tools := []string{"tools", `[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]`}
	for name, c := range map[string]struct {
		engine format.Engine
		more   []string
		stream bool
	}{
		"vllm":                 {format.EngineVLLM, nil, true},
		"vllm, tools":          {format.EngineVLLM, tools, false},
		"llama.cpp, tools":     {format.EngineLlamaCpp, tools, true},
		"vllm, no tools":       {format.EngineVLLM, []string{"tools", "[]"}, true},
		"generic":              {format.EngineGeneric, nil, false},
		"tgi":                  {format.EngineTGI, nil, false},
		"vllm, one beam":       {format.EngineVLLM, []string{"best_of", "1"}, true},
		"sglang, text answers": {format.EngineSGLang, []string{"n", "2"}, true},
	} {
		var asked askedFor
		second := strings.Replace(finishEvent, `"index":0`, `"index":1`, 1)
		if !slices.Contains(c.more, "n") {
			second = ""
		}
		stream := says(sse, word("four", "")+finishEvent+second+usageEvent(7, 3)+doneEvent)
		r := playing(t, c.engine, inTurn(stream, document, &asked))
		k := r.buy(maxPurchase)
		a := r.chat(k, request(c.more...))
		if a.status != http.StatusOK || asked.Stream != c.stream || !strings.Contains(string(a.body), `"four"`) {
			t.Errorf("%s: asked for a stream: %v; %d %s", name, asked.Stream, a.status, a.body)
		}
		r.wantCharged(k, name, cost10(7, 3))
	}
}

// TestHangingUpOnAGatheredAnswerIsExact: a client that hangs up pays for exactly the tokens
// generated until then.
func TestHangingUpOnAGatheredAnswerIsExact(t *testing.T) {
	for _, engine := range []format.Engine{format.EngineVLLM, format.EngineSGLang, format.EngineLlamaCpp, format.EngineOllama} {
		stopped := make(chan struct{})
		var events strings.Builder // no more than the gateway reads at once
		for i := range 10 {
			events.WriteString(word("abcd", fmt.Sprintf(`,"usage":{"prompt_tokens":40,"completion_tokens":%d,"total_tokens":%d}`, i+1, 41+i)))
		}
		r := playing(t, engine, func(w http.ResponseWriter, req *http.Request) {
			saysAndWaits(sse, events.String())(w, req)
			close(stopped)
		})
		k := r.buy(minPurchase)
		ctx, hangUp := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if resp, err := r.client.Do(r.newRequest("POST", chatPath, request("max_tokens", "1024"), k.with()).WithContext(ctx)); err == nil {
				resp.Body.Close()
			}
		}()
		r.until("the gateway has read it", func() bool { return r.metric(`sluice_first_byte_seconds_count{model="demo"}`) == 1 })
		hangUp()
		<-gone
		<-stopped
		r.wantCharged(k, string(engine), cost10(40, 10))
		if e := r.lastCharge(k); e.Outcome != metering.OutcomeClientGone || e.Source != metering.SourceRunning {
			t.Errorf("%s: %+v", engine, e)
		}
	}
}

// TestGatheredAnswerIsCutAtTheCap: the gateway cuts a backend that goes beyond the cap of a
// document. The client gets what it asked for, and pays for that.
func TestGatheredAnswerIsCutAtTheCap(t *testing.T) {
	var events strings.Builder
	for i := range 40 {
		events.WriteString(word("a ", fmt.Sprintf(`,"usage":{"prompt_tokens":12,"completion_tokens":%d}`, i+1)))
	}
	r := playing(t, format.EngineVLLM, saysAndWaits(sse, events.String()))
	k := r.buy(minPurchase)
	a := r.chat(k, request("max_tokens", "10"))
	if a.status != http.StatusOK || !strings.Contains(string(a.body), `"finish_reason":"length"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.wantCharged(k, "the cap", cost10(12, 10))
}

func TestGatheredAnswerThatBreaksOffCostsNothing(t *testing.T) {
	for name, body := range map[string]string{
		"no end":   word("one", "") + word("two", ""),
		"an error": word("one", "") + `data: {"error":{"message":"lost a worker"}}` + "\n\n" + doneEvent,
		"nothing":  doneEvent,
	} {
		r := playing(t, format.EngineVLLM, says(sse, body))
		k := r.buy(minPurchase)
		if a := r.chat(k, request()); a.status != http.StatusBadGateway {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		r.wantSpent(k, 0)
	}
}

// TestEngineThatDoesNotStopIsAwaited: the gateway waits for an engine that generates the answer
// although the client hung up. The client is charged what the engine reports, and the slot is taken
// until then.
func TestEngineThatDoesNotStopIsAwaited(t *testing.T) {
	t.Parallel()
	taken, finish := make(chan struct{}, 1), make(chan struct{})
	r := playing(t, format.EngineTGI, func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		taken <- struct{}{}
		<-finish
		says("", `{"choices":[{"index":0,"message":{"content":"a long answer"},"finish_reason":"length"}],"usage":{"prompt_tokens":40,"completion_tokens":100}}`)(w, req)
	})
	k := r.buy(minPurchase)
	ctx, hangUp := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if resp, err := r.client.Do(r.newRequest("POST", chatPath, request("max_tokens", "100"), k.with()).WithContext(ctx)); err == nil {
			resp.Body.Close()
		}
	}()
	<-taken
	hangUp()
	<-gone
	if r.fleet.Status()[0].InFlight != 1 {
		t.Error("the slot was given back while the engine works")
	}
	// The engine continues for longer than the gateway takes to notice that the client left.
	time.AfterFunc(time.Second, func() { close(finish) })
	r.wantCharged(k, "awaited", cost10(40, 100))
	if e := r.lastCharge(k); e.Outcome != metering.OutcomeClientGone || e.Source != metering.SourceReported {
		t.Errorf("%+v", e)
	}
}

// TestPaceIsBounded: the estimate for a document whose client left begins at the usual time to the
// first token, and ends at twice the usual answer.
func TestPaceIsBounded(t *testing.T) {
	var asked askedFor
	taken := make(chan struct{}, 1)
	r := playing(t, format.EngineGeneric, inTurn(saysAndWaits(sse, word("alive", "")), func(w http.ResponseWriter, req *http.Request) {
		taken <- struct{}{}
		<-req.Context().Done()
	}, &asked))
	k, other := r.buy(maxPurchase), r.buy(maxPurchase)
	go func() {
		<-taken
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // another client's stream is a sign of life
		defer cancel()
		if resp, err := r.client.Do(r.newRequest("POST", chatPath, asStream(10), other.with()).WithContext(ctx)); err == nil {
			drainBody(resp)
		}
	}()
	r.leave(k, request("max_tokens", "8000"), 600*time.Millisecond)
	e := r.lastCharge(k)
	if most := int64(format.DefaultPace * 2); e.Source != metering.SourcePace || e.Usage[pricing.OutputTokens] < 5 || e.Usage[pricing.OutputTokens] > most {
		t.Errorf("%+v from %s, want at most %d tokens", e.Usage, e.Source, most)
	}
}

// TestLeavingALongDocumentPaysForIt: a client that leaves within a document too long to be held
// back pays for the whole document, because the backend has generated it.
func TestLeavingALongDocumentPaysForIt(t *testing.T) {
	t.Parallel()
	padding := strings.Repeat("x", 3<<20)
	document := `{"choices":[{"index":0,"message":{"content":"` + strings.Repeat("abcd", 1000) + `"},"logprobs":{"pad":"` + padding + `"},"finish_reason":"stop"}]`
	for name, c := range map[string]struct {
		rest string
		stay bool // the rest does not come
	}{
		"with its usage":    {`,"usage":{"prompt_tokens":50,"completion_tokens":1000}}`, false},
		"without its usage": {`,"id":"x`, true},
	} {
		r := playing(t, format.EngineGeneric, func(w http.ResponseWriter, req *http.Request) {
			says("application/json", document, c.rest)(w, req)
			if c.stay {
				<-req.Context().Done()
			}
		}, func(s *setup) {
			s.gateway = func(g *gateway.Config) { g.UnaryHoldBack = 1 << 20 }
		})
		k := r.buy(minPurchase)
		conn := r.dial("")
		conn.Conn.(*net.TCPConn).SetReadBuffer(4096)
		conn.send(post(chatPath, k.with(), request("max_tokens", "2000")))
		if _, err := io.ReadFull(conn.reader, make([]byte, 8<<10)); err != nil { // the whole text
			t.Fatal(err)
		}
		_ = conn.Conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
		e := r.wantAbout(k, name, 50, 1000)
		if !c.stay && e.Charged != cost10(50, 1000) {
			t.Errorf("%s: charged %v, want %v", name, e.Charged, cost10(50, 1000))
		}
	}
}
