package main

import (
	"context"
	"encoding/json"
	"fmt"

	openaigo "github.com/openai/openai-go/v3"
	goopenai "github.com/sashabaranov/go-openai"
)

// said describes the vectors that a user of the SDK gets.
func said(vectors, dimensions int, tokens int64) string {
	return fmt.Sprintf("%d of %d, %d tokens", vectors, dimensions, tokens)
}

func embedOpenAIGo(ctx context.Context, c openaigo.Client, j job, r *result) error {
	params := openaigo.EmbeddingNewParams{Model: j.Model}
	var text string
	var texts []string
	var ids [][]int64
	switch {
	case json.Unmarshal(j.Input, &text) == nil:
		params.Input.OfString = openaigo.String(text)
	case json.Unmarshal(j.Input, &texts) == nil:
		params.Input.OfArrayOfStrings = texts
	default:
		if err := json.Unmarshal(j.Input, &ids); err != nil {
			return err
		}
		params.Input.OfArrayOfTokenArrays = ids
	}
	answer, err := c.Embeddings.New(ctx, params)
	if err == nil && len(answer.Data) > 0 {
		r.Content = said(len(answer.Data), len(answer.Data[0].Embedding), answer.Usage.PromptTokens)
	}
	return err
}

func embedGoOpenAI(ctx context.Context, c *goopenai.Client, j job, r *result) error {
	var input any
	if err := json.Unmarshal(j.Input, &input); err != nil {
		return err
	}
	answer, err := c.CreateEmbeddings(ctx, goopenai.EmbeddingRequest{Input: input, Model: goopenai.EmbeddingModel(j.Model)})
	if err == nil && len(answer.Data) > 0 {
		r.Content = said(len(answer.Data), len(answer.Data[0].Embedding), int64(answer.Usage.PromptTokens))
	}
	return err
}
