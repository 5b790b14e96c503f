package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/cmd/mta/useragent"
	"github.com/pabal-mta/mta/core/admin"
)

// reading is how a message is shown.
type reading struct {
	text, html, headers, raw, open, browser, peek bool
}

func (m *mailFlags) readCommand() *cobra.Command {
	var r reading
	cmd := &cobra.Command{
		Use:   "read N",
		Short: "Show a message, and mark it as read",
		Long: "Show a message, and mark it as read. HTML is shown as text, its links numbered. With -open a page is written that loads\n" +
			"nothing from outside, and its path is printed.",
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.BoolVar(&r.text, "text", false, "only the text")
	f.BoolVar(&r.html, "html", false, "only the HTML, as it was sent")
	f.BoolVar(&r.headers, "headers", false, "only the header")
	f.BoolVar(&r.raw, "raw", false, "the whole message, as it was sent")
	f.BoolVar(&r.open, "open", false, "write a page for a browser, and print its path")
	f.BoolVar(&r.browser, "browser", false, "with -open: open it")
	f.BoolVar(&r.peek, "peek", false, "do not mark it as read")
	cmd.MarkFlagsMutuallyExclusive("text", "html", "headers", "raw", "open")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return m.withMailbox(cmd, m.folder, r.peek, func(_ *useragent.Account, box *useragent.Mailbox) error {
			n, message, err := fetch(cmd, box, args)
			if err != nil {
				return err
			}
			if err := r.show(cmd, message); err != nil || r.peek {
				return err
			}
			return box.Mark([]imap.UID{n}, []imap.Flag{imap.FlagSeen}, nil)
		})
	}
	return cmd
}

func (r *reading) show(cmd *cobra.Command, m *useragent.Message) error {
	out := cmd.OutOrStdout()
	switch {
	case r.raw:
		return printRaw(out, m.Raw)
	case r.headers:
		for _, f := range m.Header {
			fmt.Fprintf(out, "%s: %s\n", useragent.SafeLine(f.Name), useragent.SafeLine(f.Text()))
		}
	case r.html:
		_, html := m.Body()
		if html == nil {
			return errors.New("the message has no HTML")
		}
		return printRaw(out, []byte(html.Text()))
	case r.text:
		printText(out, m)
	case r.open || r.browser:
		return r.page(cmd, m)
	default:
		showWhole(out, m)
	}
	return nil
}

func showWhole(out io.Writer, m *useragent.Message) {
	for _, name := range []string{"From", "To", "Cc", "Date", "Subject"} {
		if value := m.Header.Text(name); value != "" {
			fmt.Fprintf(out, "%-8s %s\n", name+":", useragent.SafeLine(value))
		}
	}
	fmt.Fprintln(out)
	printText(out, m)
	for i, p := range append(m.Attachments(), m.Pictures()...) {
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "part %s  %s  %s, %s\n", p.Path, useragent.SafeLine(p.SaveName()), useragent.SafeLine(p.Type), admin.Bytes(int64(len(p.Bytes()))))
	}
}

// printText shows the text. The end of a part's last line belongs to the boundary that follows (RFC 2046, 5.1.1), so it may
// be missing.
func printText(out io.Writer, m *useragent.Message) {
	text := useragent.SafeText(m.BodyText())
	fmt.Fprint(out, text)
	if !strings.HasSuffix(text, "\n") {
		fmt.Fprintln(out)
	}
}

// page writes the page into a file that only we can read.
func (r *reading) page(cmd *cobra.Command, m *useragent.Message) error {
	f, err := os.CreateTemp("", "mta-mail-*.html")
	if err != nil {
		return err
	}
	_, err = f.Write(m.Page())
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), f.Name())
	if !r.browser {
		return nil
	}
	opener := "xdg-open"
	if runtime.GOOS == "darwin" {
		opener = "open"
	}
	if own := os.Getenv("BROWSER"); own != "" {
		opener = own
	}
	if err := exec.CommandContext(cmd.Context(), opener, f.Name()).Run(); err != nil {
		return fmt.Errorf("opening a browser (%s): %w", opener, err)
	}
	return nil
}
