// Package dns finds the hosts of mail domains: MX (RFC 5321, 5.1), addresses, TXT and TLSA, with the DNSSEC bit kept.
//
// It asks the servers of /etc/resolv.conf or those it is given, by UDP and where an answer is cut by TCP, and keeps
// answers for as long as they say. It refuses answers to other questions, null MX, and exchangers that are no host names.
// When it fails, the *Error says whether the domain is at fault or the asking: only the first is worth a bounce.
package dns

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Host is a mail exchanger.
type Host struct {
	Name string // lower case, no dot at its end
	Pref uint16 // the lower the better (RFC 5321, 5.1)
}

// Kind says what an Error is about.
type Kind uint8

// The kinds of error.
const (
	Temporary Kind = iota + 1 // no server could tell: timeout, SERVFAIL, refused
	NoDomain                  // the name does not exist (NXDOMAIN)
	NoRecord                  // the name exists and has no such record
	NullMX                    // the domain says that it takes no mail (RFC 7505)
	BadMX                     // the domain has MX records, and none names a host
)

// Error is why a name was not found.
type Error struct {
	Kind Kind
	Name string
	Type string // "MX", "A", …
	Err  error  // the cause of a temporary error
}

// Error returns it in words.
func (e *Error) Error() string {
	switch e.Kind {
	case NoDomain:
		return fmt.Sprintf("the domain %s does not exist", e.Name)
	case NoRecord:
		return fmt.Sprintf("%s has no %s record", e.Name, e.Type)
	case NullMX:
		return fmt.Sprintf("the domain %s takes no mail (null MX)", e.Name)
	case BadMX:
		return fmt.Sprintf("the MX records of %s name no host", e.Name)
	default:
		return fmt.Sprintf("looking up %s %s: %v", e.Type, e.Name, e.Err)
	}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Options are what a Client is made of. Zero values mean the defaults.
type Options struct {
	Servers   []string      // "host" or "host:port", addresses only; default: those of ResolvConf
	Resolv    string        // default /etc/resolv.conf
	Hosts     string        // default /etc/hosts
	Timeout   time.Duration // one question to one server, default 5s
	Attempts  int           // rounds over the servers, default 2
	CacheSize int           // answers kept, default 20000
	MaxTTL    time.Duration // default 1h
}

// Client asks the DNS. It is safe for use by many goroutines.
type Client struct {
	o       Options
	servers *servers
	hosts   *hosts
	cache   cache
}

// New makes a Client. Servers that are no addresses are an error; files are read when they are needed.
func New(o Options) (*Client, error) {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Attempts <= 0 {
		o.Attempts = 2
	}
	if o.CacheSize <= 0 {
		o.CacheSize = 20000
	}
	if o.MaxTTL <= 0 {
		o.MaxTTL = time.Hour
	}
	s, err := newServers(o)
	if err != nil {
		return nil, err
	}
	return &Client{o: o, servers: s, hosts: newHosts(o.Hosts),
		cache: cache{limit: o.CacheSize, answers: map[question]answer{}, asking: map[question]*asked{}}}, nil
}

// MX returns the hosts that take mail for a domain, the best first, equals in random order (RFC 5321, 5.1). A domain
// without MX is its own host.
func (c *Client) MX(ctx context.Context, domain string) ([]Host, error) {
	a, err := c.lookup(ctx, domain, dns.TypeMX)
	if err != nil {
		return nil, err
	}
	if a.kind == NoRecord {
		return []Host{{Name: canonical(domain)}}, nil
	}
	if a.kind != 0 {
		return nil, c.failure(a.kind, domain, dns.TypeMX, nil)
	}
	hosts := make([]Host, 0, len(a.records))
	null := false
	for _, r := range a.records {
		mx := r.(*dns.MX)
		name := canonical(mx.Mx)
		null = null || name == ""
		if isHost(name) {
			hosts = append(hosts, Host{name, mx.Preference})
		}
	}
	switch {
	case len(hosts) == 0 && null:
		return nil, c.failure(NullMX, domain, dns.TypeMX, nil)
	case len(hosts) == 0:
		return nil, c.failure(BadMX, domain, dns.TypeMX, nil)
	}
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	slices.SortStableFunc(hosts, func(a, b Host) int { return int(a.Pref) - int(b.Pref) })
	return hosts, nil
}

// Addresses returns the addresses of a host, IPv4 and IPv6 by turns, IPv4 first. The hosts file comes before the DNS, and
// an IP address is its own answer.
func (c *Client) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	if list := c.hosts.lookup(canonical(host)); len(list) > 0 {
		return list, nil
	}
	four, six := c.start(ctx, host, dns.TypeA), c.start(ctx, host, dns.TypeAAAA)
	v4, err4 := c.wait(ctx, four)
	v6, err6 := c.wait(ctx, six)
	if list := byTurns(addresses(v4.records), addresses(v6.records)); len(list) > 0 {
		return list, nil
	}
	// One that could not be asked may have had an address.
	for _, err := range []error{err4, err6} {
		if err != nil {
			return nil, err
		}
	}
	if v4.kind == NoDomain {
		return nil, c.failure(NoDomain, host, dns.TypeA, nil)
	}
	return nil, c.failure(NoRecord, host, dns.TypeA, nil)
}

// TXT returns the text records of a name, each joined (RFC 7208, 3.3), and whether they are proven by DNSSEC.
func (c *Client) TXT(ctx context.Context, name string) (texts []string, secure bool, err error) {
	a, err := c.found(ctx, name, dns.TypeTXT)
	if err != nil {
		return nil, false, err
	}
	for _, r := range a.records {
		texts = append(texts, strings.Join(r.(*dns.TXT).Txt, ""))
	}
	return texts, a.secure, nil
}

// TLSA is a certificate association (RFC 6698, 2.1).
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      string // hexadecimal
}

// TLSA returns the associations of a name such as _25._tcp.mx.example, and whether they are proven by DNSSEC; unproven
// ones mean nothing.
func (c *Client) TLSA(ctx context.Context, name string) (list []TLSA, secure bool, err error) {
	a, err := c.found(ctx, name, dns.TypeTLSA)
	if err != nil {
		return nil, false, err
	}
	for _, r := range a.records {
		t := r.(*dns.TLSA)
		list = append(list, TLSA{t.Usage, t.Selector, t.MatchingType, t.Certificate})
	}
	return list, a.secure, nil
}

// found is lookup where no record is an error too.
func (c *Client) found(ctx context.Context, name string, qtype uint16) (answer, error) {
	a, err := c.lookup(ctx, name, qtype)
	if err == nil && a.kind != 0 {
		err = c.failure(a.kind, name, qtype, nil)
	}
	return a, err
}

func (c *Client) failure(kind Kind, name string, qtype uint16, cause error) *Error {
	return &Error{Kind: kind, Name: canonical(name), Type: dns.TypeToString[qtype], Err: cause}
}

func addresses(records []dns.RR) []netip.Addr {
	var list []netip.Addr
	for _, r := range records {
		var ip netip.Addr
		switch r := r.(type) {
		case *dns.A:
			ip, _ = netip.AddrFromSlice(r.A)
		case *dns.AAAA:
			ip, _ = netip.AddrFromSlice(r.AAAA)
		}
		if ip = ip.Unmap(); ip.IsValid() && !slices.Contains(list, ip) {
			list = append(list, ip)
		}
	}
	return list
}

func byTurns(a, b []netip.Addr) []netip.Addr {
	list := make([]netip.Addr, 0, len(a)+len(b))
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			list = append(list, a[i])
		}
		if i < len(b) {
			list = append(list, b[i])
		}
	}
	return list
}

// canonical returns a name in lower case without the dot at its end.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// isHost tells a host name from an address, from nothing, and from names with other characters in them. Underscores are
// met in the names of real hosts.
func isHost(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
