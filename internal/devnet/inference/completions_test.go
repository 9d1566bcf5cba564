package inference

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"sluice.example/sluice/l402/client"
)

type textAnswer struct {
	Object  string
	Choices []struct {
		Index        int
		Text         string
		FinishReason string `json:"finish_reason"`
	}
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	}
}

// complete sends a request for completions and returns the documents of the answer.
func complete(t *testing.T, url, body string) (status int, answers []textAnswer) {
	t.Helper()
	resp, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(`{"model":"demo",`+body+`}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	documents := []string{string(text)}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		documents = nil
		for events := client.NewEventReader(bytes.NewReader(text)); ; {
			event, err := events.Next()
			if err != nil || string(event.Data) == "[DONE]" {
				break
			}
			documents = append(documents, string(event.Data))
		}
	}
	for _, d := range documents {
		var a textAnswer
		if err := json.Unmarshal([]byte(d), &a); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		answers = append(answers, a)
	}
	return resp.StatusCode, answers
}

func TestCompletionsOfABatch(t *testing.T) {
	_, url := serve(t, fast())
	const one, two = "The gate is", "Water runs down the"
	count := func(text string) int {
		return tokenCount(t, url, fmt.Sprintf(`{"model":"demo","prompt":%q}`, text))
	}
	_, answers := complete(t, url, fmt.Sprintf(`"prompt":[%q,%q],"n":2,"seed":3,"max_tokens":5,"ignore_eos":true`, one, two))
	whole := answers[0]
	if whole.Object != "text_completion" || len(whole.Choices) != 4 || whole.Usage.Prompt != count(one)+count(two) || whole.Usage.Completion != 20 {
		t.Fatalf("%+v %+v", whole, whole.Usage)
	}
	_, chunks := complete(t, url, fmt.Sprintf(`"prompt":[%q,%q],"n":2,"seed":3,"max_tokens":5,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`, one, two))
	texts, prompts := map[int]string{}, map[int]int{}
	for _, c := range chunks[:len(chunks)-1] {
		texts[c.Choices[0].Index] += c.Choices[0].Text
		prompts[c.Choices[0].Index] = c.Usage.Prompt
	}
	for i, c := range whole.Choices {
		want := count(one)
		if i >= 2 {
			want = count(two)
		}
		if c.Index != i || c.Text == "" || texts[i] != c.Text || prompts[i] != want || c.FinishReason != "length" {
			t.Errorf("choice %d: %+v, streamed %q, %d prompt tokens", i, c, texts[i], prompts[i])
		}
	}
	if last := chunks[len(chunks)-1]; len(last.Choices) != 0 || *last.Usage != *whole.Usage {
		t.Errorf("the stream ends with %+v", last)
	}
}

func TestCompletionsOfTokens(t *testing.T) {
	_, url := serve(t, fast())
	for prompt, tokens := range map[string]int{`[72, 105]`: 2, ` [ [72,105],[72] ] `: 3} {
		_, answers := complete(t, url, `"prompt":`+prompt+`,"ignore_eos":true`)
		if a := answers[0]; a.Usage == nil || a.Usage.Prompt != tokens || a.Usage.Completion != textCap*len(a.Choices) {
			t.Errorf("%s: %+v", prompt, a)
		}
	}
	for _, bad := range []string{`"prompt":[-1]`, `"prompt":[]`, `"prompt":""`, `"prompt":{}`, `"n":1`, `"prompt":"a","echo":true`,
		`"prompt":"a","n":2,"best_of":3`, `"prompt":"a","max_tokens":100000`} {
		if status, _ := complete(t, url, bad); status != http.StatusBadRequest {
			t.Errorf("%s: status %d", bad, status)
		}
	}
}
