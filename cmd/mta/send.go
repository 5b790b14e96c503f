package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/textproto"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/config"
	"github.com/pabal-mta/mta/sdk/mail"
)

// letter is what `mta send` sends.
type letter struct {
	from, subject, body string
	to                  []string
	server              string
	tls                 string // starttls, implicit, none or auto
	insecure            bool   // any certificate will do
	user                string
	quiet               bool
}

func sendCommand() *cobra.Command {
	var l letter
	cmd := &cobra.Command{
		Use:   "send -to ADDRESS",
		Short: "Send one test message, and show the dialogue",
		Long: "Send one test message to a server, by default the first listener of mta.hcl that wants no login, and show what both\n" +
			"sides say. A password is read from MTA_PASSWORD. The body is read from standard input with -body -.",
		Example: "  mta send -to ann@example.test\n  MTA_PASSWORD=... mta send -to bob@example.org -server mail.example.org:587 -user ann@example.org",
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringSliceVar(&l.to, "to", nil, "recipients")
	f.StringVar(&l.from, "from", "", "reverse-path (default: the user, or postmaster@hostname)")
	f.StringVar(&l.subject, "subject", "Test message from mta send", "Subject")
	f.StringVar(&l.body, "body", "This is a test message.", "text of the message; - reads standard input")
	f.StringVar(&l.server, "server", "", "host:port")
	f.StringVar(&l.tls, "tls", "auto", "auto (STARTTLS where it is offered), starttls, implicit or none")
	f.BoolVar(&l.insecure, "insecure", false, "take any certificate")
	f.StringVar(&l.user, "user", "", "log in as this account")
	f.BoolVar(&l.quiet, "quiet", false, "do not show the dialogue")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(l.to) == 0 {
			return usageError{errors.New("send to whom? Give -to ADDRESS")}
		}
		if err := l.complete(cmd); err != nil {
			return err
		}
		return l.send(cmd.OutOrStdout())
	}
	return cmd
}

// complete fills in what was not given and refuses what can't be sent.
func (l *letter) complete(cmd *cobra.Command) error {
	switch l.tls {
	case "auto", "starttls", "implicit", "none":
	default:
		return usageError{fmt.Errorf("-tls %q: it is auto, starttls, implicit or none", l.tls)}
	}
	if l.server == "" {
		cfg, err := loadOffline(cmd)
		if err != nil {
			return err
		}
		if l.server = listenerFor(cfg, l.user != ""); l.server == "" {
			return usageError{errors.New("no listener of the configuration fits; give -server HOST:PORT")}
		}
	}
	host, _ := os.Hostname()
	l.from = cmp.Or(l.from, l.user, "postmaster@"+cmp.Or(host, "localhost"))
	for _, text := range append([]string{l.from}, l.to...) {
		if _, err := mail.ParseAddress(text); err != nil {
			return usageError{err}
		}
	}
	if l.body == "-" {
		b, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return err
		}
		l.body = string(b)
	}
	return nil
}

// listenerFor finds the address of a listener that takes a login, or that takes mail without one.
func listenerFor(cfg *config.Config, login bool) string {
	for _, li := range cfg.Listeners {
		if (li.Auth != "") == login && len(li.Address) > 0 {
			return li.Address[0]
		}
	}
	return ""
}

// talk is one SMTP connection, shown line by line, without what is secret.
type talk struct {
	out  io.Writer
	conn net.Conn
	text *textproto.Conn
	caps string // the answer to EHLO, in upper case
}

func newTalk(conn net.Conn, out io.Writer) *talk {
	return &talk{out: out, conn: conn, text: textproto.NewConn(conn)}
}

// expect reads a reply and shows it.
func (t *talk) expect(class int) (string, error) {
	code, reply, err := t.text.ReadResponse(class)
	if code != 0 {
		for line := range strings.Lines(reply) {
			fmt.Fprintf(t.out, "<  %d %s\n", code, strings.TrimSpace(line))
		}
	}
	return reply, err
}

// say sends a command and reads its reply. What is shown may be another text than what is sent.
func (t *talk) say(class int, shown, command string) (string, error) {
	fmt.Fprintf(t.out, " > %s\n", cmp.Or(shown, command))
	if err := t.text.PrintfLine("%s", command); err != nil {
		return "", err
	}
	return t.expect(class)
}

func (t *talk) hello() error {
	reply, err := t.say(2, "", "EHLO localhost")
	t.caps = strings.ToUpper(reply)
	return err
}

// offers reports whether the server has named an extension.
func (t *talk) offers(word string) bool {
	for line := range strings.Lines(t.caps) {
		if first, _, _ := strings.Cut(strings.TrimSpace(line), " "); first == word {
			return true
		}
	}
	return false
}

// send has the whole conversation.
func (l *letter) send(out io.Writer) error {
	if l.quiet {
		out = io.Discard
	}
	t, err := l.connect(out)
	if err != nil {
		return err
	}
	defer t.conn.Close()
	if err := l.login(t); err != nil {
		return err
	}
	body := ""
	if t.offers("8BITMIME") {
		body = " BODY=8BITMIME"
	}
	if _, err := t.say(2, "", "MAIL FROM:<"+l.from+">"+body); err != nil {
		return err
	}
	for _, to := range l.to {
		if _, err := t.say(2, "", "RCPT TO:<"+to+">"); err != nil {
			return err
		}
	}
	if _, err := t.say(3, "", "DATA"); err != nil {
		return err
	}
	message := l.message()
	fmt.Fprintf(out, " > (%d bytes of message)\n", len(message))
	w := t.text.DotWriter()
	if _, err := w.Write(message); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if _, err := t.expect(2); err != nil {
		return err
	}
	_, err = t.say(2, "", "QUIT")
	return err
}

// connect opens the connection, greets, and starts TLS where it is wanted.
func (l *letter) connect(out io.Writer) (t *talk, err error) {
	host, _, err := net.SplitHostPort(l.server)
	if err != nil {
		return nil, usageError{fmt.Errorf("-server %q: %w", l.server, err)}
	}
	conn, err := net.DialTimeout("tcp", l.server, 30*time.Second)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	fmt.Fprintf(out, "-- connected to %s\n", conn.RemoteAddr())
	settings := &tls.Config{ServerName: host, InsecureSkipVerify: l.insecure}
	if l.tls == "implicit" {
		conn = tls.Client(conn, settings)
	}
	t = newTalk(conn, out)
	if _, err := t.expect(2); err != nil {
		return nil, err
	}
	if err := t.hello(); err != nil {
		return nil, err
	}
	if l.tls == "starttls" || l.tls == "auto" && t.offers("STARTTLS") {
		return l.startTLS(t, settings)
	}
	return t, nil
}

func (l *letter) startTLS(t *talk, settings *tls.Config) (*talk, error) {
	if _, err := t.say(2, "", "STARTTLS"); err != nil {
		return nil, err
	}
	conn := tls.Client(t.conn, settings)
	if err := conn.Handshake(); err != nil {
		return nil, fmt.Errorf("STARTTLS: %w", err)
	}
	fmt.Fprintf(t.out, "-- %s\n", tls.VersionName(conn.ConnectionState().Version))
	t = newTalk(conn, t.out)
	return t, t.hello()
}

func (l *letter) login(t *talk) error {
	if l.user == "" {
		return nil
	}
	password := os.Getenv("MTA_PASSWORD")
	if password == "" {
		return usageError{errors.New("the password of -user is read from MTA_PASSWORD, which is not set")}
	}
	token := base64.StdEncoding.EncodeToString([]byte("\x00" + l.user + "\x00" + password))
	_, err := t.say(2, "AUTH PLAIN (not shown)", "AUTH PLAIN "+token)
	return err
}

func (l *letter) message() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\n", l.from, strings.Join(l.to, ">, <"), mime.QEncoding.Encode("utf-8", l.subject))
	_, domain, _ := strings.Cut(l.from, "@")
	fmt.Fprintf(&b, "Date: %s\r\nMessage-ID: <%s@%s>\r\n", time.Now().Format(time.RFC1123Z), rand.Text(), cmp.Or(domain, "localhost"))
	b.WriteString("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n")
	for line := range strings.Lines(l.body) {
		b.WriteString(strings.TrimRight(line, "\r\n") + "\r\n")
	}
	return b.Bytes()
}
