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
	"strings"
	"time"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/catalog"
	"sluice.example/sluice/internal/cli"
	"sluice.example/sluice/internal/config"
)

// askTimeout bounds one request to the admin API. It is long because a reload may wait for the
// store.
const askTimeout = 30 * time.Second

// maxReport is how many bytes of an answer of the admin API are read.
const maxReport = 16 << 20

// reload implements `gateway reload`.
func reload(e env, set *pflag.FlagSet) cli.Run {
	find := adminOf(e, set)
	asJSON := set.Bool("json", false, "print one JSON object")
	return func(ctx context.Context, _ []string) error {
		a, _, err := find()
		if err != nil {
			return err
		}
		report, err := a.ask(ctx, http.MethodPost, "/admin/reload", nil)
		if *asJSON {
			err = errors.Join(err, a.tellReload(ctx, e.stdout, report, err))
		}
		if err != nil {
			return fmt.Errorf("the configuration before stays in force: %w", err)
		}
		switch {
		case *asJSON:
			return nil
		case len(report.Changes) == 0:
			fmt.Fprintf(e.stdout, "generation %d stays in force: nothing has changed\n", report.Generation)
		default:
			fmt.Fprintf(e.stdout, "generation %d is in force\n", report.Generation)
		}
		describe(e.stdout, report)
		return nil
	}
}

// reloaded is the JSON that `gateway reload --json` prints.
type reloaded struct {
	Generation int64           `json:"generation"` // the generation in force; 0: the gateway does not say
	Changed    []config.Change `json:"changed"`
	Refused    []string        `json:"refused"` // why the file is refused, each reason with its line or key
}

// tellReload prints the result of a reload as JSON. refused is the reload's error, nil for success.
func (a admin) tellReload(ctx context.Context, w io.Writer, r catalog.Report, refused error) error {
	told := reloaded{Generation: r.Generation, Changed: r.Changes, Refused: []string{}}
	if told.Changed == nil {
		told.Changed = []config.Change{}
	}
	if refused != nil {
		told.Refused = strings.Split(refused.Error(), "\n")
		if now, err := a.ask(ctx, http.MethodGet, "/admin/config", nil); err == nil {
			told.Generation = now.Generation
		}
	}
	return json.NewEncoder(w).Encode(told)
}

// diffConfig implements `gateway diff-config`.
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
		report, err := a.ask(ctx, http.MethodPost, "/admin/config/diff", file)
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

// admin is the address and the token of a running gateway's admin API.
type admin struct {
	address string // host:port
	token   string
}

// adminOf declares the flags of a subcommand that asks a running gateway. The function that it
// returns reads the flags and finds the gateway's admin API. It also returns the path of the
// configuration file.
func adminOf(e env, set *pflag.FlagSet) func() (a admin, path string, err error) {
	path := set.String("config", "", "configuration `FILE` (required)")
	address := set.String("admin", "", "where the gateway's operator listens; default: admin.listen of the file")
	return func() (admin, string, error) {
		a, err := findAdmin(e, *path, *address)
		return a, *path, err
	}
}

// findAdmin finds the admin API of the running gateway. The API is at address. When address is "",
// it is at the address in the file at path.
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

// ask sends a request to the admin API and reads the report in the answer. When the gateway answers
// with an error, ask returns the gateway's own words.
func (a admin) ask(ctx context.Context, method, path string, body []byte) (report catalog.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+a.address+path, bytes.NewReader(body))
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
