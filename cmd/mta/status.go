package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
)

// client makes a client for the server of the configuration that -config names.
func client(cmd *cobra.Command) (*admin.Client, error) {
	cfg, err := loadOffline(cmd)
	if err != nil {
		return nil, err
	}
	return admin.NewClient(cfg.Admin.Socket), nil
}

func statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the running server at a glance",
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
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			}
			showStatus(cmd.OutOrStdout(), s)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func showStatus(out io.Writer, s admin.Status) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	state := "ready"
	if s.Ready != "ok" {
		state = "NOT READY: " + strings.ReplaceAll(s.Ready, "\n", "; ")
	}
	fmt.Fprintf(w, "%s\t%s, up %s, pid %d, mta %s\n", s.Hostname, state, admin.Ago(time.Since(s.Started)), s.PID, s.Version)
	fmt.Fprintf(w, "config\t%s, read %s ago\n", s.Config, admin.Ago(time.Since(s.Loaded)))
	fmt.Fprintf(w, "queue\t%d waiting, %d being delivered, %d held; %s of disk free\n",
		s.Queue.Waiting, s.Queue.Active, s.Queue.Held, admin.Bytes(s.Queue.FreeDisk))
	if s.Queue.Refusing != "" {
		fmt.Fprintf(w, "\tNO MAIL IS TAKEN for %s (452): %s\n", admin.Ago(time.Since(s.Queue.RefusingSince)), s.Queue.Refusing)
	}
	if q := s.Queue; len(q.Problems) > 0 || q.Damaged > 0 || q.Missing > 0 {
		fmt.Fprintf(w, "\tDAMAGED: %s can't be read, %d missing (mta queue check)\n", plural(int(q.Damaged), "message"), q.Missing)
		for _, p := range q.Problems {
			fmt.Fprintf(w, "\t%s\n", p)
		}
	}
	for _, l := range s.Listeners {
		fmt.Fprintf(w, "listener\t%s\t%s\t%s\n", l.Name, strings.Join(l.Address, ", "), plural(l.Sessions, "session"))
	}
	for _, p := range s.Plugins {
		state := p.State
		if p.Breaker == "open" || p.Breaker == "half-open" {
			state += " (breaker " + p.Breaker + ")"
		}
		fmt.Fprintf(w, "plugin\t%s\t%s\t%s, %s, %s, %s\t%s\n", p.Name, strings.Join(p.Kinds, ", "), state,
			plural(int(p.Calls), "call"), plural(int(p.Errors), "error"), plural(p.Restarts, "restart"), firstLine(p.Problem))
	}
	for _, x := range s.Suspended {
		waiting := ""
		if x.Waiting >= 0 {
			waiting = fmt.Sprintf("%d waiting", x.Waiting)
		}
		fmt.Fprintf(w, "suspended\t%s\t%s\tfor %s: %s\n", x.What, waiting, admin.Ago(time.Since(x.Since)), cmp.Or(x.Reason, "by the operator"))
	}
	for _, d := range s.Sites {
		fmt.Fprintf(w, "to\t%s\t%d waiting, %d active\t%s\n", d.Name, d.Waiting, d.Active, siteState(d))
	}
}

// siteState says what is the matter with a destination; "" where nothing is.
func siteState(d admin.SiteStatus) string {
	switch {
	case d.Suspended != "":
		return "suspended: " + d.Suspended
	case !d.FailingSince.IsZero():
		state := "failing for " + admin.Ago(time.Since(d.FailingSince))
		if wait := time.Until(d.NextTry); wait > 0 {
			state += ", asked again in " + admin.Ago(wait)
		}
		return state + ": " + d.LastReply
	case d.SlowStart > 0:
		return fmt.Sprintf("back: slow start, %d at once", d.SlowStart)
	}
	return ""
}

func reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Make the running server read its configuration again",
		Long: "Make the running server read its configuration again. A configuration with a mistake changes nothing: the\n" +
			"mistakes are printed, and the server goes on with the one it has.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := client(cmd)
			if err != nil {
				return err
			}
			if err := c.Reload(cmd.Context()); err != nil {
				return fmt.Errorf("the server keeps its configuration:\n%w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "reloaded")
			return nil
		},
	}
}

func stopCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "Stop the running server in order",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := client(cmd)
			if err != nil {
				return err
			}
			if err := c.Stop(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "stopping")
			return nil
		},
	}
}
