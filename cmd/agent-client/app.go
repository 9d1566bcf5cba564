package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

// Exit codes. Scripts and agents rely on them.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitBudget  = 3 // a cap of the buyer forbade it, nothing was paid
	exitPayment = 4 // the invoice was refused, or the payment failed or is in doubt
)

// app is one invocation.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string

	configPath string
	json       bool
	verbose    bool
}

// command is one subcommand; name is one or two words.
// The first line of does is its summary.
type command struct {
	name, args, does string
	run              func(*app, context.Context, command, []string) error
}

func commands() []command {
	return []command{
		{"request", "[flags] URL", "curl that pays", (*app).request},
		{"chat", "[flags] PROMPT", "ask a model, stream the answer", (*app).chat},
		{"balance", "[--url URL]", "what the stored token has left", (*app).balance},
		{"quote", "--model M [flags]", "the most a request may cost", (*app).quote},
		{"topup", "[--url URL] AMOUNT", "buy more credit for the stored token" + topupHelp, (*app).topup},
		{"tokens list", "", "stored tokens", (*app).tokensList},
		{"tokens show", "[--reveal] [ID]", "one stored token, its caveats and deposits", (*app).tokensShow},
		{"tokens delegate", "[flags] [ID]", "a copy that can do less, for another agent" + delegateHelp, (*app).tokensDelegate},
		{"tokens import", "[--url URL] FILE|-", "store a delegated token" + importHelp, (*app).tokensImport},
		{"wallet balance", "", "money in the node's channels", (*app).walletBalance},
		{"wallet pay", "[flags] INVOICE", "pay an invoice, at most once", (*app).walletPay},
		{"wallet invoice", "[--memo TEXT] AMOUNT", "make an invoice; a number is msat", (*app).walletInvoice},
	}
}

// run is the whole program; it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env func(string) string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: env, configPath: env(envPrefix + "CONFIG")}
	err := a.dispatch(ctx, args)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		a.report(err)
	}
	return exitCode(err)
}

func (a *app) dispatch(ctx context.Context, args []string) error {
	fs := a.flags("agent-client")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			a.overview(a.stdout)
			return err
		}
		return &usageError{err}
	}
	args = fs.Args()
	if len(args) == 0 {
		a.overview(a.stderr)
		return &usageError{errors.New("want a command")}
	}
	for _, words := range []int{2, 1} {
		name := strings.Join(args[:min(words, len(args))], " ")
		all := commands()
		if i := slices.IndexFunc(all, func(c command) bool { return c.name == name }); i >= 0 {
			return all[i].run(a, ctx, all[i], args[min(words, len(args)):])
		}
	}
	return usagef("unknown command %q: run agent-client -h", clip(strings.Join(args[:min(2, len(args))], " ")))
}

func (a *app) overview(w io.Writer) {
	fmt.Fprintf(w, "agent-client buys calls from an L402 gateway.\n\n")
	for _, c := range commands() {
		summary, _, _ := strings.Cut(c.does, "\n")
		fmt.Fprintf(w, "  agent-client %-44s %s\n", c.name+" "+c.args, summary)
	}
	fmt.Fprintf(w, `
Every command takes --config FILE (default $%sCONFIG or ~/.agent-client/config.yaml),
--json and -v, before or after its name; -h explains its flags.
Exit codes: 0 done, 1 failed, 2 usage, 3 budget refused, 4 payment failed.
With --json, a failure is {"error":{"code","message",…}} on standard output.
`, envPrefix)
}

// flags returns a set with the flags that every command takes.
func (a *app) flags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&a.configPath, "config", a.configPath, "configuration `FILE`")
	fs.BoolVar(&a.json, "json", a.json, "print one JSON object")
	fs.BoolVar(&a.verbose, "v", a.verbose, "tell on standard error what is paid")
	return fs
}

// parse reads flags and arguments in any order, "--" ends the flags. It wants
// between least and most arguments.
func (a *app) parse(c command, fs *flag.FlagSet, args []string, least, most int) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				fmt.Fprintf(a.stdout, "agent-client %s %s\n    %s\n\n", c.name, c.args, c.does)
				fs.SetOutput(a.stdout)
				fs.PrintDefaults()
				return nil, err
			}
			return nil, &usageError{err}
		}
		left := fs.Args()
		if parsed := len(args) - len(left); parsed > 0 && args[parsed-1] == "--" {
			rest = append(rest, left...)
			break
		}
		if len(left) == 0 {
			break
		}
		rest, args = append(rest, left[0]), left[1:]
	}
	if len(rest) < least || len(rest) > most {
		return nil, usagef("want: agent-client %s %s", c.name, c.args)
	}
	return rest, nil
}

// usageError is a command line that cannot be meant.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// answered wraps an error whose result is on standard output already, so that
// --json prints no second object.
type answered struct{ error }

func (e *answered) Unwrap() error { return e.error }

func exitCode(err error) int { code, _ := classify(err); return code }

// classify maps an error to its exit code and to its name in JSON.
func classify(err error) (int, string) {
	var (
		usage   *usageError
		budget  *client.BudgetError
		invoice *client.InvoiceError
		payment *client.PaymentError
		status  *client.StatusError
		unseen  *client.UnseenTokenError
	)
	switch {
	case err == nil:
		return exitDone, ""
	case errors.As(err, &usage):
		return exitUsage, "usage"
	case errors.As(err, &budget):
		return exitBudget, "budget_refused"
	case errors.As(err, &invoice):
		return exitPayment, "invoice_refused"
	case errors.As(err, &unseen):
		return exitPayment, "token_not_seen"
	case errors.As(err, &payment) && payment.InFlight:
		return exitPayment, "payment_in_flight"
	case errors.As(err, &payment):
		return exitPayment, "payment_failed"
	case errors.Is(err, client.ErrDelegated):
		return exitFailed, "delegated_token"
	case errors.As(err, &status) && status.Status == http.StatusPreconditionFailed:
		return exitBudget, "cost_above_maximum"
	case errors.As(err, &status):
		return exitFailed, "status"
	}
	return exitFailed, "failed"
}

// report prints an error: for people on standard error, for programs on
// standard output.
func (a *app) report(err error) {
	fmt.Fprintf(a.stderr, "agent-client: %v\n", err)
	var budget *client.BudgetError
	var unseen *client.UnseenTokenError
	switch {
	case errors.As(err, &budget) && budget.Reason != "":
		fmt.Fprintln(a.stderr, "agent-client: buy_beyond_delegation: true in the configuration allows it, within the caps")
	case errors.As(err, &unseen):
		fmt.Fprintln(a.stderr, "agent-client: --new-account of request and chat buys a new account on purpose")
	case errors.As(err, &budget):
		fmt.Fprintln(a.stderr, "agent-client: the caps are caps.per_request and caps.total of the configuration")
	}
	var done *answered
	if !a.json || errors.As(err, &done) {
		return
	}
	type object struct {
		Code        string `json:"code"`
		Message     string `json:"message"`
		Status      int    `json:"status,omitempty"`
		PaymentHash string `json:"payment_hash,omitempty"`
	}
	o := object{Message: err.Error()}
	_, o.Code = classify(err)
	var payment *client.PaymentError
	if errors.As(err, &payment) {
		o.PaymentHash = payment.Hash.String()
	}
	var status *client.StatusError
	if errors.As(err, &status) {
		o.Status = status.Status
	}
	if err := a.print(map[string]object{"error": o}); err != nil {
		fmt.Fprintf(a.stderr, "agent-client: %v\n", err)
	}
}

// print writes one JSON object and a line end.
func (a *app) print(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// say writes a line for people to standard output.
func (a *app) say(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.stdout, format+"\n", args...); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

func (a *app) log() *slog.Logger {
	level := slog.LevelWarn
	if a.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level}))
}

// buyer builds the SDK's client. It opens the store, but the wallet only when
// something is to be paid.
func (a *app) buyer(cfg *config) (*client.Client, error) {
	store, err := client.OpenDir(cfg.TokensDir)
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{
		Wallet: newNode(cfg, a.log()), Store: store, Network: cfg.Network,
		MaxPerRequest: cfg.Caps.PerRequest, MaxTotal: cfg.Caps.Total,
		MaxFee:         client.Fee{Base: cfg.Caps.FeeBase, PPM: cfg.Caps.FeePPM},
		PaymentTimeout: cfg.PaymentTimeout, Log: a.log(),
		BuyBeyondDelegation: cfg.BuyBeyondDelegation,
	})
}

// amount reads an amount in msat from the command line.
func amount(name, s string) (l402.Msat, error) {
	m, err := l402.ParseMsat(s)
	if err != nil || m == 0 {
		return 0, usagef("%s: want a number of msat above 0, got %q", name, clip(s))
	}
	return m, nil
}

// amountOrMsat reads an amount with a unit, or a number of msat.
func amountOrMsat(name, s string) (l402.Msat, error) {
	if m, err := l402.ParseMsat(strings.TrimSpace(s)); err == nil {
		return m, nil
	}
	m, err := parseAmount(s)
	if err != nil {
		return 0, usagef("%s: %w", name, err)
	}
	return m, nil
}

// purchase reads what is to be bought. A bare number is msat; one below a satoshi
// is refused, because a user who writes 5 means something larger. Lightning
// invoices of gateways are in whole satoshis, so that anything else would be
// rounded.
func purchase(name, s string) (l402.Msat, error) {
	m, err := amountOrMsat(name, s)
	switch {
	case err != nil:
		return 0, err
	case m < l402.MsatPerSat:
		return 0, usagef("%s: %q is less than a satoshi: give a unit, as in 50 sat", name, clip(s))
	case m%l402.MsatPerSat != 0:
		return 0, usagef("%s: credit is sold in whole satoshis: want %s or %s, got %q", name, m/l402.MsatPerSat*l402.MsatPerSat, m.CeilSats(), clip(s))
	}
	return m, nil
}

// clip shortens what an error repeats.
func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
