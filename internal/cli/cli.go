// Package cli is the frame of both binaries: subcommands, their flags and help,
// and completion for shells.
//
//	p := cli.Program{Name: "gateway", Commands: commands, Overview: overview, Stdout: os.Stdout, Stderr: os.Stderr}
//	name, err := p.Run(ctx, os.Args[1:])     // the caller maps err to an exit code
//
// cobra does the work. "PROGRAM completion bash" (or zsh, fish, powershell) prints
// a script for a shell.
package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Run carries a command out. args are those besides flags.
type Run func(ctx context.Context, args []string) error

// Command is one subcommand.
type Command struct {
	Name        string // one word, or two for a command within a group
	Args        string // for the help, as "[flags] URL"
	Summary     string // one line
	More        string // the rest of the help
	Hidden      bool
	Raw         bool // its arguments are passed on as they are, flags included
	Least, Most int  // arguments besides flags
	// Setup declares the flags of one invocation and returns what it does.
	Setup func(*pflag.FlagSet) Run
}

// Program is one binary.
type Program struct {
	Name           string
	Commands       []Command
	Overview       func(io.Writer)      // prints all commands
	Flags          func(*pflag.FlagSet) // of every command, before or after the command's name; nil: none
	Stdout, Stderr io.Writer
}

// UsageError is a command line that cannot be meant.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the error of a flag or of an argument.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Run carries out the command that args name. It returns the command's name, empty
// where no command was found, and the command's error. A *UsageError says that
// nothing was done. Help that was asked for is no error.
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
	return name, root.ExecuteContext(ctx)
}

// group is the program itself, or the first word of commands with two. It does
// nothing alone.
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

// command is one subcommand; it notes its name in ran when it runs.
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

// help prints what a command does and its flags. Help is for standard output.
func (p Program) help(command *cobra.Command, known map[*cobra.Command]Command) {
	c, ok := known[command]
	switch {
	case ok:
		fmt.Fprintf(p.Stdout, "%s\n    %s%s\n\n%s", strings.TrimSpace(p.Name+" "+c.Name+" "+c.Args), c.Summary, c.More, command.Flags().FlagUsages())
	case command.Long != "": // cobra's own
		fmt.Fprintln(p.Stdout, command.Long)
	default:
		p.Overview(p.Stdout)
	}
}

// clip shortens what an error repeats.
func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
