package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/l402/client"
)

const newAccountUsage = "buy a new account even if the gateway does not see the stored token"

// buying returns the context of a request that may pay. Before the client pays, it checks that the
// gateway's list of models has the wanted model.
func buying(ctx context.Context, url, model string, newAccount bool) context.Context {
	if newAccount {
		ctx = client.WithNewAccount(ctx)
	}
	base, _, ok := strings.Cut(url, "/v1/")
	if !ok || model == "" {
		return ctx
	}
	return client.WithPurchaseCheck(ctx, func(ctx context.Context) error { return sells(ctx, base, model) })
}

// maxModels and modelsTimeout bound the reading of the list of models.
const (
	maxModels     = 4 << 20 // bytes
	modelsTimeout = 10 * time.Second
)

// errUnavailable reports a model that the gateway cannot serve now.
var errUnavailable = errors.New("nothing was paid")

// sells fails when the gateway at base lists models and the wanted model is not in the list, or
// cannot be served now. When the gateway has no such list, sells succeeds and the request
// continues.
func sells(ctx context.Context, base, model string) error {
	ctx, cancel := context.WithTimeout(ctx, modelsTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/models", nil)
	if err != nil {
		return &cli.UsageError{Err: err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var list struct {
		Data []struct {
			ID   string `json:"id"`
			L402 struct {
				Available *bool `json:"available"`
			} `json:"l402"`
		} `json:"data"`
	}
	body := json.NewDecoder(io.LimitReader(resp.Body, maxModels))
	if resp.StatusCode != http.StatusOK || body.Decode(&list) != nil || len(list.Data) == 0 {
		return nil
	}
	var names []string
	for _, m := range list.Data {
		if m.ID != model {
			names = append(names, m.ID)
			continue
		}
		if m.L402.Available != nil && !*m.L402.Available {
			return fmt.Errorf("the model %s cannot be served now, says the gateway: try again later; %w", clip(model), errUnavailable)
		}
		return nil
	}
	return usagef("the gateway does not sell the model %s, and nothing was paid; it sells %s", clip(model), shorten(names))
}

// shorten returns the names as one text that is short enough for a person to read.
func shorten(names []string) string {
	text := strings.Join(names, ", ")
	if len(text) > 200 {
		return text[:200] + "…"
	}
	return text
}
