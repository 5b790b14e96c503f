// Package smtpc is an SMTP (RFC 5321) or LMTP (RFC 2033) client connection: pipelined, bounded, safe against its peer.
//
// It sends MAIL, all RCPT and DATA in one write where the peer takes PIPELINING, and the content with its final dot in
// as few writes as there are 64 KiB blocks; the last one holds the MAIL, RCPT and DATA of the next message, where there is
// one. It refuses replies that are endless or no replies, bytes that come between
// STARTTLS and the handshake, a password in the clear, and content that would break the protocol. When it fails, the
// connection is of no further use (Usable reports false), and the recipients that the peer did not answer for have no
// reply in the results: whether the peer took the message is then not known.
package smtpc

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// The phases, as they stand in errors and results.
const (
	PhaseConnect = "connect" // up to and with the greeting
	PhaseHelo    = "helo"
	PhaseTLS     = "tls"
	PhaseAuth    = "auth"
	PhaseMail    = "mail"
	PhaseRcpt    = "rcpt"
	PhaseData    = "data" // DATA, and the content up to its final dot
	PhaseDot     = "dot"  // the answer to the whole message
)

// Error is why a connection or a step on it failed.
type Error struct {
	Phase      string
	Reply      mail.Reply // what the peer said, if it refused; else zero
	Unanswered bool       // the peer had answered nothing in this transaction, and had most likely closed before; or refused to have it begun
	Err        error      // nil where Reply says it all
}

// Error returns the phase and the cause on one line.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Phase + ": " + e.Reply.String()
	}
	return e.Phase + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// NotBegunError says that a message could not be begun behind another: the peer refused its MAIL. It is no word on the message, which
// is to be sent by itself.
type NotBegunError struct{ Reply mail.Reply }

// Error returns the refusal.
func (e *NotBegunError) Error() string { return e.Reply.String() }

// Options are what a connection is made of.
type Options struct {
	Hostname string // what we say in EHLO
	LMTP     bool
	Timeouts Timeouts
}

// Conn is a client connection. It is used by one goroutine at a time.
type Conn struct {
	conn    net.Conn // TLS, once that is on
	r       *bufio.Reader
	o       Options
	caps    Caps
	tls     *tls.ConnectionState
	out     []byte // commands that are not sent yet
	body    []byte // a block of content, stuffed
	broken  bool
	rset    bool         // a transaction is open that has to be reset before the next
	started bool         // the peer has answered something in this transaction
	prompt  bool         // the last final dot was answered soon
	begun   *Transaction // whose commands are on their way, and which has to be the next one
}

// New makes a client of an open connection. It says nothing yet.
func New(conn net.Conn, o Options) *Conn {
	o.Timeouts = o.Timeouts.withDefaults()
	return &Conn{conn: conn, r: bufio.NewReaderSize(conn, 4096), o: o}
}

// Caps returns what the peer offered in its last answer to EHLO.
func (c *Conn) Caps() Caps { return c.caps }

// TLS returns the state of TLS, nil in the clear.
func (c *Conn) TLS() *tls.ConnectionState { return c.tls }

// Usable reports whether another transaction can be done over the connection.
func (c *Conn) Usable() bool { return !c.broken }

// Close closes the connection without a word.
func (c *Conn) Close() {
	c.broken = true
	_ = c.conn.Close()
}

// Greet waits for the greeting.
func (c *Conn) Greet(ctx context.Context) error {
	defer c.watch(ctx)()
	r, err := c.read(ctx, PhaseConnect, c.o.Timeouts.Greeting, nil)
	if err != nil {
		return err
	}
	if !r.Positive() {
		return c.refused(PhaseConnect, r)
	}
	return nil
}

// Hello says EHLO (or LHLO), and HELO to a peer that does not know EHLO (RFC 5321, 3.2 and 4.1.4).
func (c *Conn) Hello(ctx context.Context) error {
	defer c.watch(ctx)()
	if h := c.o.Hostname; h == "" || strings.ContainsFunc(h, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return c.failed(PhaseHelo, fmt.Errorf("our host name %q can't be said in EHLO", h))
	}
	verb := "EHLO"
	if c.o.LMTP {
		verb = "LHLO"
	}
	// RFC 3207, 4.2: what was offered before TLS is forgotten.
	c.caps = Caps{}
	first := true
	r, err := c.ask(ctx, PhaseHelo, verb+" "+c.o.Hostname, func(line []byte) {
		if !first {
			c.caps.add(line)
		}
		first = false
	})
	if err == nil && r.Permanent() && !c.o.LMTP {
		c.caps = Caps{}
		r, err = c.ask(ctx, PhaseHelo, "HELO "+c.o.Hostname, nil)
	}
	if err != nil {
		return err
	}
	if !r.Positive() {
		c.caps = Caps{}
		return c.refused(PhaseHelo, r)
	}
	return nil
}

// Quit says QUIT, waits a moment for the answer and closes (RFC 5321, 4.1.1.10).
func (c *Conn) Quit() {
	if !c.broken {
		// Whatever the answer is, the connection is closed after it.
		ctx, stop := context.WithTimeout(context.Background(), c.o.Timeouts.Quit)
		_, _ = c.ask(ctx, "quit", "QUIT", nil)
		stop()
	}
	c.Close()
}

// Alive reports whether an idle connection can be used: the peer has neither closed it nor said anything unasked.
func (c *Conn) Alive() bool {
	if c.broken || c.r.Buffered() > 0 {
		return false
	}
	// A read that has a millisecond to find something tells it on every kind of connection.
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.r.Peek(1)
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// ask sends one command and waits for its reply.
func (c *Conn) ask(ctx context.Context, phase, command string, each func([]byte)) (mail.Reply, error) {
	c.out = append(append(c.out, command...), "\r\n"...)
	if err := c.flush(ctx, phase); err != nil {
		return mail.Reply{}, err
	}
	return c.read(ctx, phase, c.o.Timeouts.Command, each)
}

// flush sends the commands that are waiting.
func (c *Conn) flush(ctx context.Context, phase string) error {
	b := c.out
	c.out = c.out[:0]
	return c.write(ctx, phase, b)
}

func (c *Conn) write(ctx context.Context, phase string, b []byte) error {
	if err := c.arm(ctx, c.o.Timeouts.Block); err != nil {
		return c.failed(phase, err)
	}
	if _, err := c.conn.Write(b); err != nil {
		return c.failed(phase, c.explain(ctx, err, c.o.Timeouts.Block))
	}
	return nil
}

// read waits for one reply; the time is for the whole of it, so that a peer can't make it last by single bytes.
func (c *Conn) read(ctx context.Context, phase string, wait time.Duration, each func([]byte)) (mail.Reply, error) {
	if err := c.arm(ctx, wait); err != nil {
		return mail.Reply{}, c.failed(phase, err)
	}
	r, err := readReply(c.r, each)
	if err != nil {
		return mail.Reply{}, c.failed(phase, c.explain(ctx, err, wait))
	}
	c.started = true
	if r.Code == 421 {
		// RFC 5321, 3.8: the peer closes after it.
		c.broken = true
	}
	return r, nil
}

// arm sets the deadline for what is done next. Watch may have set it to the past already, so the context is asked after.
func (c *Conn) arm(ctx context.Context, wait time.Duration) error {
	at := time.Now().Add(wait)
	if d, ok := ctx.Deadline(); ok && d.Before(at) {
		at = d
	}
	// It fails on a closed connection only, where what is done next fails as well, or finds what was read before.
	_ = c.conn.SetDeadline(at)
	return ctx.Err()
}

// watch breaks off what is being waited for when the context ends.
func (c *Conn) watch(ctx context.Context) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	off := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if !off() {
			c.broken = true // the deadline may still be set while somebody else uses the connection
		}
	}
}

// explain gives a timeout its length, and a context that ended its own words.
func (c *Conn) explain(ctx context.Context, err error, wait time.Duration) error {
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		<-ctx.Done() // the connection's timer may be the faster one
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return &TimeoutError{Wait: wait}
	}
	return err
}

// TimeoutError says that the peer was silent for too long.
type TimeoutError struct{ Wait time.Duration }

// Error returns it in words.
func (e *TimeoutError) Error() string { return fmt.Sprintf("no answer within %s", e.Wait) }

// Timeout reports true, as net.Error has it.
func (e *TimeoutError) Timeout() bool { return true }

// failed marks the connection as useless and says why.
func (c *Conn) failed(phase string, err error) *Error {
	c.broken = true
	return &Error{Phase: phase, Unanswered: !c.started, Err: err}
}

// refused says that the peer refused a step; the connection still stands.
func (c *Conn) refused(phase string, r mail.Reply) *Error {
	if r.Code < 400 {
		return c.senseless(phase, r)
	}
	return &Error{Phase: phase, Reply: r}
}

// senseless says that the peer gave an answer of a class that the step does not have.
func (c *Conn) senseless(phase string, r mail.Reply) *Error {
	return c.failed(phase, fmt.Errorf("the peer answered with %q, which has no meaning here", r.String()))
}
