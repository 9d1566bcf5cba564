package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"sluice.example/sluice/internal/gateway"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/metering/format"
)

// Text in a shape that nobody knows is not free: an event in which the model wrote
// something is a token at least.
func TestTextOfAnUnknownShapeCounts(t *testing.T) {
	for name, event := range map[string]string{
		"content, an object":           delta(`"delta":{"content":{"type":"text","text":"mark"}}`, ""),
		"content, a number":            delta(`"delta":{"content":7},"stop_reason":"mark"`, ""),
		"calls, an object":             delta(`"delta":{"tool_calls":{"index":0,"function":{"arguments":"mark"}}}`, ""),
		"calls, a string":              delta(`"delta":{"tool_calls":"mark"}`, ""),
		"a call, a string":             delta(`"delta":{"tool_calls":["mark"]}`, ""),
		"a function, a string":         delta(`"delta":{"tool_calls":[{"index":0,"function":"mark"}]}`, ""),
		"an old function, a string":    delta(`"delta":{"function_call":"mark"}`, ""),
		"arguments, a list":            delta(`"delta":{"tool_calls":[{"index":0,"function":{"arguments":["mark"]}}]}`, ""),
		"a refusal, an object":         delta(`"delta":{"refusal":{"reason":"mark"}}`, ""),
		"reasoning, an object":         delta(`"delta":{"reasoning":{"words":"mark"}}`, ""),
		"sound, a string":              delta(`"delta":{"audio":"mark"}`, ""),
		"sound with words":             delta(`"delta":{"audio":{"id":"a","text":"mark"}}`, ""),
		"sound with unknown words":     delta(`"delta":{"audio":{"id":"a","lyrics":"mark"}}`, ""),
		"the delta, a string":          delta(`"delta":"mark"`, ""),
		"the delta, a list":            delta(`"delta":[{"content":"mark"}]`, ""),
		"the text, a list":             delta(`"text":["mark"]`, ""),
		"the choice, a string":         `data: {"choices":["mark"]}` + "\n\n",
		"the choices, an object":       `data: {"choices":{"index":0,"delta":{"content":"mark"}}}` + "\n\n",
		"logprobs of an unknown form":  delta(`"delta":{},"logprobs":{"words":"mark"}`, ""),
		"logprobs, a list":             delta(`"delta":{},"logprobs":[{"token":"mark"}]`, ""),
		"token ids beside the choices": delta(`"delta":{},"stop_reason":"mark"`, `,"token_ids":[31337]`),
		"a token id in the delta":      delta(`"delta":{"token_id":31337},"stop_reason":"mark"`, ""),
		"a message beside no delta":    delta(`"delta":{},"message":{"content":"mark"}`, ""),
	} {
		r := playing(t, format.EngineGeneric, saysAndWaits(sse, roleEvent, strings.Repeat(event, 150)))
		k := r.buy(minPurchase)
		r.hangUp(k, asStream(1000), "mark", 150)
		r.wantAbout(k, name, 20, 150)
	}
	for name, choice := range map[string]string{
		"content, an object":  `"message":{"content":{"type":"text","text":"TEXT"}}`,
		"calls, an object":    `"message":{"tool_calls":{"function":{"arguments":"TEXT"}}}`,
		"the message, a word": `"message":"TEXT"`,
		"the text, a list":    `"text":["TEXT"]`,
	} {
		choice = strings.ReplaceAll(choice, "TEXT", strings.Repeat("abcd", 150))
		r := playing(t, format.EngineGeneric, says("application/json", `{"choices":[{"index":0,`+choice+`,"finish_reason":"stop"}]}`))
		k := r.buy(minPurchase)
		r.chat(k, request("max_tokens", "1000"))
		r.wantAbout(k, "a document: "+name, 20, 150)

		r = playing(t, format.EngineGeneric, says("application/json", `{"choices":[{"index":0,`+choice+`,"finish_reason":"stop"}]}`))
		k = r.buy(minPurchase)
		if a := r.chat(k, asStream(1000)); !strings.Contains(string(a.body), "abcdabcd") {
			t.Errorf("%s: a client that asked for a stream pays for text that it does not get:\n%s", name, tail(a.body))
		}
	}
}

// The same text in several members of an event counts once, and what repeats itself
// from event to event counts nothing beyond the event.
func TestRepeatedTextCountsOnce(t *testing.T) {
	think := `[{"type":"thinking","thinking":" thinking hard","signature":null}]`
	for name, event := range map[string]string{
		"text and delta":          delta(`"text":" markedly so","seed":null,"delta":{"token_id":30,"role":"assistant","content":" markedly so","tool_calls":null}`, ""),
		"text, delta and role":    delta(`"role":"assistant","text":" mark","delta":{"token_id":30,"role":"assistant","content":" mark"}`, ""),
		"reasoning, three times":  delta(`"delta":{"provider_specific_fields":{"thinking_blocks":`+think+`},"content":"","reasoning_content":" thinking hard","thinking_blocks":`+think+`}`, ""),
		"a function's name":       delta(`"delta":{"tool_calls":[{"index":0,"id":null,"type":"function","function":{"name":"get_current_weather","arguments":"mark"}}]}`, ""),
		"a constant word":         delta(`"model":"meta/llama-3.3-70b-instruct-turbo","delta":{"content":"mark"}`, ""),
		"an unknown constant":     delta(`"deployment":"the third rack on the left, behind the door","delta":{"content":"mark"}`, ""),
		"an id in the delta":      delta(`"delta":{"message_id":"0123456789abcdef0123456789abcdef","content":"mark"}`, ""),
		"content and unknown":     delta(`"delta":{"content":"Donaudampfschiff mark"},"plain":{"words":["Donaudampfschiff mark"]}`, ""),
		"logprobs and their text": delta(`"delta":{"content":"Donaudampfschiff mark"},"logprobs":{"content":[{"token":"Donaudampfschiff mark","logprob":-1}]}`, ""),
	} {
		each := 1
		if name == "content and unknown" {
			each = 6 // by its bytes
		}
		r := playing(t, format.EngineGeneric, saysAndWaits(sse, roleEvent, strings.Repeat(event, 150)))
		k := r.buy(minPurchase)
		r.hangUp(k, asStream(4000), `"finish_reason":null`, 151)
		r.wantAbout(k, name, 20, 150*each)
	}

	var sofar, unknown strings.Builder
	for i := range 150 {
		all := strings.Repeat("mark", i+1)
		sofar.WriteString(delta(`"message":{"role":"assistant","content":"`+all+`"},"delta":{"role":"assistant","content":"mark"}`, ""))
		unknown.WriteString(delta(`"delta":{"content":"mark"},"snapshot":"`+all+`"`, ""))
	}
	for name, stream := range map[string]string{
		"the message until now beside the delta": sofar.String() + delta(`"message":{"content":"`+strings.Repeat("mark", 150)+`"},"delta":{"content":""}`, ""),
		"an unknown member with all until now":   unknown.String() + delta(`"delta":{"content":""}`, ""),
	} {
		r := playing(t, format.EngineGeneric, saysAndWaits(sse, stream))
		k := r.buy(maxPurchase)
		r.hangUp(k, asStream(8000), `"finish_reason":null`, 151)
		r.wantAbout(k, name, 20, 150)
	}

	text := strings.Repeat("word ", 800)
	r := playing(t, format.EngineGeneric, says("application/json", `{"choices":[{"index":0,"text":" `+text+`","message":{"content":"`+text+`"},"finish_reason":"stop"}]}`))
	k := r.buy(maxPurchase)
	r.chat(k, request("max_tokens", "4000"))
	r.wantAbout(k, "a document with text and message", 20, 1000)

	twice := `{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":\"` + text + `\"}"}}`
	r = playing(t, format.EngineGeneric, says("application/json", `{"choices":[{"index":0,"message":{"tool_calls":[`+twice+`,`+twice+`]},"finish_reason":"stop"}]}`))
	k = r.buy(maxPurchase)
	r.chat(k, request("max_tokens", "4000"))
	r.wantAbout(k, "two calls with the same arguments", 20, 2000)
}

// Of a text that each event repeats from its beginning only the new part counts, and no
// text that merely repeats itself is free.
func TestTextUntilNowCountsOnce(t *testing.T) {
	var words []string
	for i := range 60 {
		words = append(words, fmt.Sprintf(" word%c%c", 'a'+i%26, 'a'+i/26))
	}
	all := func(i int) string { return strings.Join(words[:i+1], "") }
	same := func(int) string { return " the same forty bytes and more of one line|" }
	for name, c := range map[string]struct {
		form  string
		text  func(int) string
		right int
	}{
		"delta":          {`"delta":{"content":"%s"}`, all, 60},
		"message":        {`"message":{"content":"%s"}`, all, 60},
		"text":           {`"delta":{},"text":"%s"`, all, 60},
		"reasoning":      {`"delta":{"reasoning_content":"%s"}`, all, 60},
		"arguments":      {`"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%s"}}]}`, all, 60},
		"parts":          {`"delta":{"content":[{"type":"text","text":"%s"}]}`, all, 60},
		"a line, again":  {`"delta":{"content":"%s"}`, same, 60 * 11},
		"then another":   {`"delta":{"content":"%s"}`, func(i int) string { return map[bool]string{true: all(i), false: words[i]}[i < 20] }, 60},
		"after a word":   {`"delta":{"content":"%s"}`, func(i int) string { return map[bool]string{true: "Well", false: all(i)}[i == 0] }, 60 * 31 * 7 / 4},
		"each one alone": {`"delta":{"content":"%s"}`, func(i int) string { return words[i] }, 60},
	} {
		var stream strings.Builder
		for i := range 60 {
			stream.WriteString(delta(fmt.Sprintf(c.form, c.text(i)), ""))
		}
		for end, stream := range map[string]string{"whole": stream.String() + finishEvent + doneEvent, "left": stream.String()} {
			r := playing(t, format.EngineGeneric, saysAndWaits(sse, roleEvent, stream, ": end\n\n"))
			k := r.buy(maxPurchase)
			if end == "whole" {
				r.chat(k, asStream(8000))
			} else {
				r.hangUp(k, asStream(8000), ": end", 1)
			}
			r.wantAbout(k, name+", "+end, 20, c.right)
		}
	}
}

// A document that its reader leaves within the log probabilities has all of its text.
func TestLeavingWithinLogprobsPaysForTheText(t *testing.T) {
	t.Parallel()
	entry := func(i int) string {
		return fmt.Sprintf(`{"token":"abcd","logprob":-0.%d,"bytes":[97],"top_logprobs":[]},`, i)
	}
	var list, ids strings.Builder
	for i := range 300 {
		list.WriteString(entry(i))
		fmt.Fprintf(&ids, "%60d,", 1000+i)
	}
	text := strings.Repeat("abcd", 1000)
	for name, head := range map[string]string{
		"a third of the list": `{"choices":[{"index":0,"message":{"role":"assistant","content":"` + text + `"},"logprobs":{"content":[` + list.String(),
		"a third of the ids":  `{"choices":[{"index":0,"message":{"role":"assistant","content":"` + text + `"},"token_ids":[` + ids.String(),
	} {
		for where, hold := range map[string]int{"beyond the hold-back": len(head) / 2, "within it": 8 << 20} {
			t.Run(name+", "+where, func(t *testing.T) {
				t.Parallel() // each waits for the rest of the document
				leaveWithin(t, head, hold)
			})
		}
	}
	// Reasoning that the list of a whole document leaves out.
	r := playing(t, format.EngineGeneric, says("application/json", `{"choices":[{"index":0,"message":{"reasoning_content":"`+text+`","content":"abcd"},"logprobs":{"content":[{"token":"abcd","logprob":-1}]},"finish_reason":"stop"}]}`))
	k := r.buy(maxPurchase)
	if a := r.chat(k, request("max_tokens", "2000")); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.wantAbout(k, "reasoning that is not listed", 20, 1001)
}

// leaveWithin reads the beginning of a document of 1,000 tokens and leaves.
func leaveWithin(t *testing.T, head string, hold int) {
	r := playing(t, format.EngineGeneric, saysAndWaits("application/json", head), func(s *setup) {
		s.gateway = func(c *gateway.Config) { c.UnaryHoldBack = hold }
	})
	k := r.buy(maxPurchase)
	ctx, hangUp := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		resp, err := r.client.Do(r.newRequest("POST", chatPath, request("max_tokens", "2000"), k.with()).WithContext(ctx))
		if err != nil {
			return
		}
		_, _ = io.ReadFull(resp.Body, make([]byte, 1000))
		hangUp()
		resp.Body.Close()
	}()
	if hold > len(head) {
		time.AfterFunc(500*time.Millisecond, hangUp)
	}
	<-gone
	hangUp()
	r.wantAbout(k, "left", 20, 1000)
}

// A prompt that is written in escapes is the same prompt: it costs and holds the same.
func TestEscapedPromptCostsTheSame(t *testing.T) {
	text := strings.Repeat("Где течёт река? ", 100) + strings.Repeat("川はどこ", 50) + "😀"
	var escaped strings.Builder
	for _, c := range utf16.Encode([]rune(text)) {
		if c < 128 {
			escaped.WriteRune(rune(c))
		} else {
			fmt.Fprintf(&escaped, `\u%04x`, c)
		}
	}
	for role, messages := range map[string]string{
		"user":  `[{"role":"user","content":"TEXT"}]`,
		"parts": `[{"role":"user","content":[{"type":"text","text":"TEXT"}]}]`,
		"call":  `[{"role":"user","content":"go"},{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":\"TEXT\"}"}}]},{"role":"tool","tool_call_id":"a","content":"done"}]`,
	} {
		var charged []l402.Msat
		var most []float64
		for _, written := range []string{text, escaped.String()} {
			r := playing(t, format.EngineGeneric, saysAndWaits(sse, word("abcd", "")))
			body := asStream(100, "messages", strings.ReplaceAll(messages, "TEXT", written))
			most = append(most, r.do("POST", chatPath, body, nil).json(t)["required_msat"].(float64))
			k := r.buy(maxPurchase)
			r.hangUp(k, body, "abcd", 1)
			charged = append(charged, r.lastCharge(k).Charged)
		}
		if charged[0] != charged[1] {
			t.Errorf("%s: the same prompt costs %v, written in escapes %v", role, charged[0], charged[1])
		}
		if role != "call" && most[0] != most[1] { // templates write arguments anew
			t.Errorf("%s: the same prompt holds %v, written in escapes %v", role, most[0], most[1])
		}
	}
}
