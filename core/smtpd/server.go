// Package smtpd receives mail by SMTP and LMTP and hands each message to the queue.
//
// The protocol is go-smtp's, behind a net.Conn of ours, the edge, which gives it one command line at a time and reads
// bodies itself. It refuses what could be read in two ways (bare CR or LF, NUL, commands pipelined after STARTTLS,
// malformed BDAT), clients that are too slow, too many or too wrong, relaying that the policy does not allow, and what a
// pipeline refuses. A message is queued only when all of it has come in, and 250 is said only after the queue has
// answered. When anything fails the peer is told 4xx, or nothing at all, and nothing is left behind: a spool file has no
// name, and a connection that broke inside a body is closed before another octet of it is read.
package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/pipeline"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Config is one listener block.
type Config struct {
	Name         string // the label of the listener block
	Hostname     string // what we call ourselves
	Postmaster   string // the domain of a bare <postmaster> (RFC 5321, 4.5.1); empty: Hostname
	TLS          *tls.Config
	Implicit     bool // TLS from the first byte; otherwise STARTTLS is offered where TLS is set
	AuthRequired bool // MAIL is refused before AUTH
	InsecureAuth bool // AUTH is offered without TLS too: for loopback
	LMTP         bool // RFC 2033
	Submission   bool // RFC 6409: missing Date and Message-ID fields are added
	BareLF       string
	Hide         []string       // keywords left out of the answer to EHLO, in upper case
	Networks     []netip.Prefix // clients in these may relay, and are not counted per address
	SpoolDir     string         // for bodies over 1 MiB; empty: the system's directory for temporary files
	Limits       Limits
}

// The values of Config.BareLF: what becomes of a message with a CR or LF that is not part of a CRLF.
const (
	BareLFReject    = "reject"    // 550, and the connection is closed; the default
	BareLFNormalize = "normalize" // LF becomes CRLF, CR becomes a space
)

// Limits bound what one client, and all clients together, can take. Zero means the default.
type Limits struct {
	Connections      int           // at once; 1000
	ConnectionsPerIP int           // at once from an IPv4 address or an IPv6 /64; 50
	MessageSize      int64         // in bytes, as RFC 1870 counts them; 35 MiB
	Recipients       int           // in one transaction; 1000
	Errors           int           // 5xx replies before the client is cut off; 20
	Junk             int           // commands that lead to no message (NOOP, RSET, VRFY) before the client is cut off; 100
	AuthFailures     int           // in one connection; 3
	Received         int           // Received fields that a message may have; 50
	MemoryBudget     int64         // bytes of bodies in memory while they are received, when Deps.Memory is nil; 256 MiB
	MinRate          int64         // bytes a second that a body must keep up on average; 500
	CommandTimeout   time.Duration // for a whole command line; 5 minutes (RFC 5321, 4.5.3.2.7)
	DataTimeout      time.Duration // for the next octets of a body, and the start that MinRate gives; 3 minutes
	WriteTimeout     time.Duration // for the client to take replies; 1 minute
	HandshakeTimeout time.Duration // for TLS; 30 seconds
	AuthDelay        time.Duration // before the first failed login is answered; doubled each time; 1 second
}

// Authenticator says whether a login is right. Its errors are mail.ErrBadLogin, or trouble of ours.
type Authenticator interface {
	Authenticate(ctx context.Context, login mail.Login) (mail.Identity, error)
}

// RcptPolicy decides for each recipient whether mail for it is taken: whether it is local and the mailbox exists, or
// whether this client may relay. A positive or zero reply takes it; addresses, when there are any, take its place.
type RcptPolicy interface {
	Rcpt(ctx context.Context, s *mail.Session, trusted bool, a mail.Address) (mail.Reply, []mail.Address, error)
}

// Deps is what the server works with.
type Deps struct {
	Pipeline      func() *pipeline.Pipeline // asked at each stage, so that a reload counts at once; nil or returning nil: no filters
	Authenticator Authenticator             // nil: AUTH is not offered
	Policy        RcptPolicy                // nil: only trusted clients may send, to anybody
	// Queue stores the message; when it returns nil the message is safe. An error that is a *mail.Reply is the answer
	// to the client; any other is 451. It owns the message when it returns nil.
	Queue func(ctx context.Context, a *Accepted) (id string, err error)
	// Refuses is asked at MAIL, with the size that the client has declared or 0: a reply says why no mail is taken now. It is nil
	// where Queue alone decides.
	Refuses func(size int64) *mail.Reply
	NewID   func() string // makes the ID that the Received field tells; nil: the session's ID and a number
	Events  *event.Bus
	Memory  *Budget // shared by listeners; nil: one of Limits.MemoryBudget
}

// Accepted is a message that was received whole and that no filter refused.
type Accepted struct {
	ID       string        // what the Received field says
	Session  string        // the session's ID
	Client   *mail.Session // until the message is taken
	Envelope mail.Envelope
	Content  mail.Content // our Received field on top
	Meta     map[string]string
	Held     string // why the message is to be held; "" to send it
	Received time.Time

	release func()
}

// Release gives back what Content stands on. Content must not be read afterwards. It may be called more than once.
func (a *Accepted) Release() {
	if a.release != nil {
		a.release()
		a.release = nil
	}
}

// Spooled reports whether Content stands on a file, which is to be given back with Release, and not on memory alone.
func (a *Accepted) Spooled() bool { return a.release != nil }

// ErrClosed is what Serve returns when Shutdown was called before it.
var ErrClosed = errors.New("the server is shut down")

// Server is the SMTP server of one listener block.
type Server struct {
	cfg    Config
	deps   Deps
	memory *Budget
	smtp   *smtp.Server
	hatch  *hatch // through which go-smtp gets its connections
	start  sync.Once

	draining atomic.Bool

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	edges     map[*edge]struct{}
	perIP     map[netip.Prefix]int
	open      int           // connections admitted and not yet closed
	empty     chan struct{} // closed when draining and no connection is left
}

// New makes a server; it listens to nothing yet.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if deps.Queue == nil {
		return nil, errors.New("a queue is needed")
	}
	if cfg.AuthRequired && deps.Authenticator == nil {
		return nil, errors.New("AUTH is required but there is nobody to ask for it")
	}
	s := &Server{
		cfg: cfg, deps: deps, memory: deps.Memory, hatch: newHatch(),
		listeners: make(map[net.Listener]struct{}), edges: make(map[*edge]struct{}),
		perIP: make(map[netip.Prefix]int), empty: make(chan struct{}),
	}
	if s.memory == nil {
		s.memory = NewBudget(cfg.Limits.MemoryBudget)
	}
	s.smtp = s.protocol()
	return s, nil
}

// protocol sets go-smtp up. Its own timeouts, line limit and TLS stay off: they are the edge's.
func (s *Server) protocol() *smtp.Server {
	p := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return c.Conn().(*edge).desk, nil
	}))
	p.Domain = s.cfg.Hostname
	p.LMTP = s.cfg.LMTP
	p.MaxLineLength = 0
	p.MaxMessageBytes = s.cfg.Limits.MessageSize
	p.MaxRecipients = s.cfg.Limits.Recipients
	p.AllowInsecureAuth = true // the desk decides
	p.EnableSMTPUTF8 = true
	p.EnableDSN = true
	p.EnableREQUIRETLS = true
	p.ErrorLog = warnings{s}
	return p
}

// Sessions returns how many connections are open.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

func (c *Config) complete() error {
	if _, err := mail.ParseDomain(c.Hostname); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	if c.Implicit && c.TLS == nil {
		return errors.New("implicit TLS needs a certificate")
	}
	switch c.BareLF {
	case "":
		c.BareLF = BareLFReject
	case BareLFReject, BareLFNormalize:
	default:
		return fmt.Errorf("bare LF: %q is neither %q nor %q", c.BareLF, BareLFReject, BareLFNormalize)
	}
	if c.Postmaster == "" {
		c.Postmaster = c.Hostname
	}
	c.Limits.complete()
	return nil
}

func (l *Limits) complete() {
	or(&l.Connections, 1000)
	or(&l.ConnectionsPerIP, 50)
	or(&l.MessageSize, 35<<20)
	or(&l.Recipients, 1000)
	or(&l.Errors, 20)
	or(&l.Junk, 100)
	or(&l.AuthFailures, 3)
	or(&l.Received, 50)
	or(&l.MemoryBudget, 256<<20)
	or(&l.MinRate, 500)
	or(&l.CommandTimeout, 5*time.Minute)
	or(&l.DataTimeout, 3*time.Minute)
	or(&l.WriteTimeout, time.Minute)
	or(&l.HandshakeTimeout, 30*time.Second)
	or(&l.AuthDelay, time.Second)
}

// or gives *v the default when it says nothing.
func or[T ~int | ~int64](v *T, fallback T) {
	if *v <= 0 {
		*v = fallback
	}
}

// Shutdown takes no more connections, says 421 to clients that wait between commands, lets a message that is coming in
// come to its end, and returns when all connections are closed. When ctx ends first they are cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.draining.Swap(true)
	for l := range s.listeners {
		l.Close()
	}
	for e := range s.edges {
		e.interrupt()
	}
	if first && s.open == 0 {
		close(s.empty)
	}
	s.mu.Unlock()

	select {
	case <-s.empty:
		s.hatch.shut()
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for e := range s.edges {
		e.cut()
	}
	s.mu.Unlock()
	s.hatch.shut()
	return ctx.Err()
}

// warnings takes what go-smtp logs, which is recovered panics.
type warnings struct{ s *Server }

func (w warnings) Printf(format string, v ...any) { w.warn(fmt.Sprintf(format, v...)) }
func (w warnings) Println(v ...any)               { w.warn(fmt.Sprintln(v...)) }

func (w warnings) warn(text string) {
	w.s.deps.Events.Emit(event.Event{Name: event.Warning, Listener: w.s.cfg.Name, Reason: text})
}
