package maildir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/plugins/maildir/gate"
	"github.com/pabal-mta/mta/sdk/mail"
)

// fakeHost knows one password.
type fakeHost struct{}

func (fakeHost) Authenticate(_ context.Context, l mail.Login) (mail.Identity, error) {
	if l.Password != "right" || l.Service == "" || !l.Remote.IsValid() {
		return mail.Identity{}, mail.ErrBadLogin
	}
	return mail.Identity{User: strings.ToLower(l.User)}, nil
}

func block() gate.Config {
	return gate.Config{Address: []string{"127.0.0.1:0"}, InsecureAuth: true, Connections: 9, ConnectionsPerIP: 9, ConnectionsPerLogin: 9}
}

// ask sends lines and returns the last line before the connection ends.
func ask(t *testing.T, addr string, lines ...string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, strings.Join(lines, "\r\n")+"\r\n")
	var all []string
	for s := bufio.NewScanner(conn); s.Scan(); {
		all = append(all, s.Text())
	}
	return strings.Join(all, "\n")
}

func TestMailboxesAreServed(t *testing.T) {
	m := newStore(t, func(c *Config) { c.IMAP, c.POP3 = []gate.Config{block(), block()}, []gate.Config{block()} })
	cfg := Config{IMAP: []gate.Config{block(), block()}, POP3: []gate.Config{block()}}
	if err := m.Listen(cfg, fakeHost{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if got := codes(t, m, delivery(letter, "ann@example.com")); got[0] != 250 {
		t.Fatal(got)
	}
	imapAddr, popAddr := m.servers[1].(addressed).Addresses()[0], m.servers[2].(addressed).Addresses()[0]
	got := ask(t, imapAddr, "a LOGIN Ann@example.com right", "b SELECT INBOX", "c FETCH 1 (RFC822.SIZE BODY[HEADER])", "d LOGOUT")
	if !strings.Contains(got, "* 1 EXISTS") || !strings.Contains(got, "Delivered-To: ann@example.com") || !strings.Contains(got, fmt.Sprintf("RFC822.SIZE %d", len(letter)+len("Delivered-To: ann@example.com\r\n"))) {
		t.Error(got)
	}
	if got := ask(t, imapAddr, "a LOGIN bob@example.com right", "b STATUS INBOX (MESSAGES)", "c SELECT ../ann", "d LOGOUT"); !strings.Contains(got, "MESSAGES 0") || !strings.Contains(got, "c NO") {
		t.Error(got)
	}
	if got := ask(t, popAddr, "USER ann@example.com", "PASS right", "STAT", "QUIT"); !strings.Contains(got, "+OK 1 ") {
		t.Error(got)
	}
	if got := ask(t, popAddr, "USER ../../etc", "PASS right", "QUIT"); !strings.Contains(got, "-ERR [SYS/TEMP]") {
		t.Error(got)
	}
}

type addressed interface{ Addresses() []string }

func TestListenersNeedAHostThatAuthenticates(t *testing.T) {
	m := newStore(t, nil)
	if err := m.Listen(Config{POP3: []gate.Config{block()}}, struct{}{}); !errors.Is(err, errNoAuth) {
		t.Errorf("%v", err)
	}
	if err := m.Listen(Config{}, struct{}{}); err != nil {
		t.Errorf("without listeners: %v", err)
	}
}

// A reload starts the next process before this one has ended: both listen on one port for a moment.
func TestSuccessorTakesThePort(t *testing.T) {
	m := newStore(t, nil)
	if err := m.Listen(Config{POP3: []gate.Config{block()}}, fakeHost{}); err != nil {
		t.Fatal(err)
	}
	addr := m.servers[0].(addressed).Addresses()[0]
	next, cfg := newStore(t, nil), block()
	cfg.Address = []string{addr}
	if err := next.Listen(Config{POP3: []gate.Config{cfg}}, fakeHost{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Close() })
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, addr, "QUIT"); !strings.Contains(got, "+OK bye") {
		t.Error(got)
	}
}

// conversation is an IMAP session that goes command by command.
type conversation struct {
	conn net.Conn
	r    *bufio.Reader
	n    int
	said string // what came before the last answer
}

func talk(t *testing.T, addr string) *conversation {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return &conversation{conn: conn, r: bufio.NewReader(conn)}
}

// do sends a command and returns its answer, or what went wrong with the connection.
func (c *conversation) do(command string) string {
	c.n++
	tag := fmt.Sprintf("t%d ", c.n)
	fmt.Fprintf(c.conn, "%s%s\r\n", tag, command)
	c.said = ""
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return err.Error()
		}
		if answer, ok := strings.CutPrefix(line, tag); ok {
			return strings.TrimSpace(answer)
		}
		c.said += line
	}
}

// lines sends a command of POP3 and returns its answer; of RETR and TOP all of it, without the dot.
func (c *conversation) lines(command string) (answer string) {
	if c.n++; c.n == 1 {
		_, _ = c.r.ReadString('\n') // the greeting; what is wrong shows in the next line
	}
	fmt.Fprintf(c.conn, "%s\r\n", command)
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return answer + err.Error()
		}
		if line == ".\r\n" {
			return answer
		}
		answer += line
		if many := strings.HasPrefix(command, "RETR") || strings.HasPrefix(command, "TOP"); !many || strings.HasPrefix(answer, "-ERR") {
			return answer
		}
	}
}
