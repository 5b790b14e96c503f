package smtpd

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// lines is a connection that gives go-smtp one line per Read, as the edge does, and writes down what happens in order.
type lines struct {
	net.Conn
	say []string
	log *[]string
}

func (l *lines) Read(p []byte) (int, error) {
	if len(l.say) == 0 {
		return 0, io.EOF
	}
	line := l.say[0]
	l.say = l.say[1:]
	*l.log = append(*l.log, "read "+line)
	return copy(p, line), nil
}

func (l *lines) Write(p []byte) (int, error) {
	*l.log = append(*l.log, "write "+string(p))
	return len(p), nil
}
func (l *lines) Close() error         { *l.log = append(*l.log, "close"); return nil }
func (l *lines) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// noting is a session that notes when it is called.
type noting struct{ log *[]string }

func (n noting) note(s string) error                       { *n.log = append(*n.log, s); return nil }
func (n noting) Reset()                                    { n.note("reset") }
func (n noting) Logout() error                             { return n.note("logout") }
func (n noting) Mail(string, *smtp.MailOptions) error      { return n.note("mail") }
func (n noting) Rcpt(to string, _ *smtp.RcptOptions) error { return n.note("rcpt " + to) }
func (n noting) Data(io.Reader) error {
	n.note("data")
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "queued"}
}

// TestGoSMTP pins what the edge relies on in go-smtp, in the order in which it happens: one Write for each line of a
// reply and no more; nothing read between 354 and Data; a body reader that begins at the start of a line, so that ".\r\n"
// alone ends it, and that is read to its end before the answer; an answer that Data chose with 250; Reset afterwards; a
// line that is read only when the one before has been answered.
func TestGoSMTP(t *testing.T) {
	var log []string
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return noting{&log}, nil }))
	s.Domain, s.MaxLineLength, s.MaxMessageBytes = "d", 0, 100
	h := newHatch()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(h) }()
	h.pass(&lines{say: []string{
		"EHLO c\r\n", "MAIL FROM:<a@b>\r\n", "RCPT TO:<\"x y\"@b>\r\n", "DATA\r\n", ".\r\n", "RSET\r\n", "QUIT\r\n", "NOOP\r\n",
	}, log: &log})
	h.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil { // waits for the connection
		t.Error(err)
	}
	for i, want := range []string{
		"write 220 d ESMTP Service Ready\r\n",
		"read EHLO c\r\n", "write 250-Hello c\r\n", "write 250-PIPELINING\r\n", "write 250-8BITMIME\r\n",
		"write 250-ENHANCEDSTATUSCODES\r\n", "write 250-CHUNKING\r\n", "write 250 SIZE 100\r\n",
		"read MAIL FROM:<a@b>\r\n", "mail", "write 250 2.0.0 ",
		"read RCPT TO:<\"x y\"@b>\r\n", "rcpt x y@b", "write 250 2.0.0 ",
		"read DATA\r\n", "write 354 ", "data", "read .\r\n", "write 250 2.0.0 queued\r\n", "reset",
		"read RSET\r\n", "reset", "write 250 2.0.0 ",
		"read QUIT\r\n", "write 221 ", "logout", "close",
	} {
		if i >= len(log) || !strings.HasPrefix(log[i], want) {
			t.Fatalf("step %d is not %q in\n%q", i, want, log)
		}
	}
	if slices.ContainsFunc(log, func(s string) bool { return strings.HasPrefix(s, "write ") && strings.Count(s, "\n") != 1 }) {
		t.Errorf("a Write is not one line: %q", log)
	}
}
