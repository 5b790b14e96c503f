package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
)

const suspendable = "WHAT is a destination: a domain, *.domain for every domain below it, a route of the configuration, or * for everything.\n" +
	"Or it is a sender, who has an @: an address, @domain, a pattern such as news-*@example.com; <> is reports."

func somethingSuspendable(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError{errors.New("what? Give a domain, *.domain, a route, * for everything, or a sender")}
	}
	return nil
}

func queueSuspend() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "suspend WHAT...",
		Short: "Keep mail for a destination or of a sender without trying it, new mail too",
		Long: "Keep mail for a destination or of a sender without trying it, what is queued and what comes, also across restarts,\n" +
			"until it is resumed. Mail is taken as ever; senders are told when it is late, and when its time is over.\n\n" + suspendable,
		Example: "  mta queue suspend example.com -reason \"they move until Monday\"\n  mta queue suspend '*.example.com' smarthost\n" +
			"  mta queue suspend bob@example.org -reason \"his password is known\"",
		Args: somethingSuspendable,
		RunE: func(cmd *cobra.Command, args []string) error {
			return forEach(cmd, args, "suspended", func(c *admin.Client, what string) (admin.Suspension, error) {
				return c.Suspend(cmd.Context(), what, reason)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func queueResume() *cobra.Command {
	return &cobra.Command{
		Use:     "resume WHAT...",
		Short:   "End the suspension of a destination or a sender, and try the mail at once",
		Long:    "End the suspension of a destination or a sender, named as it was suspended (mta status), and try the mail at once.",
		Example: "  mta queue resume example.com",
		Args:    somethingSuspendable,
		RunE: func(cmd *cobra.Command, args []string) error {
			return forEach(cmd, args, "resumed", func(c *admin.Client, what string) (admin.Suspension, error) {
				return c.Resume(cmd.Context(), what)
			})
		},
	}
}

// forEach does the same with all that is named, and says so.
func forEach(cmd *cobra.Command, names []string, done string, do func(*admin.Client, string) (admin.Suspension, error)) error {
	c, err := client(cmd)
	if err != nil {
		return err
	}
	for _, name := range names {
		x, err := do(c, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s%s\n", done, x.What, waitForIt(x))
	}
	return nil
}

// waitForIt says how much waits for a destination.
func waitForIt(x admin.Suspension) string {
	switch {
	case x.Waiting < 0:
		return ""
	case x.Waiting == 1:
		return "; 1 message waits for it"
	}
	return "; " + plural(x.Waiting, "message") + " wait for it"
}
