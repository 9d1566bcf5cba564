package openai_test

import (
	"bytes"
	"strings"
	"testing"

	"sluice.example/sluice/metering/format"
	"sluice.example/sluice/metering/format/openai"
)

// kilobyte is a request of about 1 KB: three messages and the usual fields.
func kilobyte() []byte {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 7)
	return []byte(`{"model":"llama-3.1-8b","messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"` +
		text + `"},{"role":"assistant","content":"` + text + `\n"},{"role":"user","content":"And then?"}],"temperature":0.7,"top_p":0.95,"max_tokens":256,"stream":true,"stop":["\n\n"]}`)
}

func BenchmarkRequest(b *testing.B) {
	body := kilobyte()
	how := format.Rewrite{Model: "meta/llama", ForceUsage: true, ContinuousUsage: true}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := openai.Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		bound, err := r.Bound(limits)
		if err != nil {
			b.Fatal(err)
		}
		how.Cap = bound.Cap
		r.Rewrite(how)
	}
}

func BenchmarkEvent(b *testing.B) {
	event := []byte(`data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1735787045,"model":"meta/llama","choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":212,"total_tokens":230,"completion_tokens":18}}` + "\n\n")
	r, err := openai.Parse(kilobyte())
	if err != nil {
		b.Fatal(err)
	}
	bound, err := r.Bound(limits)
	if err != nil {
		b.Fatal(err)
	}
	m := openai.NewMeter(r, bound, nil, format.MeterOptions{Start: start, ContinuousUsage: true})
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	for b.Loop() {
		m.Event(event)
		m.Delivered()
		m.Running()
	}
}

// BenchmarkBatchEvent is one event of a stream for many prompts, with a usage.
func BenchmarkBatchEvent(b *testing.B) {
	fields := `"stream":true,"prompt":[` + strings.TrimSuffix(strings.Repeat(`"The river and its banks",`, 100), ",") + `]`
	m := textMeter(b, fields, format.MeterOptions{ContinuousUsage: true, UsageOfAll: true})
	event := []byte(say(7, "a", used(6, 3)))
	b.ReportAllocs()
	for b.Loop() {
		m.Event(event)
		m.Delivered()
		m.Running()
	}
}

func BenchmarkEvents(b *testing.B) {
	stream := bytes.Repeat([]byte(content("hello", "")), 1000)
	r := bytes.NewReader(stream)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(stream)
		for e := format.NewEvents(r, 0); ; {
			if _, err := e.Next(); err != nil {
				break
			}
		}
	}
}
