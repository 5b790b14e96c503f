package smtpc

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/pabal-mta/mta/sdk/mail"
)

// errInjected says that somebody wrote into the stream before TLS was on (CVE-2021-38371 and its kin).
var errInjected = errors.New("the peer sent bytes between its answer to STARTTLS and the handshake")

// StartTLS says STARTTLS, does the handshake and says EHLO again (RFC 3207). A refusal by reply leaves the connection as
// it was; after any other error it is useless.
func (c *Conn) StartTLS(ctx context.Context, cfg *tls.Config) error {
	if err := c.startTLS(ctx, cfg); err != nil {
		return err
	}
	return c.Hello(ctx)
}

func (c *Conn) startTLS(ctx context.Context, cfg *tls.Config) error {
	defer c.watch(ctx)()
	r, err := c.ask(ctx, PhaseTLS, "STARTTLS", nil)
	if err != nil {
		return err
	}
	if r.Code != 220 {
		return c.refused(PhaseTLS, r)
	}
	if c.r.Buffered() > 0 {
		return c.failed(PhaseTLS, errInjected)
	}
	if err := c.arm(ctx, c.o.Timeouts.TLS); err != nil {
		return c.failed(PhaseTLS, err)
	}
	secure := tls.Client(c.conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return c.failed(PhaseTLS, c.explain(ctx, err, c.o.Timeouts.TLS))
	}
	state := secure.ConnectionState()
	c.conn, c.tls = secure, &state
	c.r.Reset(secure)
	return nil
}

// Auth logs in by PLAIN or LOGIN (RFC 4954). Without TLS it refuses, unless insecure is set and the peer is on loopback.
func (c *Conn) Auth(ctx context.Context, user, password string, insecure bool) error {
	defer c.watch(ctx)()
	if c.tls == nil && (!insecure || !onLoopback(c.conn.RemoteAddr())) {
		return &Error{Phase: PhaseAuth, Err: errors.New("the connection has no TLS: the password is not sent")}
	}
	switch {
	case slices.Contains(c.caps.Auth, "PLAIN"):
		return c.login(ctx, "AUTH PLAIN "+encode("\x00"+user+"\x00"+password))
	case slices.Contains(c.caps.Auth, "LOGIN"):
		return c.login(ctx, "AUTH LOGIN", encode(user), encode(password))
	}
	return &Error{Phase: PhaseAuth, Err: fmt.Errorf("the peer offers neither AUTH PLAIN nor AUTH LOGIN, only %q", c.caps.Auth)}
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// login says the lines, each after the first as the answer to a 334.
func (c *Conn) login(ctx context.Context, lines ...string) error {
	var r mail.Reply
	for i, line := range lines {
		var err error
		if r, err = c.ask(ctx, PhaseAuth, line, nil); err != nil {
			return err
		}
		if r.Code != 334 || i == len(lines)-1 {
			break
		}
	}
	if !r.Positive() {
		return c.refused(PhaseAuth, r)
	}
	return nil
}

func onLoopback(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}
