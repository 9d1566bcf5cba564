package openai_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice.example/sluice/metering"
	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/pricing"
)

// textMeter meters an answer to a request for completions with these fields.
func textMeter(t testing.TB, fields string, o format.MeterOptions) format.Meter {
	t.Helper()
	r := completion(t, fields)
	b, err := r.Bound(limits)
	if err != nil {
		t.Fatal(err)
	}
	o.Start, o.Now = start, func() time.Time { return start.Add(2 * time.Second) }
	return r.Meter(b, nil, o)
}

// say is a chunk of choice i with text and other members behind it.
func say(i int, text, more string) string {
	return fmt.Sprintf(`data: {"id":"c","object":"text_completion","choices":[{"index":%d,"text":"%s","logprobs":null,"finish_reason":null}]%s}`, i, text, more) + "\n\n"
}

// stop is the last chunk of choice i.
func stop(i int, more string) string {
	return fmt.Sprintf(`data: {"id":"c","object":"text_completion","choices":[{"index":%d,"text":"","logprobs":null,"finish_reason":"length"}]%s}`, i, more) + "\n\n"
}

// used is the member usage.
func used(prompt, completion int) string {
	return fmt.Sprintf(`,"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, prompt, completion, prompt+completion)
}

// listen lets the events of a stream pass, gathers them, and returns what the client
// of a stream got.
func listen(m format.Meter, events ...string) string {
	var got strings.Builder
	for _, event := range events {
		out, last := m.Event([]byte(event))
		if last || m.Failed() {
			break
		}
		m.Gather()
		if got.Write(out); out != nil {
			m.Delivered()
		}
	}
	return got.String()
}

// Two prompts of 5 and 7 tokens with two completions each, as vLLM streams them with
// a usage in each chunk: of the choice and its prompt, and in the end of all.
func continuous() (events []string) {
	prompts := []int{5, 5, 7, 7}
	for i := range 4 {
		events = append(events, say(i, "ab", used(prompts[i], 1)))
	}
	for i := range 4 {
		events = append(events, say(i, "cdef", used(prompts[i], 3)), stop(i, used(prompts[i], 3)))
	}
	return append(events, `data: {"id":"c","object":"text_completion","choices":[]`+used(12, 12)+"}\n\n", done)
}

// The same as llama.cpp streams it: each completion ends with a usage of its own.
func perSequence() (events []string) {
	for i := range 4 {
		events = append(events, say(i, "ab", ""), say(i, "cdef", ""), stop(i, used(5+2*(i/2), 3)))
	}
	return append(events, done)
}

const twoByTwo = `"prompt":["The gate is","Water runs down"],"n":2,"max_tokens":8,"stream":true`

func TestBatchesAreCounted(t *testing.T) {
	vllm := format.MeterOptions{ContinuousUsage: true, UsageOfAll: true}
	llama := format.MeterOptions{UsagePerSequence: true}
	for name, c := range map[string]struct {
		o      format.MeterOptions
		events []string
		end    format.End
		input  int64
		output int64
		source metering.Source
	}{
		"vllm":                     {vllm, continuous(), format.Complete, 12, 12, metering.SourceReported},
		"vllm, cut within":         {vllm, continuous()[:8], format.BackendCut, 12, 8, metering.SourceRunning},
		"vllm, left at once":       {vllm, continuous()[:1], format.ClientGone, 5 + 4, 1, metering.SourceRunning}, // the other prompt by its bytes
		"vllm, without the last":   {vllm, continuous()[:12], format.Complete, 12, 12, metering.SourceReported},
		"llama.cpp":                {llama, perSequence(), format.Complete, 12, 12, metering.SourceReported},
		"llama.cpp, cut after one": {llama, perSequence()[:3], format.BackendCut, 5 + 4, 3, metering.SourceRunning},
		"llama.cpp, alone": {llama, append(append([]string{}, say(0, "abc", ""), say(1, "abc", ""), say(2, "abc", ""), say(3, "abc", ""), stop(0, ""), stop(1, ""), stop(2, ""), stop(3, "")),
			alone(5, 3), alone(5, 3), alone(7, 3), alone(7, 3), done), format.Complete, 12, 12, metering.SourceReported},
		"nothing said": {format.MeterOptions{}, []string{say(0, "ab", ""), say(2, "cd", ""), say(3, "ef", "")}, format.ClientGone, 3 + 4, 3, metering.SourceCounted},
	} {
		m := textMeter(t, twoByTwo, c.o)
		listen(m, c.events...)
		if c.end == format.Complete && !m.Finished() {
			t.Errorf("%s: not finished", name)
		}
		u, source, clamped := m.Final(c.end, start.Add(time.Second))
		if onlyTokens(u) != tokens(c.input, c.output) || source != c.source || clamped {
			t.Errorf("%s: %v from %s, clamped %v; want %d and %d from %s", name, onlyTokens(u), source, clamped, c.input, c.output, c.source)
		}
	}
}

// alone is a usage chunk.
func alone(prompt, completion int) string {
	return `data: {"id":"c","choices":[]` + used(prompt, completion) + "}\n\n"
}

// llama.cpp reports what each prompt took while it writes.
func TestTimingsOfABatch(t *testing.T) {
	m := textMeter(t, twoByTwo, format.MeterOptions{UsagePerSequence: true, Timings: true})
	got := listen(m, say(0, "ab", `,"timings":{"prompt_n":2,"cache_n":3,"predicted_n":2}`), say(3, "cd", `,"timings":{"prompt_n":7,"cache_n":0,"predicted_n":1}`))
	if got != say(0, "ab", "")+say(3, "cd", "") {
		t.Errorf("the client got %s", got)
	}
	u, source := m.Running()
	if onlyTokens(u) != tokens(12, 3) || u[pricing.CachedInputTokens] != 3 || source != metering.SourceRunning {
		t.Errorf("%v from %s", u, source)
	}
}

func TestPromptsOfTokensAreExact(t *testing.T) {
	for fields, want := range map[string]int64{`"prompt":[1,2,3]`: 3, `"prompt":[[1,2,3],[4]]`: 4} {
		m := textMeter(t, fields+`,"stream":true`, format.MeterOptions{KeepText: true})
		listen(m, say(0, "ab", ""))
		if prompt, text, ok := m.NeedsTokenizer(); prompt || text != "ab" || !ok {
			t.Errorf("%s: asks the tokenizer for %v %q %v", fields, prompt, text, ok)
		}
		if u, _, _ := m.Final(format.ClientGone, start); u[pricing.InputTokens] != want {
			t.Errorf("%s: %v", fields, u)
		}
	}
	// A backend that says more is cut back to what was sent, and noted.
	m := textMeter(t, `"prompt":[1,2,3]`, format.MeterOptions{})
	if _, err := m.Unary([]byte(`{"choices":[{"index":0,"text":"ab","finish_reason":"stop"}]` + used(9, 1) + `}`)); err != nil {
		t.Fatal(err)
	}
	if u, _, clamped := m.Final(format.Complete, start); onlyTokens(u) != tokens(3, 1) || !clamped || m.Excess().Prompt != 6 {
		t.Errorf("%v %v %+v", u, clamped, m.Excess())
	}
}

// An error and the end marker after it are a failure.
func TestACompletionThatFails(t *testing.T) {
	m := textMeter(t, `"prompt":"a","stream":true`, format.MeterOptions{})
	listen(m, say(0, "ab", ""), `data: {"error":{"message":"boom","code":500}}`+"\n\n", done)
	u, source, _ := m.Final(format.BackendCut, start)
	if !m.Failed() || m.Failure().Message != "boom" || onlyTokens(u) != tokens(1, 1) || source != metering.SourceCounted {
		t.Errorf("failed %v %+v: %v from %s", m.Failed(), m.Failure(), u, source)
	}
	frame := string(m.Close(format.Closing{End: format.BackendCut, Kind: "backend-unavailable", Code: "backend_failed", Message: "it broke", Comment: ": l402 cost_msat=1"}))
	if !strings.HasPrefix(frame, `data: {"error":{"message":"it broke"`) || strings.Contains(frame, "[DONE]") {
		t.Errorf("the stream ends with %s", frame)
	}
}

func TestGatheredCompletions(t *testing.T) {
	const logprobs = `{"tokens":["%s"],"token_logprobs":[-0.5],"top_logprobs":[{"%s":-0.5}],"text_offset":[%d]}`
	probable := func(text string, at int) string {
		return fmt.Sprintf(`data: {"id":"c","object":"text_completion","model":"up","choices":[{"index":0,"text":"%s","logprobs":`+logprobs+`,"finish_reason":null}]}`, text, text, text, at) + "\n\n"
	}
	for name, c := range map[string]struct {
		fields string
		o      format.MeterOptions
		events []string
		capped bool
		want   string
	}{
		"log probabilities": {`"prompt":"a","logprobs":1`, format.MeterOptions{}, []string{probable("x", 0), probable("y", 1), stop(0, ""), alone(1, 2)}, false,
			`{"id":"c","model":"up","object":"text_completion","choices":[{"index":0,"text":"xy","logprobs":{"tokens":["x","y"],"token_logprobs":[-0.5,-0.5],"top_logprobs":[{"x":-0.5},{"y":-0.5}],"text_offset":[0,1]},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`},
		"vllm":      {twoByTwo, format.MeterOptions{ContinuousUsage: true, UsageOfAll: true}, continuous(), false, gatheredBatch},
		"llama.cpp": {twoByTwo, format.MeterOptions{UsagePerSequence: true}, perSequence(), false, gatheredBatch},
		"cut at the cap": {`"prompt":"a"`, format.MeterOptions{}, []string{`data: {"choices":[{"index":0,"text":"ab"}]}` + "\n\n"}, true,
			`{"object":"text_completion","choices":[{"index":0,"text":"ab","finish_reason":"length"}]}`},
		"nothing": {`"prompt":"a"`, format.MeterOptions{}, []string{`data: {"choices":[{"index":0,"finish_reason":"stop"}]}` + "\n\n"}, false,
			`{"object":"text_completion","choices":[{"index":0,"finish_reason":"stop","text":""}]}`},
	} {
		c.o.Gathered = true
		m := textMeter(t, c.fields, c.o)
		listen(m, c.events...)
		got := m.Document(c.capped)
		if !json.Valid(got) || string(got) != c.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, c.want)
		}
	}
}

const gatheredBatch = `{"id":"c","object":"text_completion","choices":[` +
	`{"index":0,"text":"abcdef","logprobs":null,"finish_reason":"length"},{"index":1,"text":"abcdef","logprobs":null,"finish_reason":"length"},` +
	`{"index":2,"text":"abcdef","logprobs":null,"finish_reason":"length"},{"index":3,"text":"abcdef","logprobs":null,"finish_reason":"length"}],` +
	`"usage":{"prompt_tokens":12,"completion_tokens":12,"total_tokens":24}}`

func TestScatteredCompletions(t *testing.T) {
	const document = "{\"id\":\"c\",\"object\":\"text_completion\",\n\"choices\":[{\"index\":0,\"text\":\"a\\nb\",\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}"
	const chunk = `data: {"id":"c","object":"text_completion","choices":[{"index":0,"text":"a\nb","logprobs":null,"finish_reason":"stop"}]}` + "\n\n"
	for options, usage := range map[string]string{
		``: "",
		`,"stream_options":{"include_usage":true}`: `data: {"id":"c","object":"text_completion","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}` + "\n\n",
	} {
		m := textMeter(t, `"prompt":"a","stream":true`+options, format.MeterOptions{})
		clean, err := m.Unary([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(m.Scatter(clean)); got != chunk+usage {
			t.Errorf("%s:\n%s, want\n%s", options, got, chunk+usage)
		}
		if u, _, _ := m.Final(format.Complete, start); onlyTokens(u) != tokens(1, 2) {
			t.Errorf("%v", u)
		}
	}
}
