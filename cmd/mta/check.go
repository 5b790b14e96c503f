package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
	"github.com/pabal-mta/mta/core/config"
)

func checkCommand() *cobra.Command {
	var offline bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Prove the configuration",
		Long: "Prove the configuration: its words and references, and, unless -offline, what needs the machine: each plugin is\n" +
			"started and shown its block, pins are compared, keys are read, and ports are tried if no server runs.\n" +
			"Every mistake is told at once. Exit code 1 if there is one.",
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "only what stands in the file; start nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if err := cmd.Flags().Set("config", args[0]); err != nil {
				return err
			}
		}
		l, err := loader(cmd)
		if err != nil {
			return err
		}
		cfg, diags := l.Load(cmd.Context(), offline)
		show(cmd.ErrOrStderr(), diags)
		if diags.HasErrors() {
			return errShown
		}
		if !offline {
			if err := checkPorts(cmd, cfg); err != nil {
				return err
			}
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is right: %s, %s, %s, %s\n", l.Path, plural(len(cfg.Listeners), "listener"),
			plural(len(cfg.Plugins), "plugin"), plural(len(cfg.Pipelines), "pipeline"), plural(len(cfg.Routes), "route"))
		return nil
	}
	return cmd
}

// checkPorts tries to listen where the server would, unless it is running and listens there itself.
func checkPorts(cmd *cobra.Command, cfg *config.Config) error {
	if _, err := admin.NewClient(cfg.Admin.Socket).Status(cmd.Context()); err == nil {
		return nil
	}
	var errs []error
	for _, l := range cfg.Listeners {
		for _, address := range l.Address {
			s, err := net.Listen("tcp", address)
			if err != nil {
				errs = append(errs, fmt.Errorf("listener %q: %w", l.Name, err))
				continue
			}
			s.Close()
		}
	}
	return errors.Join(errs...)
}

func fmtCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "fmt [FILE...]",
		Short: "Lay the configuration out",
		Long:  "Lay configuration files out; - reads standard input and writes standard output. A file with a mistake in its\nsyntax is left as it is.",
	}
	cmd.Flags().BoolVar(&check, "check", false, "change nothing; exit 1 and name the files that would change")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		files, err := configFiles(cmd, args)
		if err != nil {
			return err
		}
		wrong := false
		for _, name := range files {
			changed, err := formatFile(cmd, name, check)
			if errors.Is(err, errShown) {
				wrong = true
				continue
			}
			if err != nil {
				return err
			}
			if changed && name != "-" {
				fmt.Fprintln(cmd.OutOrStdout(), name)
				wrong = wrong || check
			}
		}
		if wrong {
			return errShown
		}
		return nil
	}
	return cmd
}

// configFiles are the files that were named, or those of the configuration.
func configFiles(cmd *cobra.Command, args []string) ([]string, error) {
	if len(args) > 0 {
		return args, nil
	}
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no %s; name a file, or give -config", path)
	case err != nil:
		return nil, err
	case fi.IsDir():
		return filepath.Glob(filepath.Join(path, "*.hcl"))
	}
	return []string{path}, nil
}

func formatFile(cmd *cobra.Command, name string, check bool) (changed bool, err error) {
	var src []byte
	if name == "-" {
		src, err = io.ReadAll(cmd.InOrStdin())
	} else {
		src, err = os.ReadFile(name)
	}
	if err != nil {
		return false, err
	}
	out, diags := config.Format(src)
	if diags.HasErrors() {
		for i := range diags {
			diags[i].File = name
		}
		show(cmd.ErrOrStderr(), diags)
		return false, errShown
	}
	changed = !bytes.Equal(src, out)
	switch {
	case name == "-":
		_, err = cmd.OutOrStdout().Write(out)
		return changed, err
	case !changed || check:
		return changed, nil
	}
	return true, replaceFile(name, out)
}

// replaceFile writes a file whole or not at all, and keeps its mode.
func replaceFile(name string, content []byte) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(fi.Mode().Perm()), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "What is in force, and what can be written"}
	var offline bool
	showCmd := &cobra.Command{
		Use:   "show",
		Short: "Print the configuration with every default, and where each value came from; secrets are not shown",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd, offline)
			if err != nil {
				return err
			}
			return cfg.Show(cmd.OutOrStdout())
		},
	}
	showCmd.Flags().BoolVar(&offline, "offline", false, "do not start the plugins to ask for their defaults")
	cmd.AddCommand(showCmd, &cobra.Command{
		Use:   "reference",
		Short: "Print every block and key of mta.hcl",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return config.Reference(cmd.OutOrStdout()) },
	})
	return cmd
}

// firstLine is what stands before the first line break.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
