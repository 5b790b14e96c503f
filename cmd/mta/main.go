// Command mta is Pabal MTA: a mail transfer agent whose policy lives in plugins.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
)

// Exit codes. 75 is EX_TEMPFAIL of sysexits.h: the server can't be reached, try again.
const (
	exitWrong       = 1
	exitUsage       = 2
	exitUnreachable = 75
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program; tests call it as main does.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(doubleDashes(args))
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.Is(err, errShown) {
		fmt.Fprintf(stderr, "mta: %v\n", err)
	}
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(stderr, "     %s\n", hint)
	}
	return exitCode(err)
}

// errShown is the error of a command that has told the user everything itself.
var errShown = errors.New("told already")

// usageError is a mistake in the command line.
type usageError struct{ error }

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, admin.ErrNotRunning), errors.As(err, new(unreachable)):
		return exitUnreachable
	default:
		return exitWrong
	}
}

func hintFor(err error) string {
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return "try: mta help"
	case errors.Is(err, admin.ErrNotRunning):
		return "start it: mta serve"
	default:
		return ""
	}
}

// doubleDashes lets -config mean --config: long flags may be written with one dash, as Go programs do.
func doubleDashes(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if a == "--" || i == 2 && out[0] == "plugin" && out[1] == "exec" { // what follows is another program's
			break
		}
		if len(a) > 2 && a[0] == '-' && a[1] != '-' && (a[1] < '0' || a[1] > '9') {
			out[i] = "-" + a
		}
	}
	return out
}

const rootHelp = `Pabal MTA: mail in, a queue that never loses it, mail out; the policy is in plugins.

  mta serve [-config mta.hcl]      run the server
  mta check [-offline]             prove mta.hcl: words, plugins, keys, ports
  mta fmt [-check] [FILE]          lay mta.hcl out
  mta config show|reference        what is in force, and from where | every block and key

  mta status                       the running server at a glance
  mta reload | stop                read mta.hcl again | stop in order

  mta queue list|show|shape                          what waits, by -from -to -domain -state -reply -older -id
  mta queue retry|hold|release|bounce|delete         change it
  mta queue suspend|resume WHAT                      keep mail for a domain or a route, or of a sender, new mail too
  mta queue check [-repair] | export|import DIR      prove it | keep it in files, move it
  mta explain ADDRESS [-from -ip -file]              what would become of a message, and why
  mta user add|password|list|remove                  accounts of the built-in plugin "users"
  mta plugin list|info|pin                           what runs, what a plugin is, and its SHA-256
  mta plugin new|check                               write a plugin | prove one, in any language
  mta mail list|read|save|reply|forward|compose      the mail program, for any IMAP and submission server
  mta send -to ADDRESS                               one test message, with the dialogue
  mta dns [DOMAIN]                                   the DNS records that our domains need

  mta version | completion SHELL
  mta help COMMAND                 more on one command

Lists take -json. Exit codes: 0; 1 something is wrong; 2 usage; 75 no server answers.
`

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "mta",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := fmt.Errorf("there is no command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				err = fmt.Errorf("%w; did you mean %q?", err, near[0])
			}
			return usageError{err}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	plain := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if cmd == root {
			fmt.Fprint(cmd.OutOrStdout(), rootHelp)
			return
		}
		plain(cmd, args)
	})
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().String("config", "mta.hcl", "the configuration: a file, or a directory of .hcl files")
	root.AddCommand(
		serveCommand(), checkCommand(), fmtCommand(), configCommand(),
		statusCommand(), reloadCommand(), stopCommand(),
		queueCommand(), explainCommand(), userCommand(), pluginCommand(), mailCommand(), sendCommand(), dnsCommand(),
		versionCommand(),
	)
	for _, c := range allCommands(root) {
		if c.HasSubCommands() && c != root && c.RunE == nil {
			wantsSubcommand(c)
		}
		if args := c.Args; args != nil && c != root {
			c.Args = func(cmd *cobra.Command, a []string) error {
				if err := args(cmd, a); err != nil {
					return usageError{fmt.Errorf("%s: %w", cmd.CommandPath(), err)}
				}
				return nil
			}
		}
	}
	return root
}

// wantsSubcommand makes a command that only groups others say so instead of doing nothing.
func wantsSubcommand(c *cobra.Command) {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{fmt.Errorf("%s what? One of: %s", cmd.CommandPath(), strings.Join(names, ", "))}
		}
		return usageError{fmt.Errorf("there is no %q in %s; it has: %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))}
	}
}

func allCommands(c *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		list = append(list, allCommands(sub)...)
	}
	return list
}
