package main

import (
	"context"
	"errors"
	"io"
	"strings"

	openaigo "github.com/openai/openai-go/v3"
	goopenai "github.com/sashabaranov/go-openai"
)

// These are the values of a job's Text: the prompt, the prompt twice, or the prompt's bytes as
// tokens.
const (
	textOne    = "one"
	textBatch  = "batch"
	textTokens = "tokens"
)

// texts holds the text of each choice, by the choice's index.
type texts []string

func (t *texts) add(index int, text string) {
	for len(*t) <= index {
		*t = append(*t, "")
	}
	(*t)[index] += text
}

// said returns the texts of all choices, joined with "|".
func (t texts) said() string { return strings.Join(t, "|") }

func completeOpenAIGo(ctx context.Context, c *openaigo.Client, j job, r *result) error {
	params := openaigo.CompletionNewParams{Model: openaigo.CompletionNewParamsModel(j.Model)}
	switch j.Text {
	case textBatch:
		params.Prompt.OfArrayOfStrings = []string{j.Prompt, j.Prompt}
	case textTokens:
		for _, b := range []byte(j.Prompt) {
			params.Prompt.OfArrayOfTokens = append(params.Prompt.OfArrayOfTokens, int64(b))
		}
	default:
		params.Prompt.OfString = openaigo.String(j.Prompt)
	}
	var t texts
	defer func() { r.Content = t.said() }()
	if !j.Stream {
		answer, err := c.Completions.New(ctx, params)
		if err != nil {
			return err
		}
		for _, choice := range answer.Choices {
			t.add(int(choice.Index), choice.Text)
		}
		return nil
	}
	stream := c.Completions.NewStreaming(ctx, params)
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			t.add(int(choice.Index), choice.Text)
		}
	}
	return stream.Err()
}

func completeGoOpenAI(ctx context.Context, c *goopenai.Client, j job, r *result) error {
	request := goopenai.CompletionRequest{Model: j.Model, Prompt: j.Prompt}
	if j.Text == textBatch {
		request.Prompt = []string{j.Prompt, j.Prompt}
	}
	var t texts
	defer func() { r.Content = t.said() }()
	if !j.Stream {
		answer, err := c.CreateCompletion(ctx, request)
		for _, choice := range answer.Choices {
			t.add(choice.Index, choice.Text)
		}
		return err
	}
	stream, err := c.CreateCompletionStream(ctx, request)
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
		for _, choice := range chunk.Choices {
			t.add(choice.Index, choice.Text)
		}
	}
}
