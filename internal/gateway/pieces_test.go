package gateway_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
)

// TestGatheredDocumentRepeatsNothing: a gathered document equals the engine's own document. Words
// that each event repeats are in it once, and nothing that came is lost.
func TestGatheredDocumentRepeatsNothing(t *testing.T) {
	piece := func(members string) string { return delta(`"delta":{`+members+`}`, "") }
	call := func(index, id, name, arguments string) string {
		arguments, name = `"arguments":`+quoted(arguments), `"name":`+quoted(name)
		return piece(`"tool_calls":[{"index":` + index + `,"id":` + id + `,"type":"function","function":{` + name + `,` + arguments + `}}]`)
	}
	one := `{"id":"a","type":"function","function":{"name":"one","arguments":"{\"x\":{}}"}}`
	two := `{"id":"b","type":"function","function":{"name":"two","arguments":"{}"}}`
	for name, c := range map[string]struct{ stream, member, want string }{
		"id, type and name in each piece":     {call("0", `"a"`, "one", `{"x":`) + call("0", `"a"`, "one", `{}`) + call("0", `"a"`, "one", `}`), "tool_calls", `[` + one + `]`},
		"empty ids and names after the first": {call("0", `"a"`, "one", "") + call("0", `""`, "", `{"x":`) + call("0", `null`, "", `{}}`), "tool_calls", `[` + one + `]`},
		"another id for each piece":           {call("0", `"z"`, "one", `{"x":`) + call("0", `"a"`, "one", `{}}`), "tool_calls", `[` + one + `]`},
		"two calls, both with the index 0":    {call("0", `"a"`, "one", `{"x":{}}`) + call("0", `"b"`, "two", `{}`), "tool_calls", `[` + one + `,` + two + `]`},
		"the same without ids": {strings.ReplaceAll(call("0", `null`, "one", `{}`)+call("0", `null`, "two", `{}`), `"id":null,`, ""), "tool_calls",
			`[{"type":"function","function":{"name":"one","arguments":"{}"}},{"type":"function","function":{"name":"two","arguments":"{}"}}]`},
		"no index, the id in each piece": {strings.ReplaceAll(call("0", `"a"`, "one", `{"x":`)+call("0", `"b"`, "two", `{}`)+call("0", `"a"`, "", `{}}`), `"index":0,"id"`, `"id"`), "tool_calls", `[` + one + `,` + two + `]`},
		"a constant word":                {strings.Repeat(piece(`"content":"a","channel":"final"`), 3), "channel", `"final"`},
		"a list in each event":           {strings.Repeat(piece(`"content":"a","citations":["x"]`), 3), "citations", `["x"]`},
		"thinking, then a text": {piece(`"content":[{"type":"thinking","thinking":[{"type":"text","text":"h"}]}]`) + piece(`"content":[{"type":"thinking","thinking":[{"type":"text","text":"m"}]}]`) + word("fo", "") + word("ur", ""), "content",
			`[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"four"}]`},
		"a text, then parts": {word("a", "") + piece(`"content":[{"type":"image_url","image_url":{"url":"x"}}]`) + piece(`"content":[{"type":"image_url","image_url":{"url":"y"}}]`), "content", `[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}},{"type":"image_url","image_url":{"url":"y"}}]`},
		"reasoning with a type": {piece(`"reasoning_details":[{"type":"reasoning.text","text":"a","index":0}]`) + piece(`"reasoning_details":[{"type":"reasoning.text","text":"b","index":0}]`) + piece(`"reasoning_details":[{"type":"reasoning.text","text":"c","index":1}]`), "reasoning_details",
			`[{"type":"reasoning.text","text":"ab","index":0},{"type":"reasoning.text","text":"c","index":1}]`},
		"sound":                     {piece(`"audio":{"id":"a","data":"AA","expires_at":5}`) + piece(`"audio":{"id":"a","data":"BB","transcript":"x"}`) + piece(`"audio":{"id":"a","transcript":"y"}`), "audio", `{"id":"a","data":"AABB","transcript":"xy","expires_at":5}`},
		"the message until now":     {delta(`"message":{"content":"a"},"delta":{"content":"a"}`, "") + delta(`"message":{"content":"ab"},"delta":{"content":"b"}`, ""), "content", `"ab"`},
		"a delta that is a string":  {delta(`"delta":"a"`, "") + delta(`"delta":"b"`, ""), "content", `"ab"`},
		"null, then an empty text":  {piece(`"content":null`) + piece(`"content":""`), "content", `""`},
		"an old call, named always": {piece(`"function_call":{"name":"f","arguments":"{"}`) + piece(`"function_call":{"name":"f","arguments":"}"}`), "function_call", `{"name":"f","arguments":"{}"}`},
	} {
		for _, engine := range []format.Engine{format.EngineLlamaCpp, format.EngineOllama, format.EngineOpenAI} {
			r := playing(t, engine, says(sse, roleEvent+c.stream+finishEvent+usageEvent(50, 3)+doneEvent))
			a := r.chat(r.buy(minPurchase), request("max_tokens", "100"))
			var got struct {
				Choices []struct{ Message map[string]any }
			}
			if err := json.Unmarshal(a.body, &got); err != nil || len(got.Choices) != 1 {
				t.Fatalf("%s: %v\n%s", name, err, a.body)
			}
			var want any
			if err := json.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.Choices[0].Message[c.member], want) {
				t.Errorf("%s, %s: want %s in\n%s", name, engine, c.want, a.body)
			}
		}
	}
	filtered := delta(`"delta":{"content":"abcd"},"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}`, "")
	r := playing(t, format.EngineOpenAI, says(sse, strings.Repeat(filtered, 3)+finishEvent+usageEvent(50, 3)+doneEvent))
	if a := r.chat(r.buy(minPurchase), request()); !strings.Contains(string(a.body), `"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}`) {
		t.Errorf("the filter says\n%s", a.body)
	}
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
