package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pabal-mta/mta/cmd/mta/useragent"
	"github.com/pabal-mta/mta/core/admin"
)

const mailHelp = `A mail program for any IMAP and submission server. N is the number that list shows: it stays with its message.

The account is taken from flags, then from the environment (MTA_MAIL_IMAP, _SUBMIT, _USER, _ADDRESS, _NAME, _TLS), then
from a file (-account, MTA_MAIL_ACCOUNT, or mta/mail.hcl in your configuration directory):

  address          = "ann@example.com"
  name             = "Ann"
  imap             = "imap.example.com:993"
  submit           = "smtp.example.com:465"
  password_command = "pass show mail/ann"   # or MTA_PASSWORD, or you are asked

Where none of them names a server and there is an mta.hcl, its server on this machine is used: only -user is missing.`

// mailFlags is what all mail commands share.
type mailFlags struct {
	account, folder string
	given           useragent.Account
}

func mailCommand() *cobra.Command {
	m := new(mailFlags)
	cmd := &cobra.Command{Use: "mail", Short: "Read, write, answer, forward and save mail", Long: mailHelp}
	f := cmd.PersistentFlags()
	f.StringVar(&m.account, "account", "", "the account file")
	f.StringVar(&m.folder, "folder", "INBOX", "the folder that N is in")
	f.StringVar(&m.given.User, "user", "", "log in as this account")
	f.StringVar(&m.given.IMAP, "imap", "", "read from this server, HOST:PORT")
	f.StringVar(&m.given.Submit, "submit", "", "send by this server, HOST:PORT")
	f.StringVar(&m.given.TLS, "tls", "", "auto, implicit, starttls or none (default auto: by the port; in clear on this machine only)")
	f.BoolVar(&m.given.Insecure, "insecure", false, "take any certificate")
	cmd.AddCommand(
		m.listCommand(), m.readCommand(), m.saveCommand(),
		m.composeCommand(), m.replyCommand(), m.forwardCommand(), m.draftCommand(),
		m.flagCommand(), m.moveCommand(), m.deleteCommand(), m.foldersCommand(), m.watchCommand(),
	)
	for _, sub := range cmd.Commands() {
		run := sub.RunE
		sub.RunE = func(cmd *cobra.Command, args []string) error { return harmless(run(cmd, args)) }
	}
	return cmd
}

// harmlessError is an error whose words may be those of a strange server: they can't move the cursor.
type harmlessError struct{ error }

func harmless(err error) error {
	if err == nil {
		return nil
	}
	return harmlessError{err}
}

func (h harmlessError) Error() string { return useragent.SafeText(h.error.Error()) }

func (h harmlessError) Unwrap() error { return h.error }

// resolve finds the account: each word from the first place that has it.
func (m *mailFlags) resolve(cmd *cobra.Command) (*useragent.Account, error) {
	a := m.given
	a.Or(useragent.Account{
		IMAP: os.Getenv("MTA_MAIL_IMAP"), Submit: os.Getenv("MTA_MAIL_SUBMIT"), User: os.Getenv("MTA_MAIL_USER"),
		Address: os.Getenv("MTA_MAIL_ADDRESS"), Name: os.Getenv("MTA_MAIL_NAME"), TLS: os.Getenv("MTA_MAIL_TLS"),
	})
	named := cmp.Or(m.account, os.Getenv("MTA_MAIL_ACCOUNT"))
	file, err := useragent.LoadAccount(cmp.Or(named, useragent.AccountFile()), named != "")
	if err != nil {
		return nil, err
	}
	a.Or(*file)
	a.Aliases = file.Aliases
	if a.IMAP == "" && a.Submit == "" {
		if err := ourServer(cmd, &a); err != nil {
			return nil, err
		}
	}
	if err := a.Check(); err != nil {
		return nil, usageError{err}
	}
	if a.User == "" {
		return nil, usageError{errors.New("whose mail? Give -user, set MTA_MAIL_USER, or write an account file: mta mail -help")}
	}
	if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		a.Ask = func() (string, error) { return askSecret(cmd, in, "password of "+useragent.SafeLine(a.User)+": ") }
	}
	return &a, nil
}

// ourServer takes the servers of the configuration in the working directory that are on this machine, so that the first
// hour needs no account.
func ourServer(cmd *cobra.Command, a *useragent.Account) error {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return usageError{errors.New("no mail server is named: give -imap and -submit, or write an account file: mta mail -help")}
	}
	cfg, err := load(cmd, false)
	if err != nil {
		return err
	}
	for _, m := range mailSettings(cfg).Servers {
		server, word := &a.IMAP, &a.IMAPTLS
		switch m.Protocol {
		case "pop3":
			continue
		case "smtp":
			server, word = &a.Submit, &a.SubmitTLS
		}
		if *server != "" || !isLoopbackHost(m.Host) {
			continue
		}
		*server = net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port)))
		if m.TLS == "implicit" {
			*word = "implicit"
		}
	}
	return nil
}

// unreachable is a server that does not answer.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// explained says which failures mean that no server answers, or that the command line is not whole.
func explained(err error) error {
	var dial *net.OpError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial":
		return unreachable{err}
	case errors.Is(err, useragent.ErrNoServer):
		return usageError{err}
	}
	return err
}

// withMailbox logs in, opens the folder if there is one, and calls fn.
func (m *mailFlags) withMailbox(cmd *cobra.Command, folder string, onlyLook bool, fn func(*useragent.Account, *useragent.Mailbox) error) error {
	a, err := m.resolve(cmd)
	if err != nil {
		return err
	}
	box, err := a.Mailbox(cmd.Context())
	if err != nil {
		return explained(err)
	}
	if folder != "" {
		err = box.Open(folder, onlyLook)
	}
	if err == nil {
		err = fn(a, box)
	}
	if closed := box.Close(); err == nil && cmd.Context().Err() == nil {
		err = closed
	}
	return err
}

// numbers reads the numbers of messages.
func numbers(args []string) ([]imap.UID, error) {
	var list []imap.UID
	for _, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 32)
		if err != nil || n == 0 {
			return nil, usageError{fmt.Errorf("%q is no number of a message; mta mail list shows them", arg)}
		}
		list = append(list, imap.UID(n))
	}
	return list, nil
}

// fetch gets the one message that the arguments name.
func fetch(cmd *cobra.Command, box *useragent.Mailbox, args []string) (imap.UID, *useragent.Message, error) {
	list, err := numbers(args)
	if err != nil {
		return 0, nil, err
	}
	message, _, err := box.Fetch(list[0], progress(cmd, "fetching"))
	return list[0], message, err
}

// progress tells on a terminal how far a long transfer has come; nil elsewhere.
func progress(cmd *cobra.Command, doing string) useragent.Progress {
	const long = 1 << 20
	f, ok := cmd.ErrOrStderr().(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	shown := int64(-1)
	return func(done, all int64) {
		if all < long {
			return
		}
		if percent := done * 100 / all; percent != shown {
			shown = percent
			fmt.Fprintf(f, "\r%s %s of %s\x1b[K", doing, admin.Bytes(done), admin.Bytes(all))
		}
		if done >= all {
			fmt.Fprint(f, "\r\x1b[K")
		}
	}
}

// printJSON writes one object a line, in a form that no terminal obeys.
func printJSON(w io.Writer, value any) error {
	doc, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", useragent.SafeJSON(doc))
	return err
}

// printRaw writes bytes as they are, but never to a terminal: there they are made harmless.
func printRaw(w io.Writer, b []byte) error {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b = []byte(useragent.SafeText(strings.ToValidUTF8(string(b), "\ufffd")))
	}
	_, err := w.Write(b)
	return err
}

// quietly runs what should not undo the success of what came before it: its failure is a warning.
func quietly(cmd *cobra.Command, what string, fn func(context.Context) error) {
	if err := fn(cmd.Context()); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "mta: %s: %v\n", what, harmless(err))
	}
}
