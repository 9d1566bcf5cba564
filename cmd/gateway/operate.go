package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/catalog"
	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/internal/config"
)

// askTimeout bounds one question to the admin API: a reload may wait for the store.
const askTimeout = 30 * time.Second

// maxReport bounds an answer of the admin API, in bytes.
const maxReport = 16 << 20

// reload is `gateway reload`.
func reload(e env, set *pflag.FlagSet) cli.Run {
	find := adminOf(e, set)
	return func(ctx context.Context, _ []string) error {
		a, _, err := find()
		if err != nil {
			return err
		}
		report, err := a.ask(ctx, "/admin/reload", nil)
		if err != nil {
			return fmt.Errorf("the configuration before stays in force: %w", err)
		}
		if len(report.Changes) == 0 {
			fmt.Fprintf(e.stdout, "generation %d stays in force: nothing has changed\n", report.Generation)
		} else {
			fmt.Fprintf(e.stdout, "generation %d is in force\n", report.Generation)
		}
		describe(e.stdout, report)
		return nil
	}
}

// diffConfig is `gateway diff-config`.
func diffConfig(e env, set *pflag.FlagSet) cli.Run {
	find := adminOf(e, set)
	return func(ctx context.Context, _ []string) error {
		a, path, err := find()
		if err != nil {
			return err
		}
		file, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		report, err := a.ask(ctx, "/admin/config/diff", file)
		if err != nil {
			return fmt.Errorf("%s would be refused: %w", path, err)
		}
		if len(report.Changes) == 0 {
			fmt.Fprintf(e.stdout, "nothing would change of generation %d\n", report.Generation)
		}
		describe(e.stdout, report)
		if len(report.Fixed) > 0 {
			return &catalog.FixedError{Keys: report.Fixed}
		}
		return nil
	}
}

// describe prints a report.
func describe(w io.Writer, r catalog.Report) {
	for _, c := range r.Changes {
		fmt.Fprintln(w, c)
	}
	for _, warning := range r.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
	for _, line := range r.Above {
		fmt.Fprintln(w, "above the file:", line)
	}
}

// admin is where the running gateway has its operator's side.
type admin struct {
	address string // host:port
	token   string
}

// adminOf declares the flags of a subcommand that asks a running gateway. The function
// that it returns finds that gateway by its file.
func adminOf(e env, set *pflag.FlagSet) func() (a admin, path string, err error) {
	path := set.String("config", "", "configuration `FILE` (required)")
	address := set.String("admin", "", "where the gateway's operator listens; default: admin.listen of the file")
	return func() (admin, string, error) {
		a, err := findAdmin(e, *path, *address)
		return a, *path, err
	}
}

// findAdmin finds the running gateway's operator's side: at address, or where the
// file at path has it.
func findAdmin(e env, path, address string) (a admin, err error) {
	if path == "" {
		return a, errors.New("name the configuration file with --config FILE")
	}
	at, err := config.AdminAt(path, e.getenv)
	if err != nil && address == "" {
		return a, fmt.Errorf("%w; name the listener with --admin HOST:PORT and the token with %s", err, config.EnvAdminToken)
	}
	a = admin{address: cmp.Or(address, at.Listen), token: cmp.Or(at.Token.Reveal(), e.getenv(config.EnvAdminToken))}
	if a.token == "" {
		return a, fmt.Errorf("the admin API needs a token: set admin.token or %s and restart the gateway, or send it SIGHUP", config.EnvAdminToken)
	}
	host, port, err := net.SplitHostPort(a.address)
	if err != nil {
		return a, fmt.Errorf("the operator's listener: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		a.address = net.JoinHostPort("127.0.0.1", port)
	}
	return a, nil
}

// ask posts a question to the admin API. An error that the gateway answers with is
// returned in its words.
func (a admin) ask(ctx context.Context, path string, body []byte) (report catalog.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+a.address+path, bytes.NewReader(body))
	if err != nil {
		return report, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return report, fmt.Errorf("ask the running gateway: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxReport))
	if err != nil {
		return report, fmt.Errorf("ask the running gateway: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var problem struct{ Detail string }
		if json.Unmarshal(answer, &problem) == nil && problem.Detail != "" {
			return report, errors.New(problem.Detail)
		}
		return report, fmt.Errorf("ask the running gateway: it answered %s", resp.Status)
	}
	if err := json.Unmarshal(answer, &report); err != nil {
		return report, fmt.Errorf("ask the running gateway: %w", err)
	}
	return report, nil
}
