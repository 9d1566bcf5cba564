package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/l402"
	"sluice.example/sluice/l402/client"
)

// These are the exit codes. Scripts and agents rely on them.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitBudget  = 3 // a cap of the buyer forbade the payment, and nothing was paid
	exitPayment = 4 // the invoice was refused, or the payment failed or is in doubt
)

// app is one run of the program.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string

	configPath string
	json       bool
	verbose    bool
}

// commands returns the subcommands.
func (a *app) commands() []cli.Command {
	return []cli.Command{
		{Name: "request", Args: "[flags] URL", Summary: "curl that pays", Least: 1, Most: 1, Setup: a.request},
		{Name: "chat", Args: "[flags] PROMPT", Summary: "ask a model, stream the answer", Least: 1, Most: 1, Setup: a.chat},
		{Name: "balance", Args: "[--url URL]", Summary: "what the stored token has left", Setup: a.balance},
		{Name: "quote", Args: "--model M [flags]", Summary: "the most a request may cost", Setup: a.quote},
		{Name: "topup", Args: "[--url URL] AMOUNT", Summary: "buy more credit for the stored token", More: topupHelp, Least: 1, Most: 1, Setup: a.topup},
		{Name: "tokens list", Summary: "stored tokens", Setup: a.tokensList},
		{Name: "tokens show", Args: "[--reveal] [ID]", Summary: "one stored token, its caveats and deposits", Most: 1, Setup: a.tokensShow},
		{Name: "tokens delegate", Args: "[flags] [ID]", Summary: "a copy that can do less, for another agent", More: delegateHelp, Most: 1, Setup: a.tokensDelegate},
		{Name: "tokens import", Args: "[--url URL] FILE|-", Summary: "store a delegated token", More: importHelp, Least: 1, Most: 1, Setup: a.tokensImport},
		{Name: "wallet balance", Summary: "money in the node's channels", Setup: a.walletBalance},
		{Name: "wallet pay", Args: "[flags] INVOICE", Summary: "pay an invoice, at most once", Least: 1, Most: 1, Setup: a.walletPay},
		{Name: "wallet invoice", Args: "[--memo TEXT] AMOUNT", Summary: "make an invoice; a number is msat", Least: 1, Most: 1, Setup: a.walletInvoice},
	}
}

// run runs the whole program and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env func(string) string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: env, configPath: env(envPrefix + "CONFIG")}
	p := cli.Program{Name: "agent-client", Commands: a.commands(), Overview: a.overview, Flags: a.flags, Stdout: stdout, Stderr: stderr}
	_, err := p.Run(ctx, args)
	if err != nil {
		a.report(err)
	}
	return exitCode(err)
}

func (a *app) overview(w io.Writer) {
	fmt.Fprintf(w, "agent-client buys calls from an L402 gateway.\n\n")
	for _, c := range a.commands() {
		fmt.Fprintf(w, "  agent-client %-44s %s\n", c.Name+" "+c.Args, c.Summary)
	}
	fmt.Fprintf(w, `
Every command takes --config FILE (default $%sCONFIG or ~/.agent-client/config.yaml),
--json and -v, before or after its name; -h explains its flags.
agent-client completion bash (or zsh, fish, powershell) prints a script for a shell.
Exit codes: 0 done, 1 failed, 2 usage, 3 budget refused, 4 payment failed.
With --json, a failure is {"error":{"code","message",…}} on standard output.
`, envPrefix)
}

// flags declares the flags that every command takes.
func (a *app) flags(fs *pflag.FlagSet) {
	fs.StringVar(&a.configPath, "config", a.configPath, "configuration `FILE`")
	fs.BoolVar(&a.json, "json", a.json, "print one JSON object")
	fs.BoolVarP(&a.verbose, "verbose", "v", a.verbose, "tell on standard error what is paid")
}

// usagef returns the error of a command line that is wrong.
func usagef(format string, args ...any) error { return cli.Usagef(format, args...) }

// answered wraps an error when the result is already on standard output, so that --json does not
// print a second object.
type answered struct{ error }

func (e *answered) Unwrap() error { return e.error }

func exitCode(err error) int { code, _ := classify(err); return code }

// classify returns the exit code of an error and the error's name in JSON.
func classify(err error) (int, string) {
	var (
		usage   *cli.UsageError
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

// report prints an error on standard error, for people. With --json it also prints the error on
// standard output, for programs.
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

// print writes one JSON object and a line end to standard output.
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

// buyer returns the SDK's client. It opens the store at once. It opens the wallet only when
// something must be paid.
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

// amountOrMsat reads an amount with a unit, or a plain number of msat.
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

// purchase reads the amount to buy. A number without a unit is msat. An amount below one satoshi is
// refused, because a user who writes 5 means more than 5 msat. An amount that is not in whole
// satoshis is refused too, because gateways make invoices in whole satoshis and the amount would be
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

// clip shortens a text that an error repeats.
func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
