package useragent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Progress hears how many of how many bytes have gone. Nil hears nothing.
type Progress func(done, all int64)

// Submission is a login at a submission server.
type Submission struct {
	client *smtp.Client
	server string
}

// Submission connects to the account's submission server and logs in.
func (a *Account) Submission(ctx context.Context) (*Submission, error) {
	if a.Submit == "" {
		return nil, fmt.Errorf("%w to send by", ErrNoServer)
	}
	word := a.TLS
	if a.SubmitTLS != "" {
		word = a.SubmitTLS
	}
	w := chooseWay(word, a.Submit)
	client, err := a.smtpClient(ctx, w)
	if err != nil {
		return nil, err
	}
	s := &Submission{client, a.Submit}
	if err := a.smtpLogin(ctx, s); err != nil {
		_ = client.Close() // what failed before is the better word
		return nil, err
	}
	return s, nil
}

func (a *Account) smtpClient(ctx context.Context, w way) (*smtp.Client, error) {
	conn, err := a.dial(ctx, a.Submit, w)
	if err != nil {
		return nil, err
	}
	if w == startTLS {
		client, err := smtp.NewClientStartTLS(conn, a.tlsConfig(a.Submit))
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("STARTTLS with %s: %w", a.Submit, err)
		}
		client.SubmissionTimeout = 10 * time.Minute
		return client, nil
	}
	client := smtp.NewClient(conn)
	client.SubmissionTimeout = 10 * time.Minute
	if err := client.Hello(ehloName()); err != nil {
		_ = client.Close() // what failed before is the better word
		return nil, fmt.Errorf("%s: %w", a.Submit, err)
	}
	if w == asNeeded {
		_, auth := client.Extension("AUTH")
		if canTLS, _ := client.Extension("STARTTLS"); canTLS && auth == "" {
			_ = client.Close() // what failed before is the better word
			return a.smtpClient(ctx, startTLS)
		}
	}
	return client, nil
}

// ehloName is a name for EHLO that every server takes; a mail program has none of its own (RFC 5321, 4.1.4).
func ehloName() string {
	name, err := os.Hostname()
	if err != nil || !strings.Contains(name, ".") || strings.ContainsAny(name, "_ ") {
		return "localhost.localdomain"
	}
	return name
}

func (a *Account) smtpLogin(ctx context.Context, s *Submission) error {
	if ok, _ := s.client.Extension("AUTH"); !ok || a.User == "" {
		return nil // the server trusts this machine, or will say no
	}
	password, err := a.Password(ctx)
	if err != nil {
		return err
	}
	var login sasl.Client
	switch {
	case s.client.SupportsAuth("PLAIN"):
		login = sasl.NewPlainClient("", a.User, password)
	case s.client.SupportsAuth("LOGIN"):
		login = sasl.NewLoginClient(a.User, password)
	default:
		return fmt.Errorf("%s offers no login that we know", s.server)
	}
	if err := s.client.Auth(login); err != nil {
		return fmt.Errorf("login as %s at %s: %w", a.User, s.server, err)
	}
	return nil
}

// Form returns what the server takes.
func (s *Submission) Form() Form {
	ok, _ := s.client.Extension("8BITMIME")
	return Form{EightBit: ok}
}

// Send hands a message over. When one recipient is refused, nothing is sent.
func (s *Submission) Send(from string, to []string, message []byte, utf8 bool, p Progress) error {
	opts := &smtp.MailOptions{UTF8: utf8, Size: int64(len(message))}
	if s.Form().EightBit {
		opts.Body = smtp.Body8BitMIME
	}
	if max, ok := s.client.MaxMessageSize(); ok && max > 0 && len(message) > max {
		return fmt.Errorf("the message has %d bytes, and %s takes %d", len(message), s.server, max)
	}
	if can, _ := s.client.Extension("SMTPUTF8"); utf8 && !can {
		return fmt.Errorf("an address has other letters than ASCII, and %s does not take that (SMTPUTF8)", s.server)
	}
	if !s.Form().EightBit && !isASCII(message) {
		return fmt.Errorf("the message is 8-bit as it was written, and %s takes 7-bit only", s.server)
	}
	if err := s.client.Mail(from, opts); err != nil {
		return fmt.Errorf("%s refuses the sender %s: %w", s.server, from, err)
	}
	var refused []error
	for _, rcpt := range to {
		if err := s.client.Rcpt(rcpt, nil); err != nil {
			refused = append(refused, fmt.Errorf("%s refuses %s: %w", s.server, rcpt, err))
		}
	}
	if len(refused) > 0 {
		return fmt.Errorf("nothing was sent: %w", errors.Join(refused...))
	}
	w, err := s.client.Data()
	if err != nil {
		return err
	}
	if err := copyWithProgress(w, message, p); err != nil {
		return err
	}
	return w.Close()
}

// copyWithProgress writes in pieces, and tells after each.
func copyWithProgress(w io.Writer, b []byte, p Progress) error {
	const piece = 64 << 10
	all := int64(len(b))
	for len(b) > 0 {
		n, err := w.Write(b[:min(piece, len(b))])
		if err != nil {
			return err
		}
		b = b[n:]
		if p != nil {
			p(all-int64(len(b)), all)
		}
	}
	return nil
}

// Close takes leave.
func (s *Submission) Close() error {
	err := s.client.Quit()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
