package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/mail"
	"path/filepath"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/cmd/mta/useragent"
)

// writing is what the commands that write a letter share.
type writing struct {
	*mailFlags
	from, subject string
	to, cc, bcc   []string
	body          string
	bodyGiven     bool
	text, html    string
	pictures      []string
	files         []string
	noCopy        bool
}

// flags adds the flags of a letter. Files are attached by the flag named attach.
func (w *writing) flags(cmd *cobra.Command, attach string) {
	f := cmd.Flags()
	f.StringVar(&w.from, "from", "", "the sender (default: the account)")
	f.StringArrayVar(&w.to, "to", nil, "who shall get it: \"Bob <bob@example.com>, carol@example.com\"")
	f.StringArrayVar(&w.cc, "cc", nil, "who shall get a copy")
	f.StringArrayVar(&w.bcc, "bcc", nil, "who shall get a copy that nobody else sees")
	f.StringVar(&w.subject, "subject", "", "the subject")
	f.StringVar(&w.body, "body", "", "the text itself; - reads standard input")
	f.StringVar(&w.text, "text", "", "a file with the text; - reads standard input")
	f.StringVar(&w.html, "html", "", "a file with the same as HTML")
	f.StringArrayVar(&w.pictures, "picture", nil, "NAME=FILE: a picture that the HTML shows as cid:NAME")
	f.StringArrayVar(&w.files, attach, nil, "a file to attach")
	f.BoolVar(&w.noCopy, "no-copy", false, "keep no copy in the folder Sent")
	cmd.MarkFlagsMutuallyExclusive("body", "text")
}

func (m *mailFlags) composeCommand() *cobra.Command {
	w := &writing{mailFlags: m}
	cmd := &cobra.Command{
		Use:   "compose -to ADDRESS",
		Short: "Write a message and send it",
		Long: "Write a message and send it. The text comes from -body, -text, or standard input; on a terminal your editor opens\n" +
			"(VISUAL or EDITOR). HTML without a text gets one made from it.",
		Example: "  mta mail compose -to bob@example.com -subject Lunch -body 'At noon?'\n" +
			"  mta mail compose -to bob@example.com -subject 안녕 -html body.html -picture logo=logo.png -attach report.pdf",
		Args: cobra.NoArgs,
	}
	w.flags(cmd, "attach")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a, err := m.resolve(cmd)
		if err != nil {
			return err
		}
		l, err := w.finish(cmd, a, &useragent.Letter{}, "")
		if err != nil {
			return err
		}
		return w.send(cmd, a, l, nil)
	}
	return cmd
}

func (m *mailFlags) replyCommand() *cobra.Command {
	w := &writing{mailFlags: m}
	var all, noQuote bool
	cmd := &cobra.Command{
		Use:   "reply N",
		Short: "Answer a message",
		Args:  cobra.ExactArgs(1),
	}
	w.flags(cmd, "attach")
	cmd.Flags().BoolVar(&all, "all", false, "answer everyone who got it")
	cmd.Flags().BoolVar(&noQuote, "no-quote", false, "do not quote it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return w.answer(cmd, args, imap.FlagAnswered, func(a *useragent.Account, message *useragent.Message) (*useragent.Letter, string) {
			if noQuote {
				return message.Reply(a.Own(), all), ""
			}
			return message.Reply(a.Own(), all), message.Quoted()
		})
	}
	return cmd
}

func (m *mailFlags) forwardCommand() *cobra.Command {
	w := &writing{mailFlags: m}
	var inline, attach bool
	cmd := &cobra.Command{
		Use:   "forward N -to ADDRESS",
		Short: "Pass a message on",
		Long: "Pass a message on: its text below yours and its attachments as yours (-inline, the default), or the whole message\n" +
			"attached as it is (-attach).",
		Args: cobra.ExactArgs(1),
	}
	w.flags(cmd, "file")
	cmd.Flags().BoolVar(&inline, "inline", false, "its text below yours, its attachments as yours (the default)")
	cmd.Flags().BoolVar(&attach, "attach", false, "the message attached as it is")
	cmd.MarkFlagsMutuallyExclusive("inline", "attach")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return w.answer(cmd, args, imap.FlagForwarded, func(_ *useragent.Account, message *useragent.Message) (*useragent.Letter, string) {
			return message.Forward(!attach), ""
		})
	}
	return cmd
}

// answer sends a letter that begins with another message, and marks that one. The message is fetched before a person
// writes and marked on a new connection after it was sent, because writing may take longer than a server waits.
func (w *writing) answer(cmd *cobra.Command, args []string, mark imap.Flag, begin func(*useragent.Account, *useragent.Message) (*useragent.Letter, string)) error {
	var n imap.UID
	var message *useragent.Message
	var account *useragent.Account
	err := w.withMailbox(cmd, w.folder, true, func(a *useragent.Account, box *useragent.Mailbox) (err error) {
		account = a
		n, message, err = fetch(cmd, box, args)
		return err
	})
	if err != nil {
		return err
	}
	l, quoted := begin(account, message)
	if l, err = w.finish(cmd, account, l, quoted); err != nil {
		return err
	}
	return w.send(cmd, account, l, func(box *useragent.Mailbox) error {
		if err := box.Open(w.folder, false); err != nil {
			return err
		}
		return box.Mark([]imap.UID{n}, []imap.Flag{mark}, nil)
	})
}

// finish adds what the command line and the person give to the beginning of a letter.
func (w *writing) finish(cmd *cobra.Command, a *useragent.Account, l *useragent.Letter, quoted string) (*useragent.Letter, error) {
	w.bodyGiven = cmd.Flags().Changed("body")
	if err := w.addresses(a, l); err != nil {
		return nil, usageError{err}
	}
	if len(l.To)+len(l.Cc)+len(l.Bcc) == 0 && cmd.Name() != "draft" {
		return nil, usageError{errors.New("to whom? Give -to ADDRESS")}
	}
	l.Subject = cmp.Or(w.subject, l.Subject)
	if err := w.attach(l); err != nil {
		return nil, err
	}
	text, err := w.words(cmd, quoted, l.Text)
	if err != nil {
		return nil, err
	}
	l.Text = text
	if strings.TrimSpace(text) == "" && l.HTML == "" && len(l.Attachments) == 0 && l.Subject == "" {
		return nil, errors.New("the letter is empty; nothing was sent")
	}
	return l, nil
}

func (w *writing) addresses(a *useragent.Account, l *useragent.Letter) error {
	l.From = &mail.Address{Name: a.Name, Address: a.Address}
	if w.from != "" {
		list, err := useragent.ParseAddresses(w.from)
		if err != nil {
			return err
		}
		if len(list) != 1 {
			return errors.New("-from is one address")
		}
		l.From = list[0]
	} else if _, err := useragent.ParseAddresses(a.Address); err != nil {
		return fmt.Errorf("%w; give -from ADDRESS, or address in the account file", err)
	}
	for _, field := range []struct {
		list  *[]*mail.Address
		given []string
	}{{&l.To, w.to}, {&l.Cc, w.cc}, {&l.Bcc, w.bcc}} {
		more, err := useragent.ParseAddresses(field.given...)
		if err != nil {
			return err
		}
		*field.list = append(*field.list, more...)
	}
	return nil
}

// attach reads the files of the letter.
func (w *writing) attach(l *useragent.Letter) error {
	for _, path := range w.files {
		data, err := readFile(path)
		if err != nil {
			return err
		}
		l.Attachments = append(l.Attachments, useragent.File{Name: filepath.Base(path), Type: useragent.TypeOf(path, data), Data: data})
	}
	if w.html != "" {
		source, err := readFile(w.html)
		if err != nil {
			return err
		}
		l.HTML = string(source)
	}
	for _, given := range w.pictures {
		name, path, ok := strings.Cut(given, "=")
		if !ok {
			return usageError{fmt.Errorf("-picture %q: it is NAME=FILE", given)}
		}
		data, err := readFile(path)
		if err != nil {
			return err
		}
		l.Pictures = append(l.Pictures, useragent.File{Name: filepath.Base(path), Type: useragent.TypeOf(path, data), ID: name, Data: data})
	}
	return nil
}

// send submits the letter; then, as far as that works, it keeps a copy and runs after.
func (w *writing) send(cmd *cobra.Command, a *useragent.Account, l *useragent.Letter, after func(*useragent.Mailbox) error) error {
	to, err := l.Recipients()
	if err != nil {
		return usageError{err}
	}
	form, err := submit(cmd, a, l.From.Address, to, func(f useragent.Form) ([]byte, bool, error) {
		message, err := l.Bytes(f)
		return message, l.NeedsUTF8(), err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "sent to %s\n", strings.Join(to, ", "))
	if w.noCopy && after == nil || a.IMAP == "" {
		return nil
	}
	quietly(cmd, "sent, but the mailbox does not know it", func(ctx context.Context) error {
		box, err := a.Mailbox(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = box.Close() }() // what was asked for is done before
		var failed error
		if !w.noCopy {
			form.Bcc = true
			failed = w.keep(cmd, box, l, form)
		}
		if after != nil {
			failed = errors.Join(failed, after(box))
		}
		return failed
	})
	return nil
}

// keep puts a copy into the folder for sent mail: the same letter, with its Bcc.
func (w *writing) keep(cmd *cobra.Command, box *useragent.Mailbox, l *useragent.Letter, form useragent.Form) error {
	message, err := l.Bytes(form)
	if err != nil {
		return err
	}
	folder, err := box.FolderFor("Sent")
	if err != nil {
		return err
	}
	return box.Append(folder, message, []imap.Flag{imap.FlagSeen}, progress(cmd, "keeping a copy"))
}

// submit hands a message to the submission server, in the form that it takes, and returns that form.
func submit(cmd *cobra.Command, a *useragent.Account, from string, to []string, write func(useragent.Form) ([]byte, bool, error)) (useragent.Form, error) {
	s, err := a.Submission(cmd.Context())
	if err != nil {
		return useragent.Form{}, explained(err)
	}
	form := s.Form()
	message, utf8, err := write(form)
	if err == nil {
		err = s.Send(from, to, message, utf8, progress(cmd, "sending"))
	}
	if closed := s.Close(); err == nil && closed != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "mta: sent; taking leave: %v\n", harmless(closed))
	}
	return form, err
}

func (m *mailFlags) draftCommand() *cobra.Command {
	w := &writing{mailFlags: m}
	cmd := &cobra.Command{
		Use:   "draft",
		Short: "Write a message and keep it among the drafts; draft -send N sends one",
		Example: "  mta mail draft -to bob@example.com -subject Lunch -body 'At noon?'\n" +
			"  mta mail list -folder Drafts\n  mta mail draft -send 3",
		Args: cobra.NoArgs,
	}
	w.flags(cmd, "attach")
	ready := cmd.Flags().String("send", "", "N: send this draft as it is, and take it out of the drafts")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *ready != "" {
			return w.sendDraft(cmd, *ready)
		}
		a, err := m.resolve(cmd)
		if err != nil {
			return err
		}
		l, err := w.finish(cmd, a, &useragent.Letter{}, "")
		if err != nil {
			return err
		}
		message, err := l.Bytes(useragent.Form{Bcc: true})
		if err != nil {
			return err
		}
		return m.withMailbox(cmd, "", false, func(_ *useragent.Account, box *useragent.Mailbox) error {
			folder, err := box.FolderFor("Drafts")
			if err != nil {
				return err
			}
			if err := box.Append(folder, message, []imap.Flag{imap.FlagDraft, imap.FlagSeen}, progress(cmd, "keeping")); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "kept in %s\n", useragent.SafeLine(folder))
			return nil
		})
	}
	return cmd
}

// sendDraft sends a draft byte for byte, but for its Bcc, and moves it to the sent mail.
func (w *writing) sendDraft(cmd *cobra.Command, n string) error {
	return w.withMailbox(cmd, "", false, func(a *useragent.Account, box *useragent.Mailbox) error {
		drafts, err := box.FolderFor("Drafts")
		if err != nil {
			return err
		}
		if err := box.Open(drafts, false); err != nil {
			return err
		}
		uid, message, err := fetch(cmd, box, []string{n})
		if err != nil {
			return err
		}
		l := message.Draft()
		if l.From == nil {
			return errors.New("the draft has no sender")
		}
		to, err := l.Recipients()
		if err != nil {
			return err
		}
		_, err = submit(cmd, a, l.From.Address, to, func(useragent.Form) ([]byte, bool, error) {
			return useragent.StripField(message.Raw, "Bcc"), l.NeedsUTF8(), nil
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "sent to %s\n", strings.Join(to, ", "))
		quietly(cmd, "sent, but the draft is still there", func(context.Context) error { return shelve(box, uid) })
		return nil
	})
}

// shelve makes a draft that was sent a message of the folder Sent.
func shelve(box *useragent.Mailbox, uid imap.UID) error {
	list := []imap.UID{uid}
	sent, err := box.FolderFor("Sent")
	if err != nil {
		return err
	}
	folders, err := box.Folders(false)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(folders, func(f useragent.Folder) bool { return f.Name == sent }) {
		if err := box.Create(sent); err != nil {
			return err
		}
	}
	if err := box.Mark(list, []imap.Flag{imap.FlagSeen}, []imap.Flag{imap.FlagDraft}); err != nil {
		return err
	}
	return box.Move(list, sent)
}
