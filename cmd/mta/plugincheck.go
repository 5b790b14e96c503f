package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/engine"
	"github.com/pabal-mta/mta/core/plugin"
)

func pluginCheck() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check FILE|NAME|builtin:NAME",
		Short: "Prove that a plugin, in any language, keeps the contract",
		Long: "Start a plugin as the server would, several times, and prove that it keeps the contract: at its start, in calls of\n" +
			"each of its kinds, with hostile input, and at its end. It really works: a store stores what it is given, so give it\n" +
			"a configuration for tests. With -config FILE.json its config block is that object; with any other -config it is the\n" +
			"block of the plugin in that configuration. Exit code 1 if a check fails.",
		Example: "  mta plugin check ./greylist\n  mta plugin check ./greylist -config mta.hcl\n  mta plugin check ./greylist -config test.json -json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := loader(cmd)
			if err != nil {
				return err
			}
			p, err := candidate(cmd, l, args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			seen := func(f plugin.Finding) { printFinding(out, f) }
			if asJSON {
				seen = nil
			}
			report, err := l.Conform(cmd.Context(), p, plugin.Options{Version: version()}, seen)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				err = enc.Encode(report)
			} else {
				printConformance(out, report)
			}
			if err == nil && report.Failed() > 0 {
				err = errShown
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// candidate is the plugin to be checked, with the configuration that was given for it.
func candidate(cmd *cobra.Command, l engine.Loader, name string) (*config.Plugin, error) {
	byName := !strings.HasPrefix(name, "builtin:") && !strings.ContainsRune(name, filepath.Separator)
	given := cmd.Flags().Changed("config")
	if !byName && !given {
		p, _, err := namedPlugin(cmd, name)
		return p, err
	}
	if filepath.Ext(l.Path) == ".json" {
		if byName {
			return nil, usageError{fmt.Errorf("a .json file holds no plugin %q; a file is named with a slash, such as ./%s", name, name)}
		}
		p, _, err := namedPlugin(cmd, name)
		if err != nil {
			return nil, err
		}
		p.Config, err = os.ReadFile(l.Path)
		return p, err
	}
	cfg, diags := l.LoadUnpinned(cmd.Context())
	if diags.HasErrors() {
		show(cmd.ErrOrStderr(), diags)
		return nil, errShown
	}
	if byName {
		if p := cfg.Plugin(name); p != nil {
			return p, nil
		}
		return nil, fmt.Errorf("%s has no plugin %q; a file is named with a slash, such as ./%s", l.Path, name, name)
	}
	return fromSource(cmd, cfg, l.Path, name)
}

// fromSource finds the block whose program is the one that was named.
func fromSource(cmd *cobra.Command, cfg *config.Config, path, name string) (*config.Plugin, error) {
	want, _, err := namedPlugin(cmd, name)
	if err != nil {
		return nil, err
	}
	for _, p := range cfg.Plugins {
		if p.Source == want.Source || sameFile(p.Source, want.Source) {
			p.SHA256 = want.SHA256 // a stale pin is for mta check to find
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s has no plugin with source = %q", path, want.Source)
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func printFinding(w io.Writer, f plugin.Finding) {
	fmt.Fprintf(w, "%-9s%-24s%s", f.Result, f.Name, f.Proves)
	if f.Detail != "" && f.Result != plugin.Failing {
		fmt.Fprintf(w, " (%s)", f.Detail)
	}
	fmt.Fprintln(w)
	if f.Result != plugin.Failing {
		return
	}
	fmt.Fprintf(w, "%33s%s\n", "but: ", strings.ReplaceAll(f.Detail, "\n", "\n"+strings.Repeat(" ", 33)))
	if f.Hint != "" {
		fmt.Fprintf(w, "%33s%s\n", "hint: ", f.Hint)
	}
}

func printConformance(w io.Writer, c *plugin.Conformance) {
	who := c.Program
	if c.Name != "" {
		who = fmt.Sprintf("%s %s (%s: %s)", c.Name, c.Version, c.SDK, strings.Join(c.Kinds, " "))
	}
	if n := c.Failed(); n > 0 {
		fmt.Fprintf(w, "\n%s fails %s of %d\n", who, plural(n, "check"), len(c.Checks))
		return
	}
	fmt.Fprintf(w, "\n%s passes all %d checks\n", who, len(c.Checks))
}
