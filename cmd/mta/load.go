package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/engine"
	"github.com/pabal-mta/mta/plugins/bounces"
	"github.com/pabal-mta/mta/plugins/maildir"
	"github.com/pabal-mta/mta/plugins/mime"
	"github.com/pabal-mta/mta/plugins/users"
	"github.com/pabal-mta/mta/sdk"
)

// builtins are the plugins that this program can run. Each runs in a process of its own, as a stranger's does.
func builtins() map[string]func() sdk.Served {
	return map[string]func() sdk.Served{
		"bounces": bounces.Plugin,
		"maildir": maildir.Plugin,
		"mime":    mime.Plugin,
		"users":   users.Plugin,
	}
}

// loader reads the configuration that -config names.
func loader(cmd *cobra.Command) (engine.Loader, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return engine.Loader{}, err
	}
	command, err := builtinCommand()
	return engine.Loader{Path: path, Command: command, Builtins: slices.Sorted(maps.Keys(builtins()))}, err
}

// builtinCommand is how this program runs a built-in plugin: itself.
func builtinCommand() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding our own program: %w", err)
	}
	return []string{self, "plugin", "serve"}, nil
}

// loadOffline reads the words of the configuration, for a command that only has to find the server.
func loadOffline(cmd *cobra.Command) (*config.Config, error) {
	l, err := loader(cmd)
	if err != nil {
		return nil, err
	}
	return shown(cmd)(l.LoadWords(cmd.Context()))
}

// load reads the configuration and shows what is wrong with it.
func load(cmd *cobra.Command, offline bool) (*config.Config, error) {
	l, err := loader(cmd)
	if err != nil {
		return nil, err
	}
	return shown(cmd)(l.Load(cmd.Context(), offline))
}

// shown shows what is wrong with a configuration that was read.
func shown(cmd *cobra.Command) func(*config.Config, config.Diagnostics) (*config.Config, error) {
	return func(cfg *config.Config, diags config.Diagnostics) (*config.Config, error) {
		if diags.HasErrors() {
			show(cmd.ErrOrStderr(), diags)
			return nil, errShown
		}
		return cfg, nil
	}
}

func show(w io.Writer, diags config.Diagnostics) {
	_ = diags.Print(w, colored(w)) // there is nobody else to tell
}

// colored reports whether w is a terminal that wants colour.
func colored(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd()))
}

// errNoUsers says that nothing in the configuration keeps accounts that we could change.
var errNoUsers = errors.New("the configuration has no plugin with source = \"builtin:users\"; give -file")

// usersPath returns the accounts file of the first plugin "builtin:users".
func usersPath(cfg *config.Config) (string, error) {
	for _, p := range cfg.Plugins {
		if p.Builtin() != "users" {
			continue
		}
		var c struct{ File string }
		if err := json.Unmarshal(p.Config, &c); err != nil {
			return "", err
		}
		return c.File, nil
	}
	return "", errNoUsers
}
