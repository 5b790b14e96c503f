package smtpd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// rig is a server on connections in memory, with virtual time, and the messages that it queued. Its methods are called
// within a synctest bubble.
type rig struct {
	t      testing.TB
	server *Server
	conns  chan net.Conn
	bus    *event.Bus

	mu     sync.Mutex
	queued []message
	events []event.Event
	fail   error // what the queue answers
	budget int64 // at the start
}

// message is what was queued.
type message struct {
	Accepted
	text string // the content below our Received field
	top  string // our fields
}

func (r *rig) queue(_ context.Context, a *Accepted) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return "", r.fail
	}
	text, err := io.ReadAll(mail.Reader(a.Content))
	if err != nil {
		r.t.Errorf("reading the content: %v", err)
	}
	if int64(len(text)) != a.Content.Size() {
		r.t.Errorf("content of %d bytes says that it has %d", len(text), a.Content.Size())
	}
	m := message{Accepted: *a, text: string(text)}
	for at := 0; ; { // the Received field with its folds
		i := strings.Index(m.text[at:], "\r\n") + 2
		at += i
		if at == len(m.text) || m.text[at] != '\t' {
			m.top, m.text = m.text[:at], m.text[at:]
			break
		}
	}
	r.queued = append(r.queued, m)
	a.Release()
	return "Q" + strconv.Itoa(len(r.queued)), nil
}

// take returns what was queued since it was last asked.
func (r *rig) take() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queued
	r.queued = nil
	return q
}

func (r *rig) named(n event.Name) []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []event.Event
	for _, e := range r.events {
		if e.Name == n {
			list = append(list, e)
		}
	}
	return list
}

// policy takes mail for ours.example; "full", "gone" and "broken" there are what they say, "team" is an alias.
type policy struct{}

func (policy) Rcpt(_ context.Context, _ *mail.Session, trusted bool, a mail.Address) (mail.Reply, []mail.Address, error) {
	if a.Domain() != "ours.example" && a.Domain() != "mx.ours.example" {
		if trusted {
			return mail.Reply{}, nil, nil
		}
		return mail.NewReply(550, "5.7.1", "relaying denied"), nil, nil
	}
	switch a.Local() {
	case "gone":
		return mail.NewReply(550, "5.1.1", "no such mailbox"), nil, nil
	case "full":
		return mail.NewReply(452, "4.2.2", "mailbox full"), nil, nil
	case "broken":
		return mail.Reply{}, nil, errors.New("directory at /secret/path is down")
	case "panic":
		panic("policy")
	case "team":
		return mail.Reply{}, []mail.Address{mail.MustParseAddress("ann@ours.example"), mail.MustParseAddress("bob@ours.example")}, nil
	}
	return mail.NewReply(250, "2.1.5", "ok"), nil, nil
}

// users knows ann with the password "right"; "down" is a broken backend.
type users struct{}

func (users) Authenticate(_ context.Context, l mail.Login) (mail.Identity, error) {
	switch {
	case l.User == "down":
		return mail.Identity{}, errors.New("ldap://secret refused")
	case l.User == "ann@ours.example" && l.Password == "right":
		return mail.Identity{User: l.User, Addresses: []mail.Address{mail.MustParseAddress("sales@ours.example")}}, nil
	}
	return mail.Identity{}, mail.ErrBadLogin
}

// newRig starts a server. Change may change its configuration first.
func newRig(t testing.TB, change func(*Config, *Deps)) *rig {
	t.Helper()
	r := &rig{t: t, conns: make(chan net.Conn), bus: &event.Bus{}}
	r.bus.Listen(func(e event.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	})
	cfg := Config{Name: "test", Hostname: "mx.ours.example", Postmaster: "ours.example", SpoolDir: t.TempDir()}
	deps := Deps{Policy: policy{}, Queue: r.queue, Events: r.bus}
	if change != nil {
		change(&cfg, &deps)
	}
	s, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	r.server, r.budget = s, s.memory.left.Load()
	go func() {
		if err := s.Serve(&pipeListener{conns: r.conns, done: make(chan struct{})}); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	return r
}

// stop ends the server and checks that nothing of the budget is missing.
func (r *rig) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		r.t.Errorf("Shutdown: %v", err)
	}
	if left := r.server.memory.left.Load(); left != r.budget {
		r.t.Errorf("the memory budget ends at %d of %d", left, r.budget)
	}
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// addressed is a pipe that has addresses.
type addressed struct {
	net.Conn
	remote netip.AddrPort
}

func (c addressed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }
func (c addressed) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.25:25"))
}

// client is the other end of a connection. What the server says is gathered as it comes.
type client struct {
	r    *rig
	conn net.Conn

	mu     sync.Mutex
	heard  strings.Builder
	closed bool
}

func (r *rig) dial() *client { return r.dialFrom("198.51.100.7:40000") }

func (r *rig) dialFrom(remote string) *client {
	r.t.Helper()
	here, there := net.Pipe()
	select {
	case r.conns <- addressed{there, netip.MustParseAddrPort(remote)}:
	case <-time.After(time.Minute):
		r.t.Fatal("nobody accepts")
	}
	c := &client{r: r, conn: here}
	go c.listen(here)
	return c
}

func (c *client) listen(conn net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		c.mu.Lock()
		c.heard.Write(buf[:n])
		c.closed = c.closed || err != nil
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// hear waits until nothing moves any more and returns what the server has said since it was last asked.
func (c *client) hear() string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.heard.String()
	c.heard.Reset()
	return s
}

// say sends octets in one write and returns the answer.
func (c *client) say(s string) string {
	_, _ = c.conn.Write([]byte(s)) // a server that has hung up is seen in the answer
	return c.hear()
}

func (c *client) isClosed() bool {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// expect says a line and checks how the answer begins.
func (c *client) expect(line, want string) {
	c.r.t.Helper()
	if got := c.say(line + "\r\n"); !strings.HasPrefix(got, want) {
		c.r.t.Fatalf("%.80q was answered\n%swant %s", line, got, want)
	}
}

// begin brings a connection to where DATA was answered 354.
func (c *client) begin() {
	c.r.t.Helper()
	c.hear()
	c.expect("EHLO client.example", "250-mx.ours.example")
	c.expect("MAIL FROM:<s@client.example>", "250 2.1.0")
	c.expect("RCPT TO:<ann@ours.example>", "250 2.1.5")
	c.expect("DATA", "354")
}

// codes is the reply codes in what the server said, one for each reply.
func codes(said string) string {
	var list []string
	for line := range strings.Lines(said) {
		if len(line) > 3 && line[3] == ' ' {
			list = append(list, line[:3])
		}
	}
	return strings.Join(list, " ")
}

// in runs a test in a bubble with a rig.
func in(t *testing.T, change func(*Config, *Deps), test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, change)
		defer r.stop()
		test(t, r)
	})
}

var certificate = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.ours.example"}, NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})
