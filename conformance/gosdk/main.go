// Program gosdk makes calls with Go's SDKs and reports what a user of the SDK sees. It reads jobs
// from standard input and writes results to standard output, both as JSON. The tests in the folder
// above run it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	openaigo "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	goopenai "github.com/sashabaranov/go-openai"
)

// job describes one call. result is what a user of the SDK sees of the call.
type job struct {
	SDK     string            `json:"sdk"`
	Name    string            `json:"name"`
	URL     string            `json:"url"`
	Key     string            `json:"key"`
	Model   string            `json:"model"`
	Prompt  string            `json:"prompt"`
	Stream  bool              `json:"stream"`
	Lookup  bool              `json:"lookup"` // call GET /v1/models/{id} instead of a chat
	Input   json.RawMessage   `json:"input"`  // text to embed, instead of a chat
	Text    string            `json:"text"`   // textOne, textBatch or textTokens: call completions instead of a chat
	Headers map[string]string `json:"headers"`

	Purchase *purchase `json:"purchase"` // instead of a chat
}

// embeds reports whether the job calls embeddings.
func (j job) embeds() bool { return len(j.Input) > 0 && string(j.Input) != "null" }

type result struct {
	Name    string `json:"name"`
	Raised  bool   `json:"raised"`
	Error   string `json:"error"`
	Content string `json:"content"`
}

// jobTimeout bounds one call, because a call that hangs is a failure too.
const jobTimeout = 30 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gosdk:", err)
		os.Exit(1)
	}
}

func run() error {
	var jobs []job
	if err := json.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		return err
	}
	results := make([]result, 0, len(jobs))
	for _, j := range jobs {
		call, ok := map[string]func(context.Context, job, *result) error{"openai-go": callOpenAIGo, "go-openai": callGoOpenAI}[j.SDK]
		if !ok {
			return fmt.Errorf("no SDK is named %q", j.SDK)
		}
		r := result{Name: j.Name}
		ctx, cancel := context.WithTimeout(context.Background(), jobTimeout)
		if err := call(ctx, j, &r); err != nil {
			r.Raised, r.Error = true, text(err)
		}
		cancel()
		results = append(results, r)
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

// text returns what a user sees of an error. Newer releases of OpenAI's SDK do not put the message
// into the error's text, so users of these releases read the field Message.
func text(err error) string {
	var own *openaigo.Error
	if errors.As(err, &own) {
		return err.Error() + ": " + own.Message
	}
	return err.Error()
}

func callOpenAIGo(ctx context.Context, j job, r *result) error {
	options := []option.RequestOption{option.WithBaseURL(j.URL), option.WithAPIKey(j.Key), option.WithMaxRetries(0)}
	for name, value := range j.Headers {
		options = append(options, option.WithHeader(name, value))
	}
	c := openaigo.NewClient(options...)
	if j.Purchase != nil {
		return buy(ctx, c, j, r)
	}
	if j.embeds() {
		return embedOpenAIGo(ctx, c, j, r)
	}
	if j.Lookup {
		m, err := c.Models.Get(ctx, j.Model)
		if err == nil {
			r.Content = m.ID
		}
		return err
	}
	if j.Text != "" {
		return completeOpenAIGo(ctx, &c, j, r)
	}
	params := openaigo.ChatCompletionNewParams{Model: j.Model, Messages: []openaigo.ChatCompletionMessageParamUnion{openaigo.UserMessage(j.Prompt)}}
	if !j.Stream {
		answer, err := c.Chat.Completions.New(ctx, params)
		if err == nil && len(answer.Choices) > 0 {
			r.Content = answer.Choices[0].Message.Content
		}
		return err
	}
	stream := c.Chat.Completions.NewStreaming(ctx, params)
	for stream.Next() {
		if chunk := stream.Current(); len(chunk.Choices) > 0 {
			r.Content += chunk.Choices[0].Delta.Content
		}
	}
	return stream.Err()
}

func callGoOpenAI(ctx context.Context, j job, r *result) error {
	config := goopenai.DefaultConfig(j.Key)
	config.BaseURL = j.URL
	config.HTTPClient = &headerClient{j.Headers}
	c := goopenai.NewClientWithConfig(config)
	if j.embeds() {
		return embedGoOpenAI(ctx, c, j, r)
	}
	if j.Lookup {
		m, err := c.GetModel(ctx, j.Model)
		r.Content = m.ID
		return err
	}
	if j.Text != "" {
		return completeGoOpenAI(ctx, c, j, r)
	}
	request := goopenai.ChatCompletionRequest{Model: j.Model, Messages: []goopenai.ChatCompletionMessage{{Role: "user", Content: j.Prompt}}}
	if !j.Stream {
		answer, err := c.CreateChatCompletion(ctx, request)
		if err == nil && len(answer.Choices) > 0 {
			r.Content = answer.Choices[0].Message.Content
		}
		return err
	}
	stream, err := c.CreateChatCompletionStream(ctx, request)
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(chunk.Choices) > 0 {
			r.Content += chunk.Choices[0].Delta.Content
		}
	}
}
