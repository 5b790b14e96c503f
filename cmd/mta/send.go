package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/textproto"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/spf13/cobra"

	"github.com/pabal-mta/mta/core/config"
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

// complete fills in what was not given.
func (l *letter) complete(cmd *cobra.Command) error {
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

// dialogue shows both sides of a connection line by line, without what is secret.
type dialogue struct {
	net.Conn
	out  io.Writer
	data bool // inside the message
	hide bool // the next line of ours is a password
}

func (d *dialogue) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	for line := range strings.Lines(string(b[:n])) {
		fmt.Fprintf(d.out, "<  %s\n", strings.TrimRight(line, "\r\n"))
		d.data = strings.HasPrefix(line, "354")
		d.hide = strings.HasPrefix(line, "334")
	}
	return n, err
}

func (d *dialogue) Write(b []byte) (int, error) {
	switch {
	case d.hide:
		fmt.Fprintln(d.out, " > (not shown)")
	case d.data:
		fmt.Fprintf(d.out, " > (%d bytes of message)\n", len(b))
	default:
		for line := range strings.Lines(string(b)) {
			words := strings.Fields(line)
			if len(words) > 2 && strings.EqualFold(words[0], "AUTH") {
				line = words[0] + " " + words[1] + " (not shown)"
			}
			fmt.Fprintf(d.out, " > %s\n", strings.TrimRight(line, "\r\n"))
		}
	}
	return d.Conn.Write(b)
}

func (l *letter) send(out io.Writer) error {
	if l.quiet {
		out = io.Discard
	}
	c, err := l.connect(out)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := l.login(c); err != nil {
		return err
	}
	if err := c.SendMail(l.from, l.to, bytes.NewReader(l.message())); err != nil {
		return err
	}
	return c.Quit()
}

// connect opens the connection and, where it is wanted, TLS in it.
func (l *letter) connect(out io.Writer) (*smtp.Client, error) {
	host, _, err := net.SplitHostPort(l.server)
	if err != nil {
		return nil, usageError{fmt.Errorf("-server %q: %w", l.server, err)}
	}
	conn, err := net.DialTimeout("tcp", l.server, 30*time.Second)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "-- connected to %s\n", conn.RemoteAddr())
	settings := &tls.Config{ServerName: host, InsecureSkipVerify: l.insecure} //nolint:gosec // -insecure asks for it
	switch l.tls {
	case "none":
		return smtp.NewClient(&dialogue{Conn: conn, out: out}), nil
	case "implicit":
		return smtp.NewClient(&dialogue{Conn: tls.Client(conn, settings), out: out}), nil
	case "auto", "starttls":
	default:
		conn.Close()
		return nil, usageError{fmt.Errorf("-tls %q: it is auto, starttls, implicit or none", l.tls)}
	}
	offered, err := startTLS(conn, out)
	switch {
	case err != nil:
		conn.Close()
		return nil, err
	case offered:
		fmt.Fprintln(out, "-- TLS")
		return smtp.NewClient(&dialogue{Conn: greeted(tls.Client(conn, settings)), out: out}), nil
	case l.tls == "starttls":
		conn.Close()
		return nil, errors.New("the server does not offer STARTTLS")
	default:
		return smtp.NewClient(&dialogue{Conn: greeted(conn), out: out}), nil
	}
}

// startTLS greets the server and asks for TLS if it is offered.
func startTLS(conn net.Conn, out io.Writer) (offered bool, err error) {
	text := textproto.NewConn(&dialogue{Conn: conn, out: out})
	if _, _, err := text.ReadResponse(220); err != nil {
		return false, err
	}
	if err := text.PrintfLine("EHLO localhost"); err != nil {
		return false, err
	}
	_, words, err := text.ReadResponse(250)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(words) {
		offered = offered || strings.EqualFold(strings.TrimSpace(line), "STARTTLS")
	}
	if !offered {
		return false, nil
	}
	if err := text.PrintfLine("STARTTLS"); err != nil {
		return false, err
	}
	_, _, err = text.ReadResponse(220)
	return true, err
}

// greetedConn is a connection whose greeting was read already: its reader is given another one.
type greetedConn struct {
	net.Conn
	r *bufio.Reader
}

func greeted(c net.Conn) net.Conn {
	return &greetedConn{c, bufio.NewReader(io.MultiReader(strings.NewReader("220 ready\r\n"), c))}
}

func (g *greetedConn) Read(b []byte) (int, error) { return g.r.Read(b) }

func (l *letter) login(c *smtp.Client) error {
	if l.user == "" {
		return nil
	}
	password := os.Getenv("MTA_PASSWORD")
	if password == "" {
		return usageError{errors.New("the password of -user is read from MTA_PASSWORD, which is not set")}
	}
	return c.Auth(sasl.NewPlainClient("", l.user, password))
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
