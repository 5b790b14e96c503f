package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/sdk/python"
	"github.com/pabal-mta/mta/sdk/scaffold"
)

func pluginNew() *cobra.Command {
	p := scaffold.Plan{Extra: python.Files}
	cmd := &cobra.Command{
		Use:     "new NAME",
		Short:   "Write a plugin that builds, is tested and runs",
		Long:    "Write a plugin that builds, is tested and runs, with the configuration of a server to try it in.\nKinds: " + strings.Join(scaffold.Kinds(), ", ") + ".",
		Example: "  mta plugin new greylist -kinds rcpt\n  mta plugin new archive -kinds store,directory -dir ~/src/archive",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&p.Lang, "lang", "go", "go or python")
	cmd.Flags().StringSliceVar(&p.Kinds, "kinds", []string{"message"}, "what it does, parted by commas")
	cmd.Flags().StringVar(&p.Dir, "dir", "", "where it is written (default: NAME)")
	cmd.Flags().StringVar(&p.SDK, "sdk", "", "a clone of github.com/pabal-mta/mta to build with, in place of its release")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p.Name = args[0]
		if p.Dir == "" {
			p.Dir = p.Name
		}
		if err := chooseSDK(&p); err != nil {
			return err
		}
		files, err := p.Write()
		if err != nil {
			return err
		}
		for _, name := range files {
			fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(p.Dir, name))
		}
		if p.SDK != "" {
			fmt.Fprintf(cmd.OutOrStdout(), "\nIt is built with the SDK in %s (go.mod says so)\n", p.SDK)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "\nThe next steps are in %s\n", filepath.Join(p.Dir, "README.md"))
		return nil
	}
	return cmd
}

var isRelease = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)[.0-9]*)?$`).MatchString

// chooseSDK finds what a plugin in Go is built with: the clone that was named, the release that this program is, the clone
// that we stand in, or the one that this program was built from.
func chooseSDK(p *scaffold.Plan) (err error) {
	if p.Lang != "go" {
		return nil
	}
	if p.SDK != "" {
		p.SDK, err = filepath.Abs(p.SDK)
		return err
	}
	if p.Version = version(); isRelease(p.Version) {
		return nil
	}
	if p.SDK = cloneAbove(); p.SDK == "" {
		p.SDK = builtFrom()
	}
	if p.SDK == "" {
		return errors.New("this mta was built from a clone, so there is no release of the SDK that fits it: " +
			"name the clone with -sdk PATH")
	}
	return nil
}

// builtFrom returns the clone that this program was built from, if it is still there, or "".
func builtFrom() string {
	_, file, _, ok := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(file), "../..")
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if !ok || !filepath.IsAbs(file) || err != nil || !scaffold.IsClone(data) {
		return ""
	}
	return dir
}

// cloneAbove returns the clone of our module that the working directory is in, or "".
func cloneAbove() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		if data, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && scaffold.IsClone(data) {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
}
