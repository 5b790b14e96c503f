package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/cmd/mta/useragent"
)

func (m *mailFlags) flagCommand() *cobra.Command {
	var set, take []string
	cmd := &cobra.Command{
		Use:     "flag N...",
		Short:   "Set and take flags of messages",
		Long:    "Set and take flags of messages: seen, answered, flagged, deleted, draft, forwarded, junk, or a word of your own.",
		Example: "  mta mail flag 7 -set flagged -clear seen",
		Args:    cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringSliceVar(&set, "set", nil, "flags to set")
	cmd.Flags().StringSliceVar(&take, "clear", nil, "flags to take")
	m.change(cmd, "flag", func(box *useragent.Mailbox, list []imap.UID) (string, error) {
		add, err := flagsOf(set)
		if err != nil {
			return "", err
		}
		remove, err := flagsOf(take)
		if err != nil {
			return "", err
		}
		if len(add)+len(remove) == 0 {
			return "", usageError{errors.New("which flags? Give -set or -clear")}
		}
		return "flagged", box.Mark(list, add, remove)
	})
	return cmd
}

// flagsOf turns words into flags; a flag of one's own is an atom (RFC 9051, 2.3.2).
func flagsOf(words []string) ([]imap.Flag, error) {
	known := map[string]imap.Flag{
		"seen": imap.FlagSeen, "read": imap.FlagSeen, "answered": imap.FlagAnswered, "flagged": imap.FlagFlagged,
		"deleted": imap.FlagDeleted, "draft": imap.FlagDraft, "forwarded": imap.FlagForwarded, "junk": imap.FlagJunk,
	}
	var flags []imap.Flag
	for _, w := range words {
		flag, ok := known[strings.ToLower(strings.TrimPrefix(w, `\`))]
		if !ok {
			if w == "" || strings.ContainsFunc(w, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`(){%*"\]`, c) }) {
				return nil, usageError{fmt.Errorf("%q is no flag", w)}
			}
			flag = imap.Flag(w)
		}
		flags = append(flags, flag)
	}
	return flags, nil
}

func (m *mailFlags) moveCommand() *cobra.Command {
	var create bool
	var to string
	cmd := &cobra.Command{
		Use:     "move N... -to FOLDER",
		Short:   "Move messages into another folder",
		Example: "  mta mail move 7 -to Archive",
		Args:    cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&to, "to", "", "the folder")
	cmd.Flags().BoolVar(&create, "create", false, "make the folder when it is not there")
	m.change(cmd, "move", func(box *useragent.Mailbox, list []imap.UID) (string, error) {
		if to == "" {
			return "", usageError{errors.New("where to? Give -to FOLDER; mta mail folders shows them")}
		}
		err := box.Move(list, to)
		var no *imap.Error
		if errors.As(err, &no) && no.Code == imap.ResponseCodeTryCreate {
			if !create {
				return "", fmt.Errorf("there is no folder %s; -create makes it", useragent.SafeLine(to))
			}
			if err := box.Create(to); err != nil {
				return "", err
			}
			err = box.Move(list, to)
		}
		return "moved to " + useragent.SafeLine(to), err
	})
	return cmd
}

func (m *mailFlags) deleteCommand() *cobra.Command {
	var forGood bool
	cmd := &cobra.Command{
		Use:   "delete N...",
		Short: "Move messages to the trash",
		Long:  "Move messages to the trash. What lies there already is removed for good, as is everything with -forever.",
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.Flags().BoolVar(&forGood, "forever", false, "remove them for good")
	m.change(cmd, "delete", func(box *useragent.Mailbox, list []imap.UID) (string, error) {
		trash, err := box.FolderFor("Trash")
		if err != nil {
			return "", err
		}
		folders, err := box.Folders(false)
		if err != nil {
			return "", err
		}
		there := slices.ContainsFunc(folders, func(f useragent.Folder) bool { return f.Name == trash && f.Holds })
		if forGood || strings.EqualFold(trash, m.folder) {
			return "removed", box.Remove(list)
		}
		if !there {
			return "", errors.New("there is no folder for trash; -forever removes for good")
		}
		return "moved to " + useragent.SafeLine(trash), box.Move(list, trash)
	})
	return cmd
}

// change makes a command that does something to messages; to more than one only with -yes.
func (m *mailFlags) change(cmd *cobra.Command, verb string, do func(*useragent.Mailbox, []imap.UID) (string, error)) {
	yes := cmd.Flags().Bool("yes", false, "do it, also to more than one message")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		list, err := numbers(args)
		if err != nil {
			return err
		}
		slices.Sort(list)
		list = slices.Compact(list)
		if len(list) > 1 && !*yes {
			fmt.Fprintf(cmd.ErrOrStderr(), "this would %s %s; say -yes to do it\n", verb, plural(len(list), "message"))
			return errShown
		}
		return m.withMailbox(cmd, m.folder, false, func(_ *useragent.Account, box *useragent.Mailbox) error {
			there, err := box.Existing(list)
			if err != nil {
				return err
			}
			if len(there) < len(list) {
				missing := slices.DeleteFunc(slices.Clone(list), func(n imap.UID) bool { return slices.Contains(there, n) })
				return fmt.Errorf("%w: %d; nothing was changed", useragent.ErrNoMessage, missing[0])
			}
			done, err := do(box, list)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", done, plural(len(list), "message"))
			return nil
		})
	}
}
