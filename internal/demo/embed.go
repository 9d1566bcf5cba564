package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"sluice.example/sluice/l402/client"
)

// embed buys the vectors of two texts. It is another API, and the same payment pays for it.
func (d *demo) embed(ctx context.Context, a *agent) error {
	d.story.chapter("It has two texts embedded, from the same payment")
	texts := []string{"A sluice lets a measured amount through.", "The gate of a lock."}
	vectors, got, err := a.embed(ctx, texts)
	if err != nil {
		return fmt.Errorf("embedding: %w", err)
	}
	if len(vectors) != len(texts) || len(vectors[0].Embedding) == 0 {
		return fmt.Errorf("embedding: %d vectors for %d texts", len(vectors), len(texts))
	}
	d.story.say("POST /v1/embeddings: %d vectors of %d numbers", len(vectors), len(vectors[0].Embedding))
	return d.account(got)
}

// vector is the embedding of one text.
type vector struct{ Embedding []float64 }

// embed requests the vectors of texts. An embedding has no completion tokens.
func (a *agent) embed(ctx context.Context, texts []string) ([]vector, answer, error) {
	body, err := json.Marshal(map[string]any{"model": model, "input": texts})
	if err != nil {
		return nil, answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"/v1/embeddings", bytes.NewReader(body))
	if err != nil {
		return nil, answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, answer{}, err
	}
	defer resp.Body.Close()
	var made struct {
		Data  []vector
		Usage usage
	}
	if err := json.NewDecoder(resp.Body).Decode(&made); err != nil || resp.StatusCode != http.StatusOK {
		return nil, answer{}, fmt.Errorf("status %s: %w", resp.Status, err)
	}
	got := answer{prompt: made.Usage.Prompt}
	return made.Data, got, got.charged(client.Cost(resp))
}
