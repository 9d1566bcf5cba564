package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

// chatRequest is the body of POST /v1/chat/completions.
type chatRequest struct {
	Model         string          `json:"model"`
	Messages      []chatMessage   `json:"messages"`
	Stream        bool            `json:"stream"`
	StreamOptions map[string]bool `json:"stream_options"`
	MaxTokens     *int64          `json:"max_tokens,omitempty"`
	Temperature   *float64        `json:"temperature,omitempty"`
	Seed          *int64          `json:"seed,omitempty"`
}

type chatMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// chatResult is what the command reports at the end.
type chatResult struct {
	Model        string `json:"model"`
	Content      string `json:"content"`
	FinishReason string `json:"finish_reason"`
	InputTokens  *int64 `json:"input_tokens"`  // null: the backend did not report the number
	OutputTokens *int64 `json:"output_tokens"` // null: the backend did not report the number
	client.Charge
	Paid      l402.Msat `json:"paid_msat"`
	Fee       l402.Msat `json:"fee_msat"`
	RequestID string    `json:"request_id,omitempty"`
}

func (a *app) chat(fs *pflag.FlagSet) cli.Run {
	body := chatRequest{Stream: true, StreamOptions: map[string]bool{"include_usage": true}}
	var base, system, deposit, maxCost string
	var newAccount bool
	fs.StringVar(&base, "url", "", "gateway's `URL`; default gateway_url of the configuration")
	fs.StringVar(&body.Model, "model", "", "`NAME` of the model")
	fs.StringVar(&system, "system", "", "`TEXT` that instructs the model")
	fs.StringVar(&deposit, "deposit-msat", "", "if something must be paid, buy credit for at least `N` msat")
	fs.StringVar(&maxCost, "max-cost-msat", "", "have the gateway refuse, with exit code 3, if the chat may cost more than `N` msat")
	fs.BoolVar(&newAccount, "new-account", false, newAccountUsage)
	fs.Func("max-tokens", "most `N` tokens to answer with", intFlag(&body.MaxTokens))
	fs.Func("seed", "`N` for a repeatable answer", intFlag(&body.Seed))
	fs.Func("temperature", "randomness `T`, from 0", func(s string) error {
		f, err := strconv.ParseFloat(s, 64)
		body.Temperature = &f
		return err
	})
	return func(ctx context.Context, args []string) error {
		if body.Model == "" {
			return usagef("want --model NAME")
		}
		if system != "" {
			body.Messages = append(body.Messages, chatMessage{"system", system})
		}
		body.Messages = append(body.Messages, chatMessage{"user", args[0]})
		cfg, err := a.config()
		if err != nil {
			return err
		}
		if base, err = cfg.gateway(base); err != nil {
			return err
		}
		headers := map[string]string{"L402-Deposit-Msat": deposit, "L402-Max-Cost-Msat": maxCost}
		req, err := chatHTTP(ctx, base, body, headers)
		if err != nil {
			return err
		}
		trade, resp, err := a.do(cfg, req.WithContext(buying(ctx, req.URL.String(), body.Model, newAccount)))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return a.answer(resp, trade, body.Model)
	}
}

func intFlag(dst **int64) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		*dst = &n
		return err
	}
}

// chatHTTP returns the HTTP request. base may end in /v1, because the base URLs of OpenAI clients
// do.
func chatHTTP(ctx context.Context, base string, body chatRequest, headers map[string]string) (*http.Request, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	url := strings.TrimSuffix(base, "/v1") + "/v1/chat/completions"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return nil, &cli.UsageError{Err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		if value == "" {
			continue
		}
		if _, err := amount(name, value); err != nil {
			return nil, err
		}
		req.Header.Set(name, value)
	}
	return req, nil
}

// answer prints the text while it arrives, and then the cost of the answer.
func (a *app) answer(resp *http.Response, t *trade, model string) error {
	body := t.watch(resp)
	if resp.StatusCode != http.StatusOK {
		data, err := io.ReadAll(io.LimitReader(body, 64<<10))
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return client.ReadStatusError(resp.StatusCode, data)
	}
	r := chatResult{Model: model, RequestID: resp.Header.Get("L402-Request-Id")}
	var show io.Writer = a.stdout
	if a.json {
		show = io.Discard
	}
	var err error
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/event-stream" {
		err = r.stream(body, show)
	} else {
		err = r.whole(body, show)
	}
	// A stream that was cut off also has a cost.
	r.Charge = t.charge(resp)
	r.Paid, r.Fee = t.paid()
	if a.json {
		if e := a.print(r); e != nil {
			return e
		}
		if err != nil {
			return &answered{err}
		}
		return nil
	}
	if e := a.say(""); e != nil {
		return e
	}
	fmt.Fprintf(a.stderr, "agent-client: %s + %s tokens, %s\n", count(r.InputTokens), count(r.OutputTokens), t.summary(resp))
	return err
}

func count(n *int64) string {
	if n == nil {
		return "?"
	}
	return strconv.FormatInt(*n, 10)
}

// completion is one chunk of a stream, or a complete answer.
type completion struct {
	Model   string `json:"model"`
	Choices []struct {
		Index        int         `json:"index"`
		Delta        chatMessage `json:"delta"`
		Message      chatMessage `json:"message"`
		FinishReason string      `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		PromptTokens     int64 `json:"prompt_tokens"`
		CompletionTokens int64 `json:"completion_tokens"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// add adds one chunk to the result and writes the chunk's text to show.
func (r *chatResult) add(data []byte, show io.Writer) error {
	var c completion
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if len(c.Error) > 0 && string(c.Error) != "null" {
		return newFailedAnswer(c.Error)
	}
	if c.Model != "" {
		r.Model = c.Model
	}
	for _, choice := range c.Choices {
		if choice.Index != 0 {
			continue
		}
		text := choice.Delta.Content + choice.Message.Content
		r.Content += text
		if choice.FinishReason != "" {
			r.FinishReason = choice.FinishReason
		}
		if _, err := io.WriteString(show, text); err != nil {
			return fmt.Errorf("write the answer: %w", err)
		}
	}
	if c.Usage != nil {
		r.InputTokens, r.OutputTokens = &c.Usage.PromptTokens, &c.Usage.CompletionTokens
	}
	return nil
}

func (r *chatResult) whole(body io.Reader, show io.Writer) error {
	data, err := io.ReadAll(io.LimitReader(body, maxJSONBody))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return r.add(data, show)
}

// stream reads server-sent events to the end of the body, because the trailers come after [DONE].
func (r *chatResult) stream(body io.Reader, show io.Writer) error {
	done := false
	var cut *failedAnswer
	for events := client.NewEventReader(body); ; {
		event, err := events.Next()
		switch {
		case errors.Is(err, io.EOF) && cut != nil:
			return cut
		case errors.Is(err, io.EOF) && !done:
			return errors.New("the answer was cut before its end")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case string(event.Data) == "[DONE]":
			done = true
		case event.Data == nil || cut != nil:
		default:
			// stream reads on after an error within the answer, because the cost of the answer
			// follows.
			if err := r.add(event.Data, show); err != nil && !errors.As(err, &cut) {
				return err
			}
		}
	}
}

// failedAnswer is an error that a server sent within an answer.
type failedAnswer struct{ said string }

func (e *failedAnswer) Error() string { return "the answer is not whole: " + e.said }

// newFailedAnswer returns the message of an error in the form of the OpenAI API. When raw has
// another form, the message is raw itself.
func newFailedAnswer(raw json.RawMessage) *failedAnswer {
	var e struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &e) != nil || e.Message == "" {
		e.Message = string(raw)
	}
	return &failedAnswer{clip(e.Message)}
}
