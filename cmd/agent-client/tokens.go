package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/l402/client"
)

func (a *app) store() (*client.Dir, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	return client.OpenDir(cfg.TokensDir)
}

func (a *app) tokensList(fs *pflag.FlagSet) cli.Run {
	return func(_ context.Context, _ []string) error {
		store, err := a.store()
		if err != nil {
			return err
		}
		tokens, err := store.Tokens()
		if err != nil {
			return err
		}
		intents, err := store.Intents()
		if err != nil {
			return err
		}
		for _, in := range intents {
			fmt.Fprintf(a.stderr, "agent-client: unresolved: %s; the next request there asks the wallet\n", in)
		}
		if a.json {
			if tokens == nil {
				tokens = []client.Token{}
			}
			return a.print(tokens)
		}
		w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "TOKEN ID\tORIGIN\tSERVICE\tDEPOSITS\tSPENT\tNEWEST")
		for _, t := range tokens {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", t.Name(), t.Origin, t.Service, len(t.Deposits), t.Spent, t.UpdatedAt.Format(time.RFC3339))
		}
		if err := w.Flush(); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		return nil
	}
}

func (a *app) tokensShow(fs *pflag.FlagSet) cli.Run {
	reveal := false
	fs.BoolVar(&reveal, "reveal", false, "print the secrets as well: who has them can spend the token")
	return func(_ context.Context, args []string) error {
		store, err := a.store()
		if err != nil {
			return err
		}
		tokens, err := store.Tokens()
		if err != nil {
			return err
		}
		t, err := choose(tokens, args)
		if err != nil {
			return err
		}
		conditions, err := t.Conditions()
		if err != nil {
			return fmt.Errorf("read token %s: %w", t.ID, err)
		}
		if a.json {
			return a.tokenJSON(t, conditions, reveal)
		}
		err = a.say("token id      %s\norigin        %s\nservice       %s\npayment hash  %s\nspent         %s",
			t.Name(), t.Origin, t.Service, t.PaymentHash, t.Spent)
		if err == nil && !t.ValidUntil.IsZero() {
			err = a.say("valid until   %s", t.ValidUntil.Format(time.RFC3339))
		}
		if err == nil && t.Attenuated {
			err = a.say("delegated     a part of account %s", t.ID)
		}
		for _, caveat := range conditions {
			if err == nil {
				err = a.say("caveat        %s", printable(caveat))
			}
		}
		for _, d := range t.Deposits {
			if err == nil {
				err = a.say("deposit       %s + %s fee, %s, %s", d.Amount, d.Fee, d.At.Format(time.RFC3339), d.PaymentHash)
			}
		}
		if err == nil && reveal {
			err = a.say("Authorization: %s", t.Authorization())
		}
		return err
	}
}

// tokenJSON prints the token as tokens list does, with its caveats. With reveal it also prints the
// secrets.
func (a *app) tokenJSON(t client.Token, conditions []string, reveal bool) error {
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("print token: %w", err)
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("print token: %w", err)
	}
	v["caveats"] = conditions
	if reveal {
		v["macaroon"] = base64.StdEncoding.EncodeToString(t.Macaroon)
		v["preimage"] = t.Preimage.Hex()
		v["authorization"] = t.Authorization()
	}
	return a.print(v)
}

// choose returns the token whose id begins with the argument. Without an argument it returns the
// only token. It fails when several tokens match.
func choose(tokens []client.Token, args []string) (client.Token, error) {
	prefix := ""
	if len(args) > 0 {
		prefix = strings.ToLower(args[0])
	}
	var found []client.Token
	for _, t := range tokens {
		if t.Name() == prefix { // the names of its delegated tokens begin with prefix too
			return t, nil
		}
		if strings.HasPrefix(t.Name(), prefix) {
			found = append(found, t)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && prefix == "":
		return client.Token{}, fmt.Errorf("no token is stored")
	case len(found) == 0:
		return client.Token{}, fmt.Errorf("no stored token has an id that begins with %q", clip(prefix))
	}
	return client.Token{}, usagef("%d tokens match: give more of the id, as tokens list shows it", len(found))
}

// printable replaces control characters in a text from a caveat, because a stranger may have
// written the text and control characters can change what the terminal shows.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
