package inference

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

type completion struct {
	ID      string          `json:"id"`
	Object  string          `json:"object"`
	Created int64           `json:"created"`
	Model   string          `json:"model"`
	Choices []choiceJSON    `json:"choices"`
	Usage   json.RawMessage `json:"usage,omitempty"`
}

type choiceJSON struct {
	Index        int      `json:"index"`
	Message      *message `json:"message,omitempty"`
	Text         *string  `json:"text,omitempty"` // only for completions
	Logprobs     *string  `json:"logprobs"`
	FinishReason string   `json:"finish_reason"`
}

type message struct {
	Role             string     `json:"role"`
	Content          *string    `json:"content"`
	ReasoningContent string     `json:"reasoning_content,omitempty"`
	ToolCalls        []toolCall `json:"tool_calls,omitempty"`
}

type toolCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"`
	Function functionCall `json:"function"`
}

type functionCall struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

func (a *answer) unary(ctx context.Context, w http.ResponseWriter) error {
	texts := make([]strings.Builder, len(a.sequences))
	reasoning := make([]strings.Builder, len(a.sequences))
	err := a.generate(ctx, func(q *sequence, text string) error {
		if q.tokens <= a.plan.reasoning {
			reasoning[q.index].WriteString(text)
		} else {
			texts[q.index].WriteString(text)
		}
		return nil
	}, func() error { return nil })
	if err != nil {
		return err
	}
	a.free()
	c := completion{ID: a.id, Object: a.q.object(""), Created: a.created, Model: a.s.cfg.Model}
	for i, q := range a.best() {
		choice, err := a.choice(i, q, texts[q.index].String(), reasoning[q.index].String())
		if err != nil {
			return err
		}
		c.Choices = append(c.Choices, choice)
	}
	if !a.plan.noUsage {
		c.Usage = a.plan.appendUsage(nil, a.plan.usage, a.q.promptTokens(), a.generated)
	}
	body, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return a.deliver(ctx, w, body)
}

// best returns the n likeliest of the best_of sequences, likeliest first. The tokens of all
// sequences count.
func (a *answer) best() []*sequence {
	if a.q.bestOf == a.q.choices {
		return a.sequences
	}
	mean := func(q *sequence) float64 { return q.sampler.logProb / float64(max(q.tokens, 1)) }
	sorted := slices.Clone(a.sequences)
	slices.SortStableFunc(sorted, func(x, y *sequence) int { return cmp.Compare(mean(y), mean(x)) })
	return sorted[:a.q.choices]
}

func (a *answer) choice(index int, q *sequence, text, reasoning string) (choiceJSON, error) {
	if a.q.prompts != nil {
		return choiceJSON{Index: index, FinishReason: q.finish, Text: &text}, nil
	}
	c := choiceJSON{Index: index, FinishReason: q.finish, Message: &message{Role: "assistant", ReasoningContent: reasoning}}
	if !a.plan.toolCalls {
		c.Message.Content = &text
		return c, nil
	}
	arguments, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		return c, fmt.Errorf("encode the arguments: %w", err)
	}
	c.FinishReason = "tool_calls"
	c.Message.ToolCalls = []toolCall{{"call_0", "function", functionCall{"say", string(arguments)}}}
	return c, nil
}

// deliver writes the body, with the faults of a unary answer.
func (a *answer) deliver(ctx context.Context, w http.ResponseWriter, body []byte) error {
	p := a.plan
	if p.garbageAt >= 0 {
		body = body[:len(body)/2]
	}
	if p.hugeLine > 0 {
		body = pad(body, p.hugeLine)
	}
	if p.gzip {
		var packed bytes.Buffer
		gz := gzip.NewWriter(&packed)
		if _, err := gz.Write(body); err != nil {
			return err
		}
		if err := gz.Close(); err != nil {
			return err
		}
		body = packed.Bytes()
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if p.slowBody > 0 {
		return drip(ctx, w, body, p)
	}
	if _, err := w.Write(body[:len(body)/2]); err != nil {
		return err
	}
	if p.stallAt >= 0 || p.cutAt >= 0 || p.truncate {
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
	}
	switch {
	case p.cutAt >= 0:
		return errFault
	case p.truncate:
		return errOver // net/http closes the connection after a body that is too short
	case p.stallAt >= 0:
		if err := stall(ctx, p.stallFor); err != nil {
			return err
		}
	}
	_, err := w.Write(body[len(body)/2:])
	return err
}

// drip writes the body in a few pieces over the time that the plan gives.
func drip(ctx context.Context, w http.ResponseWriter, body []byte, p *plan) error {
	const pieces = 8
	size := len(body)/pieces + 1
	for piece := range slices.Chunk(body, size) {
		if _, err := w.Write(piece); err != nil {
			return err
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		if err := pause(ctx, p.slowBody/pieces); err != nil {
			return err
		}
	}
	return nil
}
