package smtpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Sizes of the edge's buffers, in bytes.
const (
	smallBuffer = 4 << 10  // kept by every connection
	largeBuffer = 64 << 10 // lent to one that receives a body
	maxReplies  = 16 << 10 // replies gathered before they are flushed without being waited for
)

// Limits of lines, in octets. RFC 5321, 4.5.3.1.4 gives a command 512, and each extension adds to it: MAIL and RCPT with
// all that we offer may have 1,812 (RFC 3461, 10). AUTH and its responses may have 12,288 (RFC 4954, 4.5.3).
const (
	maxCommand = 2048
	maxAuth    = 12288 + len("AUTH PLAIN \r\n")
)

// What ends a connection's input.
var (
	errLineTooLong = errors.New("a line is too long")
	errDraining    = errors.New("shutting down")
	errEndless     = errors.New("a refused body does not end")
)

var largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}

// edge is the net.Conn that go-smtp is given in place of the client's. It hands go-smtp one command line per Read, so
// that go-smtp never buffers octets of a body; it gathers replies and sends them when it must wait for the client, which
// is what RFC 2920 wants; bodies are read from it directly. go-smtp's reads and writes, and the desk's, come from one
// goroutine; only interrupt and cut are called from others.
type edge struct {
	server   *Server
	desk     *desk
	raw      net.Conn
	network  netip.Prefix // what the client is counted by
	admitted bool

	mu      sync.Mutex // guards waiting, closed, and the read deadline while waiting
	waiting bool       // for a command line: nothing is lost when it is interrupted
	closed  bool

	conn     net.Conn // raw, or TLS over it
	in       []byte
	lent     *[]byte // the large buffer, while in is one
	small    []byte  // what in is otherwise
	from, to int     // in[from:to] has not been used yet
	out      []byte  // replies not yet sent
	part     []byte  // a reply line that go-smtp has not finished

	hand      []byte // what go-smtp reads next
	verb      string // the command that go-smtp is answering
	mute      bool   // the reply to a command of our own making is not the client's business
	challenge bool   // the next line is a response of AUTH
	hangup    bool   // nothing more is read from the client
	failed    bool   // writing to the client failed
}

func newEdge(s *Server, conn net.Conn) *edge {
	e := &edge{server: s, raw: conn, conn: conn}
	e.desk = newDesk(s, e)
	e.network = s.networkOf(e.desk.info.Remote.Addr())
	return e
}

// Read hands go-smtp the next command line. Its only error is io.EOF: whatever went wrong, the client has been told.
func (e *edge) Read(b []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.server.panicked(e, p)
			e.sayGoodbye("4.3.0", "internal error")
			n, err = 0, io.EOF
		}
	}()
	for len(e.hand) == 0 {
		if e.hangup {
			return 0, io.EOF
		}
		e.hand = e.next()
	}
	n = copy(b, e.hand)
	e.hand = e.hand[n:]
	return n, nil
}

// next reads a line and returns what go-smtp is to see of it: nothing, when the desk has dealt with it.
func (e *edge) next() []byte {
	line, err := e.readLine()
	if err != nil {
		e.lost(err)
		return nil
	}
	if e.challenge {
		e.challenge = false
		return line
	}
	return e.desk.command(line)
}

// lost says why no more commands are read.
func (e *edge) lost(err error) {
	e.hangup = true
	var timeout net.Error
	switch {
	case errors.Is(err, errDraining):
		e.sayGoodbye("4.3.2", "shutting down")
	case errors.Is(err, errLineTooLong):
		e.say(mail.NewReply(500, "5.5.2", "line too long"))
	case errors.As(err, &timeout) && timeout.Timeout():
		e.sayGoodbye("4.4.2", "timeout")
	}
	e.desk.ended(err)
}

// readLine returns the next line with its end. It is good until the next read.
func (e *edge) readLine() ([]byte, error) {
	deadline := time.Time{}
	for seen := 0; ; {
		unread := e.in[e.from:e.to]
		if i := bytes.IndexByte(unread[seen:], '\n'); i >= 0 {
			if seen+i+1 > e.lineLimit(unread) {
				return nil, errLineTooLong
			}
			e.from += seen + i + 1
			return unread[:seen+i+1], nil
		}
		if seen = len(unread); seen >= e.lineLimit(unread) {
			return nil, errLineTooLong
		}
		if deadline.IsZero() { // one deadline for the line, however slowly its octets drip
			deadline = time.Now().Add(e.server.cfg.Limits.CommandTimeout)
		}
		if err := e.await(deadline); err != nil {
			return nil, err
		}
	}
}

func (e *edge) lineLimit(line []byte) int {
	if e.challenge || len(line) >= 5 && bytes.EqualFold(line[:5], []byte("AUTH ")) {
		return maxAuth
	}
	return maxCommand
}

// await reads more of a command line. Shutdown may interrupt it.
func (e *edge) await(deadline time.Time) error {
	if err := e.flush(); err != nil {
		return err
	}
	e.room()
	e.mu.Lock()
	e.waiting = true
	err := e.conn.SetReadDeadline(deadline)
	e.mu.Unlock()
	if e.server.draining.Load() {
		return errDraining
	}
	n := 0
	if err == nil {
		n, err = e.conn.Read(e.in[e.to:])
	}
	e.mu.Lock()
	e.waiting = false
	e.mu.Unlock()
	if n > 0 {
		e.to += n
		return nil
	}
	if e.server.draining.Load() {
		return errDraining
	}
	return orEOF(err)
}

// fill reads more of a body.
func (e *edge) fill(p *pace) error {
	if err := e.flush(); err != nil {
		return err
	}
	e.room()
	if err := e.conn.SetReadDeadline(p.deadline(time.Now())); err != nil {
		return err
	}
	n, err := e.conn.Read(e.in[e.to:])
	if n > 0 {
		e.to += n
		p.received += int64(n)
		return nil
	}
	return orEOF(err)
}

func orEOF(err error) error {
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// room makes place for at least one more octet.
func (e *edge) room() {
	switch {
	case e.from == e.to:
		e.from, e.to = 0, 0
	case e.to == len(e.in):
		e.to = copy(e.in, e.in[e.from:e.to])
		e.from = 0
	}
	if e.to == len(e.in) {
		bigger := make([]byte, max(smallBuffer, 2*len(e.in)))
		copy(bigger, e.in)
		e.in = bigger
	}
}

// widen lends the connection a large buffer for a body; narrow takes it back.
func (e *edge) widen() {
	if e.lent != nil || e.to-e.from > largeBuffer/2 {
		return
	}
	e.lent, e.small = largeBuffers.Get().(*[]byte), e.in
	e.from, e.to = 0, copy(*e.lent, e.in[e.from:e.to])
	e.in = *e.lent
}

func (e *edge) narrow() {
	if e.lent == nil {
		return
	}
	rest := e.in[e.from:e.to]
	if e.in = e.small; len(rest) > len(e.in) {
		e.in = make([]byte, len(rest))
	}
	e.from, e.to = 0, copy(e.in, rest)
	largeBuffers.Put(e.lent)
	e.lent, e.small = nil, nil
}

// pace gives the deadlines of a body: so long for the next octet, and so long for all, which grows with what has come.
type pace struct {
	limits   *Limits
	start    time.Time
	received int64
	last     time.Time // when set, nothing is waited for after it
}

func (e *edge) newPace() *pace { return &pace{limits: &e.server.cfg.Limits, start: time.Now()} }

func (p *pace) deadline(now time.Time) time.Time {
	next := now.Add(p.limits.DataTimeout)
	earned := time.Duration(p.received/p.limits.MinRate) * time.Second
	if all := p.start.Add(p.limits.DataTimeout + earned); all.Before(next) {
		next = all
	}
	if !p.last.IsZero() && p.last.Before(next) {
		next = p.last
	}
	return next
}

// hurry leaves a client whose body is refused already a moment to come to its end.
func (p *pace) hurry(d time.Duration) {
	if p.last.IsZero() {
		p.last = time.Now().Add(d)
	}
}

// flush sends the gathered replies.
func (e *edge) flush() error {
	if len(e.out) == 0 {
		return nil
	}
	if e.failed {
		return net.ErrClosed
	}
	err := e.conn.SetWriteDeadline(time.Now().Add(e.server.cfg.Limits.WriteTimeout))
	if err == nil {
		_, err = e.conn.Write(e.out)
	}
	e.out = e.out[:0]
	if err != nil {
		e.failed, e.hangup = true, true
	}
	return err
}

// handshake puts TLS over the connection.
func (e *edge) handshake() error {
	ctx, cancel := context.WithTimeout(e.desk.ctx, e.server.cfg.Limits.HandshakeTimeout)
	defer cancel()
	c := tls.Server(e.raw, e.server.cfg.TLS)
	if err := c.HandshakeContext(ctx); err != nil {
		e.hangup, e.failed = true, true
		e.desk.refused("TLS handshake", "", err)
		return err
	}
	e.mu.Lock()
	e.conn = c
	e.mu.Unlock()
	e.desk.secured(c.ConnectionState())
	return nil
}

// interrupt wakes a connection that waits for a command, so that it sees the server draining.
func (e *edge) interrupt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting {
		_ = e.conn.SetReadDeadline(time.Unix(1, 0)) // a connection that is gone needs no waking
	}
}

// cut ends the connection whatever it is doing.
func (e *edge) cut() {
	e.desk.cancel()
	e.raw.Close()
}

// Close makes edge a net.Conn.
func (e *edge) Close() error {
	e.end()
	return nil
}

// end sends what is left to send and closes the connection. It may be called more than once.
func (e *edge) end() {
	e.mu.Lock()
	done := e.closed
	e.closed = true
	e.mu.Unlock()
	if done {
		return
	}
	e.hangup = true
	if err := e.flush(); err == nil && !e.failed && e.admitted {
		e.linger()
	}
	e.desk.cancel()
	e.conn.Close()
	e.raw.Close() // TLS may have stopped before it came to that
	e.narrow()
	e.desk.closed()
	if e.admitted {
		e.server.left(e)
	}
}

// linger lets the client read our last words: closing a TCP connection with unread octets in it makes the kernel throw
// away what the client has not read yet.
func (e *edge) linger() {
	c, ok := e.raw.(interface{ CloseWrite() error })
	if !ok || !e.desk.abrupt || c.CloseWrite() != nil {
		return
	}
	if e.raw.SetReadDeadline(time.Now().Add(time.Second)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, e.raw, 1<<20) // whatever comes is of no interest
}

// refused tells of a reply of 4xx or 5xx, or of a connection that ended for a reason.
func (d *desk) refused(stage, reply string, err error) {
	d.server.deps.Events.Emit(event.Event{
		Name: event.SessionRefused, Session: d.info.ID, Listener: d.info.Listener, Remote: d.remote(),
		User: d.info.User, From: d.info.From.String(), Stage: stage, Reply: reply, Err: err,
	})
}

// The rest of net.Conn. go-smtp's deadlines are off, and the edge has its own.

// LocalAddr makes edge a net.Conn.
func (e *edge) LocalAddr() net.Addr { return e.raw.LocalAddr() }

// RemoteAddr makes edge a net.Conn.
func (e *edge) RemoteAddr() net.Addr { return e.raw.RemoteAddr() }

// SetDeadline makes edge a net.Conn.
func (e *edge) SetDeadline(time.Time) error { return nil }

// SetReadDeadline makes edge a net.Conn.
func (e *edge) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline makes edge a net.Conn.
func (e *edge) SetWriteDeadline(time.Time) error { return nil }
