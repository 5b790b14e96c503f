package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/cmd/mta/useragent"
	"github.com/pabal-mta/mta/core/admin"
)

func (m *mailFlags) listCommand() *cobra.Command {
	var q useragent.Query
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List a folder, the newest last",
		Example: "  mta mail list -unread\n  mta mail list -folder Sent -search 안녕 -json",
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	f.BoolVar(&q.Unread, "unread", false, "only what was not read")
	f.StringVar(&q.Text, "search", "", "only messages with this text")
	f.IntVar(&limit, "limit", 100, "only the newest so many; 0 is all")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return m.withMailbox(cmd, m.folder, true, func(_ *useragent.Account, box *useragent.Mailbox) error {
			found, err := box.Find(q)
			if err != nil {
				return err
			}
			older := 0
			if limit > 0 && len(found) > limit {
				older = len(found) - limit
				found = found[older:]
			}
			if asJSON {
				return box.Entries(found, func(e useragent.Entry) error { return printJSON(cmd.OutOrStdout(), e) })
			}
			return m.printEntries(cmd, box, found, older, q)
		})
	}
	return cmd
}

func (m *mailFlags) printEntries(cmd *cobra.Command, box *useragent.Mailbox, found []imap.UID, older int, q useragent.Query) error {
	out := cmd.OutOrStdout()
	if len(found) == 0 {
		if q != (useragent.Query{}) {
			fmt.Fprintln(out, "No message is like that.")
		} else {
			fmt.Fprintf(out, "%s is empty.\n", useragent.SafeLine(m.folder))
		}
		return nil
	}
	if older > 0 {
		fmt.Fprintf(out, "(%s before these; -limit 0 shows all)\n", plural(older, "message"))
	}
	return box.Entries(found, func(e useragent.Entry) error { printEntry(out, e); return nil })
}

// printEntry shows N, marks, date, sender, subject, size and attachments.
func printEntry(out io.Writer, e useragent.Entry) {
	size := admin.Bytes(e.Size)
	switch e.Attachments {
	case 0:
	case 1:
		size += "  +1 attachment"
	default:
		size += fmt.Sprintf("  +%d attachments", e.Attachments)
	}
	fmt.Fprintf(out, "%5d %s %s  %s  %s  %s\n", e.N, marks(e), day(e.Date), useragent.Column(cmp.Or(e.From, e.Address, "-"), 20),
		useragent.Column(cmp.Or(e.Subject, "(no subject)"), 44), size)
}

// marks shows new mail as N, then answered, forwarded and flagged.
func marks(e useragent.Entry) string {
	text := []byte("    ")
	if !e.Has(imap.FlagSeen) {
		text[0] = 'N'
	}
	if e.Has(imap.FlagAnswered) {
		text[1] = 'r'
	}
	if e.Has(imap.FlagForwarded) {
		text[2] = 'f'
	}
	if e.Has(imap.FlagFlagged) {
		text[3] = '!'
	}
	if e.Has(imap.FlagDeleted) {
		text[3] = 'D'
	}
	return string(text)
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-         "
	}
	return t.Local().Format("2006-01-02")
}

func (m *mailFlags) foldersCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "folders", Short: "List the folders", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return m.withMailbox(cmd, "", true, func(_ *useragent.Account, box *useragent.Mailbox) error {
			folders, err := box.Folders(true)
			if err != nil {
				return err
			}
			for _, f := range folders {
				if asJSON {
					err = printJSON(cmd.OutOrStdout(), f)
				} else if f.Holds {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s  %6d  %6d new  %s\n", useragent.Column(f.Name, 30), f.Messages, f.Unread, f.Use)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

func (m *mailFlags) watchCommand() *cobra.Command {
	var asJSON bool
	var count int
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show new mail as it comes, until interrupted",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().IntVar(&count, "count", 0, "end after so many messages")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		err := m.withMailbox(cmd, m.folder, true, func(_ *useragent.Account, box *useragent.Mailbox) error {
			fmt.Fprintf(cmd.ErrOrStderr(), "watching %s\n", useragent.SafeLine(m.folder))
			return watch(cmd, box, count, func(e useragent.Entry) error {
				if asJSON {
					return printJSON(cmd.OutOrStdout(), e)
				}
				printEntry(cmd.OutOrStdout(), e)
				return nil
			})
		})
		if cmd.Context().Err() != nil {
			err = nil // an interrupt is how it ends
		}
		return err
	}
	return cmd
}

// watch shows what is new until count messages were shown.
func watch(cmd *cobra.Command, box *useragent.Mailbox, count int, show func(useragent.Entry) error) error {
	seen := box.Last()
	for shown := 0; count == 0 || shown < count; {
		found, err := box.Find(useragent.Query{After: seen})
		if err != nil {
			return err
		}
		if err := box.Entries(found, show); err != nil {
			return err
		}
		if n := len(found); n > 0 {
			seen = found[n-1]
			shown += n
			continue
		}
		if err := box.Watch(cmd.Context()); err != nil {
			return err
		}
	}
	return nil
}
