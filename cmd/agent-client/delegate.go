package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/internal/secretfile"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

const delegateHelp = `

Makes a copy of a stored token that can do less, and prints it for another agent.
Neither the gateway nor the network is asked. What the copy spends is taken from
the token's account; its limits hold for it and for every copy made from it, and
nobody can take them off. At least one limit is needed, and none may be wider
than what the token has. Each call opens a budget of its own.

ID is the beginning of a token's id as tokens list shows it; one may leave it out
where the store holds a single token (for --url).

    agent-client tokens delegate --budget "5 sat" --models small --expires 24h --out sub.json
    agent-client tokens import sub.json          # the other agent, with a tokens_dir of its own

The credential is the only line on standard output, so it can be piped. Whoever
has it can spend it: hand it over on a private channel.`

const importHelp = `

Stores a token that somebody delegated, for the gateway at --url, whose requests
use it from then on. FILE (- is standard input) holds what tokens delegate wrote,
or one line "L402 <macaroon>:<preimage>". Nobody is asked.

When such a token is used up or has expired, requests end with exit code 3 and
buy nothing, unless buy_beyond_delegation: true stands in the configuration. It
cannot be topped up either: ask for another where it came from.`

// delegateFlags holds the flags of tokens delegate.
type delegateFlags struct {
	client.Delegation
	base, out string
}

func (a *app) tokensDelegate(fs *pflag.FlagSet) cli.Run {
	f := flagsOfDelegate(fs)
	return func(_ context.Context, args []string) error {
		if f.out == "-" {
			return usagef("--out: want a file; without it the credential goes to standard output")
		}
		t, err := a.delegator(f.base, args)
		if err != nil {
			return err
		}
		part, err := t.Delegate(f.Delegation, time.Now())
		var refused *client.DelegationError
		switch {
		case errors.As(err, &refused) && refused.Limit != "":
			return usagef("--%s: %s", refused.Limit, refused.Reason)
		case errors.As(err, &refused):
			return usagef("%s: give --budget, --models, --capabilities, --expires or --rpm", refused.Reason)
		case err != nil:
			return err
		}
		return a.handOver(t, part, f)
	}
}

func flagsOfDelegate(fs *pflag.FlagSet) *delegateFlags {
	f := &delegateFlags{}
	fs.StringVar(&f.base, "url", "", "take a token of the gateway at this `URL`; default: of any")
	fs.StringVar(&f.out, "out", "", "write the credential to `FILE`, with mode 0600, instead of standard output")
	fs.StringVar(&f.Label, "label", "", "`TEXT` that names the copy in balances")
	fs.Func("budget", "`AMOUNT` that the copy may spend in all: msat, or with a unit, as \"5 sat\"", func(s string) (err error) {
		f.Budget, err = positiveAmount(s)
		return err
	})
	fs.Func("models", "the only models it may use: `A,B`", names(&f.Models))
	fs.Func("capabilities", "the only kinds of calls it may make: `chat,embeddings`", names(&f.Capabilities))
	fs.Func("expires", "its end: `WHEN` is 24h from now, 2030-01-31T12:00:00Z or unix seconds", func(s string) (err error) {
		f.ValidUntil, err = parseEnd(s, time.Now())
		return err
	})
	fs.Func("rpm", "at most `N` requests per minute", func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err == nil && n < 1 {
			err = errors.New("want a number above 0")
		}
		f.RequestsPerMinute = n
		return err
	})
	return f
}

// delegator returns the stored token from which the copy is made.
func (a *app) delegator(base string, id []string) (client.Token, error) {
	origin := ""
	if base != "" {
		var err error
		if origin, err = client.Origin(base); err != nil {
			return client.Token{}, usagef("--url: %w", err)
		}
	}
	store, err := a.store()
	if err != nil {
		return client.Token{}, err
	}
	tokens, err := store.Tokens()
	if err != nil {
		return client.Token{}, err
	}
	return choose(slices.DeleteFunc(tokens, func(t client.Token) bool { return origin != "" && t.Origin != origin }), id)
}

// handOver prints the copy or writes it to a file. Hints for people go to standard error.
func (a *app) handOver(whole, part client.Token, f *delegateFlags) error {
	data, err := part.Export()
	if err != nil {
		return err
	}
	conditions, err := part.Conditions()
	if err != nil {
		return err
	}
	where := "what is on standard output"
	if f.out != "" {
		where = f.out
		if err := secretfile.Write(f.out, data); err != nil {
			return fmt.Errorf("write the credential: %w", err)
		}
	}
	switch {
	case f.out != "" && a.json:
		err = a.print(map[string]any{"file": f.out, "token_id": part.ID.String(), "service": part.Service, "conditions": conditions})
	case f.out != "":
		err = a.say("wrote %s", f.out)
	case a.json:
		err = a.print(json.RawMessage(data))
	default:
		err = a.say("Authorization: %s", part.Authorization())
	}
	if err != nil {
		return err
	}
	before, err := whole.Conditions()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "agent-client: a part of %s with %s\n", whole, printable(strings.Join(conditions[len(before):], ", ")))
	if f.Budget == 0 {
		fmt.Fprintln(a.stderr, "agent-client: it has no budget of its own and can spend all that this token can; --budget limits it")
	}
	fmt.Fprintf(a.stderr, "agent-client: whoever has %s can spend it: keep it secret\n", where)
	return nil
}

// maxHandover bounds the size of an imported credential, in bytes.
const maxHandover = 1 << 20

func (a *app) tokensImport(fs *pflag.FlagSet) cli.Run {
	open := a.gatewayFlag(fs)
	return func(ctx context.Context, args []string) error {
		base, buyer, err := open()
		if err != nil {
			return err
		}
		in := a.stdin
		if args[0] != "-" {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("read the credential: %w", err)
			}
			defer file.Close()
			in = file
		}
		data, err := io.ReadAll(io.LimitReader(in, maxHandover+1))
		if err != nil {
			return fmt.Errorf("read the credential: %w", err)
		}
		if len(data) > maxHandover {
			return fmt.Errorf("read the credential: it is larger than %d bytes", maxHandover)
		}
		cred, err := client.ParseCredential(data)
		if err != nil {
			return fmt.Errorf("read the credential: %w", err)
		}
		t, err := buyer.Import(ctx, base, cred)
		if err != nil {
			return err
		}
		conditions, err := t.Conditions()
		if err != nil {
			return err
		}
		if a.json {
			return a.tokenJSON(t, conditions, false)
		}
		if err := a.say("stored %s; requests there use it from now on", t); err != nil {
			return err
		}
		for _, caveat := range conditions {
			if err := a.say("caveat        %s", printable(caveat)); err != nil {
				return err
			}
		}
		return nil
	}
}

// positiveAmount reads an amount above 0, such as "5000" (msat), "5000 msat" or "5 sat".
func positiveAmount(s string) (l402.Msat, error) {
	m, err := l402.ParseMsat(s)
	if err != nil {
		m, err = parseAmount(s)
	}
	if err == nil && m == 0 {
		err = errors.New("want an amount above 0")
	}
	return m, err
}

// names returns a function that sets dst from a list such as "a,b".
func names(dst *[]string) func(string) error {
	return func(s string) error {
		if s == "" {
			return errors.New("want at least one name")
		}
		*dst = strings.Split(s, ",")
		return nil
	}
}

// parseEnd reads a time as unix seconds, as a duration from now, or in RFC 3339.
func parseEnd(s string, now time.Time) (time.Time, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("want 24h, 2030-01-31T12:00:00Z or unix seconds, got %q", clip(s))
	}
	return t, nil
}
