// Package deliver makes one attempt at one destination and tells what came of it, recipient by recipient.
//
// It finds the hosts of a destination, connects to the address that it checked, shows the TLS that the route wants,
// converts what the peer can't take, and sends; or it hands the message to a store plugin. Connections are kept for a
// few seconds and used again; the job that is attempted next is begun behind the content of the one before. It refuses to
// connect to ourselves, and to loopback where only the DNS says so. It never fails as a whole and leaves nothing behind: each
// recipient gets an Outcome, and trouble of ours is a TempFail.
package deliver

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/pabal-mta/mta/core/dns"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/smtpc"
	"github.com/pabal-mta/mta/core/tlspolicy"
	"github.com/pabal-mta/mta/sdk/mail"
)

// Class says what an attempt came to for one recipient.
type Class uint8

// The classes. The zero value is never returned.
const (
	Delivered Class = iota + 1 // the next hop has answered for the message
	TempFail                   // it is worth trying again
	PermFail                   // it is not
)

var classNames = [...]string{"unspecified", "delivered", "tempfail", "permfail"}

// String returns the class as it stands in logs: "delivered", "tempfail" or "permfail".
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return classNames[0]
}

// Outcome is what an attempt came to for one recipient.
type Outcome struct {
	Class   Class
	Reply   mail.Reply // the peer's or ours; always a legal one
	Host    string     // the name of the host whose reply it is; "" where the reply is our own word
	Addr    string     // address and port, or socket, of the host that it is about; "" before there was one
	Phase   string     // how far it came: resolve connect tls helo auth mail rcpt data dot store convert route
	TLS     string     // "TLS 1.3 TLS_AES_128_GCM_SHA256", or "" in the clear
	Relayed bool       // the next hop took over the duty to report delivery (RFC 3461, 5.2)
	Err     error      // the cause, for the log; a peer never sees it
	Time    time.Time  // when it was known
}

// Job is a message and the recipients of it that go to one destination.
type Job struct {
	ID       string // queue ID
	Route    string // name of the route, a key of Options.Ways
	Domain   string // the domain of the recipients; for kind mx it names the hosts
	Envelope mail.Envelope
	Content  mail.Content
	Attempt  int               // 1 for the first
	Received time.Time         // when the message was received
	Meta     map[string]string // of the queue's record, for a router; nobody changes it

	// Next, if set, returns a job of the same route, and for kind mx of the same domain, that is attempted right after this
	// one has ended, or nil. It is called once at most, when the content of this one is about to end on a connection that the
	// other can use too; its commands then go out in the same write. A job that was returned has to be attempted.
	Next func() *Job

	begun *begun // by the job before
}

// The kinds of way.
const (
	KindStore     = "store"
	KindLMTP      = "lmtp"
	KindSmarthost = "smarthost"
	KindMX        = "mx"
	KindRouter    = "router"
)

// Way is how a route delivers.
type Way struct {
	Kind          string         // one of the Kind constants
	Store         Store          // for store
	Router        Router         // for router: it says whether a message goes on as by smarthost, by mx or by another way
	Hosts         []string       // for smarthost and lmtp: "host:port" or "unix:/path", tried in order
	Port          int            // for mx: default 25
	TLS           tlspolicy.Mode // default: opportunistic; none for lmtp
	Roots         *x509.CertPool // who is trusted to sign certificates; nil: the system's
	User          string         // AUTH is done where a user is set
	Password      string
	InsecureAuth  bool // AUTH without TLS is allowed, to loopback only
	Converters    []Converter
	AllowLoopback bool       // for mx: hosts may have loopback addresses
	SourceIP      netip.Addr // connect from this address; zero: the system's choice
}

// Store puts messages into mailboxes; it is sdk.Store.
type Store interface {
	Store(ctx context.Context, d *mail.Delivery) ([]mail.Reply, error)
}

// Router says where mail for each recipient goes next; it is sdk.Router.
type Router interface {
	Route(ctx context.Context, r *mail.Routing) ([]mail.Hop, error)
}

// Converter gives a message the form that its next hop takes; it is sdk.Converter.
type Converter interface {
	Convert(ctx context.Context, c *mail.Conversion) (mail.Converted, error)
}

// Resolver finds hosts; *dns.Client is one. Its errors are *dns.Error where the DNS has answered.
type Resolver interface {
	// MX returns the hosts that take mail for a domain, the best first.
	MX(ctx context.Context, domain string) ([]dns.Host, error)
	// Addresses returns the addresses of a host.
	Addresses(ctx context.Context, host string) ([]netip.Addr, error)
}

// Limits bounds attempts. Zero values mean the defaults.
type Limits struct {
	Timeouts     smtpc.Timeouts
	Connect      time.Duration // one connection to open, default 30s
	Search       time.Duration // finding a host that talks to us, all hosts together, default 5m
	Attempt      time.Duration // everything together, default 30m
	Store        time.Duration // one call of a store, default 5m
	Convert      time.Duration // one call of a converter, default 2m
	Route        time.Duration // one call of a router, default 30s
	Addresses    int           // addresses tried in one attempt, default 10
	Recipients   int           // recipients of one transaction, default 100 (RFC 5321, 4.5.3.1.8)
	Messages     int           // messages over one connection, default 1000
	IdlePerHost  int           // idle connections kept for one destination, default 10
	Idle         int           // idle connections kept in all, default 200
	IdleTimeout  time.Duration // how long an idle connection is kept, default 5s
	RememberDown time.Duration // how long an address that does not answer is tried last, default 1m
	RememberTLS  time.Duration // how long a host whose TLS is broken is spoken to in the clear, default 1h
	RememberLoss time.Duration // how long a host that loses commands behind a message gets each by itself, default 24h
}

// Options are what a Deliverer is made of.
type Options struct {
	Hostname  string         // what we say in EHLO
	Ways      map[string]Way // by name of the route
	DNS       Resolver
	Events    *event.Bus
	Limits    Limits
	SelfAddrs []netip.AddrPort // what our own listeners are bound to: never connected to
}
