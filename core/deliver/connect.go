package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pabal-mta/mta/core/smtpc"
	"github.com/pabal-mta/mta/core/tlspolicy"
	"github.com/pabal-mta/mta/sdk/mail"
)

// line is an open connection to a host.
type line struct {
	conn     *smtpc.Conn
	key      string // the set of hosts that it belongs to
	host     host
	addr     string
	tls      string
	verified bool // the certificate is proven
	used     int  // messages that went over it
	since    time.Time
}

func (l *line) where() string { return where(l.host, l.addr) }

// target tells a converter what the peer takes.
func (l *line) target() mail.Target {
	c := l.conn.Caps()
	return mail.Target{EightBit: c.EightBit, Binary: c.Binary && c.Chunking, UTF8: c.UTF8}
}

// errNoTLS says that a host does not show the TLS that it has to.
var errNoTLS = errors.New("it offers no STARTTLS, and nothing is sent to it in the clear")

// connect opens a connection that is ready for mail. Where TLS is a wish only, a host whose TLS is broken is called again
// and spoken to in the clear (RFC 7435, 3).
func (a *attempt) connect(ctx context.Context, c candidate) (*line, error) {
	p := tlspolicy.For(a.way.mode(), c.host.name, a.way.Roots, a.requireTLS())
	tried := p.Wanted() && (p.Required() || !a.memory.has(noTLS, c.at.String()))
	l, err := a.open(ctx, c, p, tried)
	var e *smtpc.Error
	if err == nil || !tried || p.Required() || ctx.Err() != nil || !errors.As(err, &e) || e.Phase != smtpc.PhaseTLS {
		return l, err
	}
	a.warn(c.host, c.at.String(), "TLS with the host does not work; mail to it goes in the clear", err)
	a.memory.add(noTLS, c.at.String(), a.o.Limits.RememberTLS)
	return a.open(ctx, c, p, false)
}

// open connects, says EHLO, starts TLS if it is to be tried, and logs in.
func (a *attempt) open(ctx context.Context, c candidate, p tlspolicy.Policy, withTLS bool) (_ *line, err error) {
	conn, err := a.dial(ctx, c.at)
	if err != nil {
		return nil, err
	}
	l := &line{host: c.host, addr: c.at.String(),
		conn: smtpc.New(conn, smtpc.Options{Hostname: a.o.Hostname, LMTP: a.way.Kind == KindLMTP, Timeouts: a.o.Limits.Timeouts})}
	defer func() {
		if err != nil {
			l.conn.Quit()
		}
	}()
	if err := l.conn.Greet(ctx); err != nil {
		return nil, err
	}
	if err := l.conn.Hello(ctx); err != nil {
		return nil, err
	}
	if withTLS {
		if err := a.secure(ctx, l, p); err != nil {
			return nil, err
		}
	}
	if a.way.User != "" {
		if err := l.conn.Auth(ctx, a.way.User, a.way.Password, a.way.InsecureAuth); err != nil {
			a.warn(c.host, l.addr, "the host does not let us log in", err)
			return nil, err
		}
	}
	return l, nil
}

// secure starts TLS, or says why there is none where it has to be.
func (a *attempt) secure(ctx context.Context, l *line, p tlspolicy.Policy) error {
	if !l.conn.Caps().StartTLS {
		if p.Required() {
			return &smtpc.Error{Phase: smtpc.PhaseTLS, Err: errNoTLS}
		}
		return nil
	}
	err := l.conn.StartTLS(ctx, p.Config(a.sessions))
	var e *smtpc.Error
	if errors.As(err, &e) && e.Reply.Code != 0 && l.conn.Usable() && l.conn.TLS() == nil && !p.Required() {
		return nil // it was refused in good order: the connection goes on in the clear
	}
	if err != nil {
		return err
	}
	state := l.conn.TLS()
	l.tls, l.verified = tls.VersionName(state.Version)+" "+tls.CipherSuiteName(state.CipherSuite), p.Verified()
	return nil
}

// dial opens a connection to the address that was checked, never to a name.
func (a *attempt) dial(ctx context.Context, at endpoint) (net.Conn, error) {
	wait := a.o.Limits.Connect
	dialer := net.Dialer{Timeout: wait}
	network := "unix"
	if at.socket == "" {
		network = "tcp"
		if ip := a.way.SourceIP; ip.IsValid() {
			dialer.LocalAddr = &net.TCPAddr{IP: ip.AsSlice()}
		}
	}
	conn, err := dialer.DialContext(ctx, network, at.String())
	var timeout net.Error
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("connecting: %w", context.Cause(ctx))
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, &smtpc.TimeoutError{Wait: wait}
	}
	return nil, err
}
