package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	openaigo "github.com/openai/openai-go/v3"
)

// purchase is a call of which the test must know what was bought.
type purchase struct {
	API         string          `json:"api"`   // completions or embeddings
	Input       json.RawMessage `json:"input"` // in one of the API's four forms
	N           int64           `json:"n"`
	MaxTokens   int64           `json:"max_tokens"`
	Encoding    string          `json:"encoding"`   // "": the SDK's own choice
	Dimensions  int64           `json:"dimensions"` // 0: the server's own choice
	AbortEvents int             `json:"abort_events"`
	AbortMS     int             `json:"abort_ms"`
}

// bought is what a user of the SDK got. It is the content of a result, as JSON.
type bought struct {
	Choices    int     `json:"choices"`
	Events     int     `json:"events"` // number of events with text
	Prompt     int64   `json:"prompt_tokens"`
	Completion int64   `json:"completion_tokens"`
	Finish     string  `json:"finish"` // finish reason of the first choice
	Vectors    int     `json:"vectors"`
	Dimensions int     `json:"dimensions"`
	Norm       float64 `json:"norm"` // squared length of the last vector
}

// forms holds a prompt or an input in one of its four forms.
type forms struct {
	text   string
	texts  []string
	tokens []int64
	lists  [][]int64
}

func formsOf(raw json.RawMessage) (f forms, err error) {
	for _, form := range []func(*forms) any{
		func(f *forms) any { return &f.text }, func(f *forms) any { return &f.texts },
		func(f *forms) any { return &f.tokens }, func(f *forms) any { return &f.lists },
	} {
		f = forms{} // a failed attempt may have set fields
		if err = json.Unmarshal(raw, form(&f)); err == nil {
			return f, nil
		}
	}
	return f, fmt.Errorf("read the input: %w", err)
}

// buy makes the call and reports what came, also when the call fails.
func buy(ctx context.Context, c openaigo.Client, j job, r *result) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if j.Purchase.AbortMS > 0 {
		time.AfterFunc(time.Duration(j.Purchase.AbortMS)*time.Millisecond, cancel)
	}
	f, err := formsOf(j.Purchase.Input)
	if err != nil {
		return err
	}
	var got bought
	defer func() {
		told, encodeErr := json.Marshal(got)
		if r.Content = string(told); err == nil {
			err = encodeErr
		}
	}()
	switch {
	case j.Purchase.API == "embeddings":
		return buyVectors(ctx, c, j, f, &got)
	case j.Stream:
		return buyStream(ctx, cancel, c, j, f, &got)
	}
	answer, err := c.Completions.New(ctx, completionOf(j, f))
	if err != nil {
		return err
	}
	got.Choices, got.Finish = len(answer.Choices), string(answer.Choices[0].FinishReason)
	got.Prompt, got.Completion = answer.Usage.PromptTokens, answer.Usage.CompletionTokens
	return nil
}

func completionOf(j job, f forms) openaigo.CompletionNewParams {
	p := openaigo.CompletionNewParams{Model: openaigo.CompletionNewParamsModel(j.Model)}
	switch {
	case f.texts != nil:
		p.Prompt.OfArrayOfStrings = f.texts
	case f.tokens != nil:
		p.Prompt.OfArrayOfTokens = f.tokens
	case f.lists != nil:
		p.Prompt.OfArrayOfTokenArrays = f.lists
	default:
		p.Prompt.OfString = openaigo.String(f.text)
	}
	if j.Purchase.N > 0 {
		p.N = openaigo.Int(j.Purchase.N)
	}
	if j.Purchase.MaxTokens > 0 {
		p.MaxTokens = openaigo.Int(j.Purchase.MaxTokens)
	}
	if j.Stream {
		p.StreamOptions.IncludeUsage = openaigo.Bool(true)
	}
	return p
}

func buyStream(ctx context.Context, abort func(), c openaigo.Client, j job, f forms, got *bought) error {
	stream := c.Completions.NewStreaming(ctx, completionOf(j, f))
	defer stream.Close()
	for stream.Next() {
		chunk := stream.Current()
		if chunk.Usage.PromptTokens > 0 {
			got.Prompt, got.Completion = chunk.Usage.PromptTokens, chunk.Usage.CompletionTokens
		}
		for _, choice := range chunk.Choices {
			got.Choices = max(got.Choices, int(choice.Index)+1)
			if choice.Text != "" {
				got.Events++
			}
			if choice.FinishReason != "" {
				got.Finish = string(choice.FinishReason)
			}
		}
		if n := j.Purchase.AbortEvents; n > 0 && got.Events >= n {
			abort()
		}
	}
	return stream.Err()
}

func buyVectors(ctx context.Context, c openaigo.Client, j job, f forms, got *bought) error {
	p := openaigo.EmbeddingNewParams{Model: j.Model, EncodingFormat: openaigo.EmbeddingNewParamsEncodingFormat(j.Purchase.Encoding)}
	switch {
	case f.texts != nil:
		p.Input.OfArrayOfStrings = f.texts
	case f.tokens != nil:
		p.Input.OfArrayOfTokens = f.tokens
	case f.lists != nil:
		p.Input.OfArrayOfTokenArrays = f.lists
	default:
		p.Input.OfString = openaigo.String(f.text)
	}
	if j.Purchase.Dimensions > 0 {
		p.Dimensions = openaigo.Int(j.Purchase.Dimensions)
	}
	answer, err := c.Embeddings.New(ctx, p)
	if err != nil {
		return err
	}
	last := answer.Data[len(answer.Data)-1].Embedding
	got.Vectors, got.Dimensions, got.Prompt = len(answer.Data), len(last), answer.Usage.PromptTokens
	for _, x := range last {
		got.Norm += x * x
	}
	return nil
}
