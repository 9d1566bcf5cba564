// Package cli has the parts that both binaries share: subcommands, their flags and help, and
// completion for shells.
//
//	p := cli.Program{Name: "gateway", Commands: commands, Overview: overview, Stdout: os.Stdout, Stderr: os.Stderr}
//	name, err := p.Run(ctx, os.Args[1:])     // the caller maps err to an exit code
//
// The package uses cobra. "PROGRAM completion bash" (or zsh, fish, powershell) prints a completion
// script for a shell.
package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Run executes a command. args are its arguments without the flags.
type Run func(ctx context.Context, args []string) error

// Command is one subcommand.
type Command struct {
	Name        string // one word, or two for a command within a group
	Args        string // for the help, such as "[flags] URL"
	Summary     string // one line
	More        string // further text for the help
	Hidden      bool
	Raw         bool // all arguments are passed on unchanged, flags included
	Least, Most int  // how many arguments without flags are allowed
	// Setup declares the flags of one invocation and returns the function that executes it.
	Setup func(*pflag.FlagSet) Run
}

// Program is one binary.
type Program struct {
	Name           string
	Commands       []Command
	Overview       func(io.Writer)      // prints all commands
	Flags          func(*pflag.FlagSet) // declares flags of every command, also before its name; nil: none
	Stdout, Stderr io.Writer
}

// UsageError reports a wrong command line.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the error of a flag or of an argument.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef returns a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Run executes the command that args name. It returns the command's name, which is "" when no
// command was found, and the command's error. A *UsageError means that the command did nothing. A
// request for help is not an error.
func (p Program) Run(ctx context.Context, args []string) (name string, err error) {
	root := p.group(p.Name)
	root.SetArgs(args)
	root.SetIn(strings.NewReader(""))
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	if p.Flags != nil {
		p.Flags(root.PersistentFlags())
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		name = strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), p.Name), " ")
		return &UsageError{err}
	})
	help := map[*cobra.Command]Command{}
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { p.help(c, help) })
	groups := map[string]*cobra.Command{}
	for _, c := range p.Commands {
		parent, last := root, c.Name
		if group, word, two := strings.Cut(c.Name, " "); two {
			last = word
			if groups[group] == nil {
				groups[group] = p.group(group)
				root.AddCommand(groups[group])
			}
			parent = groups[group]
		}
		command := p.command(last, c, &name)
		help[command] = c
		parent.AddCommand(command)
	}
	if err := oneDash(root, args); err != nil {
		return "", err
	}
	err = root.ExecuteContext(ctx) // sets name
	return name, err
}

// oneDash refuses a long flag with one dash. It would be read as the short flag of its first
// letter: -deposit-msat=5 as the body "eposit-msat=5".
func oneDash(root *cobra.Command, args []string) error {
	command, rest, err := root.Find(args)
	if err != nil || command.DisableFlagParsing {
		return nil
	}
	for _, arg := range rest {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		switch {
		case arg == "--":
			return nil
		case len(name) < 2 || name == arg || name[0] == '-':
		case command.Flags().Lookup(name) != nil || root.PersistentFlags().Lookup(name) != nil:
			return Usagef("write --%s with two dashes", name)
		}
	}
	return nil
}

// group returns the cobra command for the program itself, or for the first word of commands with
// two words. Without a further word it only prints the overview.
func (p Program) group(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, SilenceErrors: true, SilenceUsage: true, Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if c.HasParent() {
				args = append([]string{use}, args...)
			}
			if len(args) == 0 {
				p.Overview(p.Stderr)
				return Usagef("want a command")
			}
			return Usagef("unknown command %q: run %s -h", clip(strings.Join(args[:min(2, len(args))], " ")), p.Name)
		},
	}
}

// command returns the cobra command for one subcommand. When the subcommand runs, it writes its
// name to ran.
func (p Program) command(word string, c Command, ran *string) *cobra.Command {
	command := &cobra.Command{
		Use: word, Short: c.Summary, Hidden: c.Hidden, DisableFlagParsing: c.Raw, DisableFlagsInUseLine: true,
		SilenceErrors: true, SilenceUsage: true,
	}
	run := c.Setup(command.Flags())
	command.Args = func(_ *cobra.Command, args []string) error {
		if !c.Raw && (len(args) < c.Least || len(args) > c.Most) {
			return Usagef("want: %s", strings.TrimSpace(p.Name+" "+c.Name+" "+c.Args))
		}
		return nil
	}
	command.RunE = func(command *cobra.Command, args []string) error {
		*ran = c.Name
		return run(command.Context(), args)
	}
	return command
}

// help prints on standard output what a command does, and the command's flags.
func (p Program) help(command *cobra.Command, known map[*cobra.Command]Command) {
	c, ok := known[command]
	switch {
	case ok:
		fmt.Fprintf(p.Stdout, "%s\n    %s%s\n\n%s", strings.TrimSpace(p.Name+" "+c.Name+" "+c.Args), c.Summary, c.More, command.Flags().FlagUsages())
	case command.Long != "": // a command of cobra itself
		fmt.Fprintln(p.Stdout, command.Long)
	default:
		p.Overview(p.Stdout)
	}
}

// clip shortens a text that an error repeats.
func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
