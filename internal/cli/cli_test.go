package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"sluice.example/sluice/internal/cli"
)

// run runs a program with the commands "say" and "node start", and returns what the commands did.
func run(args ...string) (did, name, out string, err error) {
	var stdout, stderr bytes.Buffer
	loud := false
	say := func(fs *pflag.FlagSet) cli.Run {
		times := fs.IntP("times", "n", 1, "so `MANY` times")
		return func(_ context.Context, args []string) error {
			did = fmt.Sprint("say ", args, *times, loud)
			return nil
		}
	}
	fails := func(*pflag.FlagSet) cli.Run {
		return func(context.Context, []string) error { return errors.New("no power") }
	}
	raw := func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, args []string) error {
			did = fmt.Sprint("raw ", args)
			return nil
		}
	}
	p := cli.Program{
		Name: "test",
		Commands: []cli.Command{
			{Name: "say", Args: "[flags] WORD…", Summary: "says words", More: "\n    Loudly.", Least: 1, Most: 2, Setup: say},
			{Name: "node start", Summary: "starts a node", Setup: fails},
			{Name: "raw", Hidden: true, Raw: true, Setup: raw},
		},
		Overview: func(w io.Writer) { fmt.Fprintln(w, "all commands") },
		Flags:    func(fs *pflag.FlagSet) { fs.BoolVar(&loud, "loud", false, "louder") },
		Stdout:   &stdout, Stderr: &stderr,
	}
	name, err = p.Run(context.Background(), args)
	return did, name, stdout.String(), err
}

func TestCommands(t *testing.T) {
	for line, want := range map[string]string{
		"say a":                      "say [a] 1 false",
		"say a --times 3 b":          "say [a b] 3 false",
		"--loud say -n2 a":           "say [a] 2 true",
		"say a --loud -- --times":    "say [a --times] 1 true",
		"raw --anything -x y --help": "raw [--anything -x y --help]",
	} {
		if did, _, _, err := run(strings.Fields(line)...); did != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", line, did, err, want)
		}
	}
	if _, name, _, err := run("node", "start"); name != "node start" || err == nil || err.Error() != "no power" {
		t.Errorf("node start: %q, %v", name, err)
	}
}

func TestUsageErrors(t *testing.T) {
	for line, want := range map[string]string{
		"":               "want a command",
		"frobnicate x y": `unknown command "frobnicate x": run test -h`,
		"node":           `unknown command "node": run test -h`,
		"node stop":      `unknown command "node stop"`,
		"say":            "want: test say [flags] WORD…",
		"say a b c":      "want: test say",
		"say --quiet a":  "unknown flag: --quiet",
		"say -n x a":     `"-n, --times" flag`,
		"say -times=3 a": "write --times with two dashes",
		"-loud say a":    "write --loud with two dashes",
	} {
		did, name, _, err := run(strings.Fields(line)...)
		if wantName := map[string]string{"say --quiet a": "say", "say -n x a": "say"}[line]; name != wantName {
			t.Errorf("%q: the command is %q, want %q", line, name, wantName)
		}
		var wrong *cli.UsageError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) || did != "" {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

func TestHelpAndCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"-h":                   "all commands",
		"help":                 "all commands",
		"node -h":              "all commands",
		"say -h":               "test say [flags] WORD…\n    says words\n    Loudly.\n\n",
		"help say":             "  -n, --times MANY   so MANY times",
		"completion bash":      "bash completion",
		"__complete say --t":   "--times\tso",
		"__complete node s":    "start\tstarts a node",
		"__complete completi":  "completion",
		"__complete say --lou": "--loud\tlouder",
	} {
		if _, _, out, err := run(strings.Fields(line)...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, want %q in\n%s", line, err, want, out)
		}
	}
	if _, _, out, _ := run("__complete", ""); strings.Contains(out, "raw") {
		t.Errorf("a hidden command is completed:\n%s", out)
	}
}
