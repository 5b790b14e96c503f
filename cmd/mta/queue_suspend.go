package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/admin"
)

const destinationHelp = "A DESTINATION is a domain, *.domain for every domain below it, a route of the configuration, or * for everything."

func someDestination(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError{errors.New("which destination? Give a domain, *.domain, a route, or * for everything")}
	}
	return nil
}

func queueSuspend() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "suspend DESTINATION...",
		Short: "Keep mail for a destination without trying it, new mail too",
		Long: "Keep mail for a destination without trying it, what is queued and what comes, also across restarts, until it is\n" +
			"resumed. Mail is taken as ever; senders are told when it is late, and when its time is over.\n\n" + destinationHelp,
		Example: "  mta queue suspend example.com -reason \"they move until Monday\"\n  mta queue suspend '*.example.com' smarthost",
		Args:    someDestination,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := client(cmd)
			if err != nil {
				return err
			}
			for _, name := range args {
				x, err := c.Suspend(cmd.Context(), name, reason)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "suspended: %s; %s\n", x.Destination, waitForIt(x))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return cmd
}

func queueResume() *cobra.Command {
	return &cobra.Command{
		Use:     "resume DESTINATION...",
		Short:   "End the suspension of a destination, and try its mail at once",
		Long:    "End the suspension of a destination, named as it was suspended (mta status), and try its mail at once.",
		Example: "  mta queue resume example.com",
		Args:    someDestination,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := client(cmd)
			if err != nil {
				return err
			}
			for _, name := range args {
				x, err := c.Resume(cmd.Context(), name)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "resumed: %s; %s\n", x.Destination, waitForIt(x))
			}
			return nil
		},
	}
}

func waitForIt(x admin.Suspension) string {
	if x.Waiting == 1 {
		return "1 message waits for it"
	}
	return plural(x.Waiting, "message") + " wait for it"
}
