package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/core/plugin"
	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/schema"
)

func pluginCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "plugin", Short: "What runs, what a plugin is, its SHA-256, a new one, and proof"}
	cmd.AddCommand(pluginList(), pluginInfo(), pluginPin(), pluginNew(), pluginCheck(), pluginServe(), pluginExec())
	return cmd
}

func pluginList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the plugins of the running server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := client(cmd)
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return printPlugins(cmd, s.Plugins, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

func printPlugins(cmd *cobra.Command, list []admin.PluginStatus, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(cmd.OutOrStdout())
		for _, p := range list {
			if err := enc.Encode(p); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSOURCE\tVERSION\tKINDS\tSTATE\tPID\tCALLS\tERRORS\tRESTARTS\tLAST PROBLEM")
	for _, p := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", p.Name, p.Source, p.Version, strings.Join(p.Kinds, " "),
			p.State, p.PID, p.Calls, p.Errors, p.Restarts, firstLine(p.Problem))
	}
	return w.Flush()
}

func pluginInfo() *cobra.Command {
	return &cobra.Command{
		Use:   "info NAME|FILE|builtin:NAME",
		Short: "Tell what a plugin is, what may stand in its config block, and how it is run",
		Long: "Tell what a plugin is, and what may stand in its config block. Of a plugin of mta.hcl it also tells where it is\n" +
			"used and, when the server runs, its processes, and what the kernel holds them to.",
		Example: "  mta plugin info builtin:maildir\n  mta plugin info ./greylist\n  mta plugin info mailboxes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := loader(cmd)
			if err != nil {
				return err
			}
			p, cfg, err := namedPlugin(cmd, args[0])
			if err != nil {
				return err
			}
			d, err := l.Describe(cmd.Context(), p)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			printDescription(w, p, d)
			if cfg != nil {
				printUses(w, cfg, p)
				printRunning(cmd, w, cfg, p)
			}
			return w.Flush()
		},
	}
}

// printUses tells at which stages a plugin is asked, and how.
func printUses(w io.Writer, cfg *config.Config, p *config.Plugin) {
	for _, pipe := range cfg.Pipelines {
		for _, s := range cfg.Steps(pipe.Name) {
			if s.Plugin != p.Name {
				continue
			}
			may := "everything"
			if s.Allow != nil {
				may = strings.Join(s.Allow, ", ")
			}
			fmt.Fprintf(w, "asked at\tpipeline %s, %s: within %s; on error %s, late %s, overloaded %s; it may edit: %s\n",
				pipe.Name, s.Stage, s.Timeout, s.OnError, s.OnTimeout, s.OnOverload, may)
		}
	}
	fmt.Fprintf(w, "pool\t%s of at most %s at a time each\n", plural(p.Processes, "process"), plural(p.MaxConcurrent, "call"))
}

// printRunning tells of the plugin in the running server; without one there is nothing to tell.
func printRunning(cmd *cobra.Command, w io.Writer, cfg *config.Config, p *config.Plugin) {
	status, err := admin.NewClient(cfg.Admin.Socket).Status(cmd.Context())
	if err != nil {
		fmt.Fprintln(w, "running\tno: no server answers")
		return
	}
	i := slices.IndexFunc(status.Plugins, func(s admin.PluginStatus) bool { return s.Name == p.Name })
	if i < 0 {
		fmt.Fprintln(w, "running\tno: the server has not read this block yet (mta reload)")
		return
	}
	s := status.Plugins[i]
	pids := strings.Trim(fmt.Sprint(s.PIDs), "[]")
	fmt.Fprintf(w, "running\t%s for %s, pid %s, %s\n", s.State, admin.Ago(time.Since(s.Since)), pids, plural(s.Restarts, "restart"))
	fmt.Fprintf(w, "breaker\t%s\n", s.Breaker)
	fmt.Fprintf(w, "calls\t%d, %s, %d refused for want of room; now %d under way, %d waiting\n",
		s.Calls, plural(int(s.Errors), "error"), s.Refused, s.Waiting, s.Queued)
	for _, line := range s.InForce {
		fmt.Fprintf(w, "in force\t%s\n", line)
	}
	if s.Problem != "" {
		fmt.Fprintf(w, "last problem\t%s\n", firstLine(s.Problem))
	}
}

// namedPlugin finds a plugin by its block in the configuration, by the name of a built-in, or by its file.
// Only a plugin of the configuration comes with one.
func namedPlugin(cmd *cobra.Command, name string) (*config.Plugin, *config.Config, error) {
	if strings.HasPrefix(name, "builtin:") {
		return &config.Plugin{Name: strings.TrimPrefix(name, "builtin:"), Source: name}, nil, nil
	}
	if strings.ContainsRune(name, filepath.Separator) {
		path, err := filepath.Abs(name)
		if err != nil {
			return nil, nil, err
		}
		sum, err := plugin.Sum(path)
		return &config.Plugin{Name: filepath.Base(name), Source: path, SHA256: sum}, nil, err
	}
	cfg, err := loadOffline(cmd)
	if err != nil {
		return nil, nil, err
	}
	if p := cfg.Plugin(name); p != nil {
		return p, cfg, nil
	}
	return nil, nil, fmt.Errorf("the configuration has no plugin %q; a file is named with a slash, such as ./%s", name, name)
}

func printDescription(w *tabwriter.Writer, p *config.Plugin, d *plugin.Description) {
	fmt.Fprintf(w, "%s %s\t%s\n", d.Name, d.Version, d.Doc)
	fmt.Fprintf(w, "source\t%s\n", p.Source)
	if p.SHA256 != "" {
		fmt.Fprintf(w, "sha256\t%s\n", p.SHA256)
	}
	fmt.Fprintf(w, "kinds\t%s\n", strings.Join(d.Kinds, ", "))
	if d.Needs != nil {
		fmt.Fprintf(w, "is given\t%s\n", strings.Join(d.Needs, ", "))
	}
	if d.Schema != nil {
		fmt.Fprintln(w, "config\t")
		printSchema(w, *d.Schema, "  ")
	}
}

func printSchema(w *tabwriter.Writer, s schema.Schema, indent string) {
	for _, a := range s.Attributes {
		need := "optional"
		switch {
		case a.Required:
			need = "required"
		case a.Default != "":
			need = "default " + a.Default
		}
		fmt.Fprintf(w, "%s%s\t%s, %s\t%s\n", indent, a.Name, a.Type, need, a.Doc)
	}
	for _, b := range s.Blocks {
		fmt.Fprintf(w, "%s%s {}\t%s\n", indent, b.Name, b.Doc)
		printSchema(w, b.Schema, indent+"  ")
	}
}

func pluginPin() *cobra.Command {
	return &cobra.Command{
		Use:   "pin NAME",
		Short: "Write the SHA-256 of a plugin's program into the configuration",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := configFiles(cmd, nil)
			if err != nil {
				return err
			}
			l, err := loader(cmd)
			if err != nil {
				return err
			}
			cfg, diags := config.Load(cmd.Context(), l.Path, config.Options{Offline: true, Unpinned: true, Builtins: l.Builtins})
			if diags.HasErrors() {
				show(cmd.ErrOrStderr(), diags)
				return errShown
			}
			p := cfg.Plugin(args[0])
			switch {
			case p == nil:
				return fmt.Errorf("the configuration has no plugin %q", args[0])
			case p.Builtin() != "":
				return fmt.Errorf("plugin %q is built in: it is this program itself and needs no pin", args[0])
			}
			sum, err := plugin.Sum(p.Source)
			if err != nil {
				return err
			}
			return pinIn(cmd, files, p, sum)
		},
	}
}

// pinIn writes the sum into the file that holds the plugin's block.
func pinIn(cmd *cobra.Command, files []string, p *config.Plugin, sum string) error {
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		out, err := config.Pin(src, p.Name, sum)
		if err != nil {
			continue // the block is in another file
		}
		if err := replaceFile(name, out); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: plugin %q is pinned to %s\n", name, p.Name, sum)
		return nil
	}
	return fmt.Errorf("no file of the configuration holds plugin %q", p.Name)
}

// pluginServe is what the core starts for a built-in plugin.
func pluginServe() *cobra.Command {
	return &cobra.Command{
		Use:    "serve NAME",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			make, ok := builtins()[args[0]]
			if !ok {
				return fmt.Errorf("there is no built-in plugin %q", args[0])
			}
			if err := plugin.Confine(); err != nil {
				return err
			}
			sdk.ServeAny(make())
			return nil
		},
	}
}

// pluginExec is what the core starts for a program of its own: it keeps to what mta.hcl allows, and becomes the program.
func pluginExec() *cobra.Command {
	return &cobra.Command{
		Use:                "exec PATH NAME [ARG...]",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return plugin.Exec(args) },
	}
}
