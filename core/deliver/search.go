package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/pabal-mta/mta/core/dns"
	"github.com/pabal-mta/mta/core/smtpc"
)

// host is a machine that may take the mail.
type host struct {
	name   string
	port   uint16
	socket string // path of a unix socket; name and port are empty then
}

// String returns the host as it stands in mta.hcl.
func (h host) String() string {
	if h.socket != "" {
		return "unix:" + h.socket
	}
	return h.name + ":" + strconv.Itoa(int(h.port))
}

// endpoint is where to connect to.
type endpoint struct {
	ip     netip.AddrPort
	socket string
}

func (e endpoint) String() string {
	if e.socket != "" {
		return e.socket
	}
	return e.ip.String()
}

// where names a host and its address for people: "mx1.example [192.0.2.1]:25".
func where(h host, addr string) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(h.name); err == nil && ip == ap.Addr() {
		return fmt.Sprintf("[%s]:%d", ap.Addr(), ap.Port())
	}
	return fmt.Sprintf("%s [%s]:%d", h.name, ap.Addr(), ap.Port())
}

// destination finds the hosts of the job, the best first, and the name of their set.
func (a *attempt) destination(ctx context.Context) (key string, hosts []host, failure *Outcome) {
	if a.way.Kind != KindMX {
		for _, text := range a.way.Hosts {
			h, err := parseHost(text, a.way.Kind)
			if err != nil {
				o := ours(TempFail, phaseResolve, 451, "4.3.5", "the route %q names a host that can't be read", a.job.Route).because(err)
				return "", nil, &o
			}
			hosts = append(hosts, h)
		}
		return a.job.Route, hosts, nil
	}
	port := uint16(first(a.way.Port, 25))
	// RFC 5321, 5.1: an address literal is its own host.
	if ip, ok := literal(a.job.Domain); ok {
		hosts = []host{{name: ip.String(), port: port}}
		return keyOf(a.job.Route, hosts), hosts, nil
	}
	found, err := a.o.DNS.MX(ctx, a.job.Domain)
	if err != nil {
		o := unresolved(a.job.Domain, err)
		return "", nil, &o
	}
	hosts = make([]host, len(found))
	for i, f := range found {
		hosts[i] = host{name: f.Name, port: port}
	}
	return keyOf(a.job.Route, hosts), hosts, nil
}

func literal(domain string) (netip.Addr, bool) {
	text, ok := strings.CutPrefix(domain, "[")
	if !ok {
		return netip.Addr{}, false
	}
	text = strings.TrimPrefix(strings.TrimSuffix(text, "]"), "IPv6:")
	ip, err := netip.ParseAddr(text)
	return ip.Unmap(), err == nil
}

// parseHost reads "host:port", "host" or "unix:/path".
func parseHost(text, kind string) (host, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		return host{socket: path}, nil
	}
	name, port, err := net.SplitHostPort(text)
	if err != nil {
		// No port: that of the protocol (RFC 5321, 4.5.4.2; RFC 2033, 5 leaves LMTP's to agreement, 24 is what IANA has).
		name, port = strings.Trim(text, "[]"), "25"
		if kind == KindLMTP {
			port = "24"
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || name == "" {
		return host{}, fmt.Errorf("%q is not a host and a port", text)
	}
	return host{name: name, port: uint16(n)}, nil
}

// unresolved turns trouble with names into an outcome.
func unresolved(name string, err error) Outcome {
	var e *dns.Error
	errors.As(err, &e)
	if e == nil || e.Kind == dns.Temporary {
		return ours(TempFail, phaseResolve, 451, "4.4.3", "the name service gives no answer for %s now", name).because(err)
	}
	code, enhanced := 550, "5.4.4"
	switch e.Kind {
	case dns.NullMX:
		code, enhanced = 556, "5.1.10" // RFC 7505, 4.1
	case dns.NoDomain:
		enhanced = "5.1.2"
	}
	return ours(PermFail, phaseResolve, code, enhanced, "%s", e.Error()).because(err)
}

// errDown is why a host is not called.
var errDown = errors.New("it did not answer a moment ago")

// search is one walk over hosts and their addresses.
type search struct {
	*attempt
	tried  int
	later  []candidate // addresses that did not answer a moment ago
	temp   *Outcome    // the first temporary failure
	perm   *Outcome    // the first permanent one
	looped bool
}

type candidate struct {
	host host
	at   endpoint
}

// search connects to the first host that talks to us. Its outcome says why there is none: a temporary failure of any host
// makes the whole a temporary one.
func (a *attempt) search(ctx context.Context, hosts []host) (*line, Outcome) {
	ctx, stop := context.WithTimeoutCause(ctx, a.o.Limits.Search, errTooLong)
	defer stop()
	s := &search{attempt: a}
	for _, h := range hosts {
		if l := s.host(ctx, h); l != nil {
			return l, Outcome{}
		}
		if s.looped {
			break
		}
	}
	for _, c := range s.later {
		if a.routed && s.temp == nil {
			// The schedule knows one site for all hops of a router: a dead one is not waited for again and again.
			s.note(s.problem(c.host, c.at.String(), errDown))
		}
		if a.routed {
			continue
		}
		if l := s.try(ctx, c); l != nil {
			return l, Outcome{}
		}
	}
	switch {
	case s.temp != nil:
		return nil, *s.temp
	case s.perm != nil:
		return nil, *s.perm
	}
	return nil, ours(TempFail, phaseResolve, 451, "4.3.5", "the route %q names no host", a.job.Route)
}

func (s *search) note(o Outcome) {
	switch {
	case o.Class == PermFail && s.perm == nil:
		s.perm = &o
	case o.Class == TempFail && s.temp == nil:
		s.temp = &o
	}
}

// host tries the addresses of one host.
func (s *search) host(ctx context.Context, h host) *line {
	if h.socket != "" {
		return s.try(ctx, candidate{h, endpoint{socket: h.socket}})
	}
	addresses, err := s.addresses(ctx, h.name)
	if err != nil {
		o := unresolved(h.name, err)
		if s.way.Kind != KindMX {
			o.Class, o.Reply.Code, o.Reply.Enhanced[0] = TempFail, 451, 4 // a mistake in our own file
		}
		s.note(o)
		return nil
	}
	for _, ip := range addresses {
		c := candidate{h, endpoint{ip: netip.AddrPortFrom(ip.Unmap(), h.port)}}
		if !s.allowed(c) {
			if s.looped {
				return nil
			}
			continue
		}
		if s.memory.has(down, c.at.String()) {
			s.later = append(s.later, c)
			continue
		}
		if l := s.try(ctx, c); l != nil {
			return l
		}
	}
	return nil
}

func (s *search) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{ip}, nil
	}
	return s.o.DNS.Addresses(ctx, name)
}

// allowed refuses addresses that mail must not go to.
func (s *search) allowed(c candidate) bool {
	text := where(c.host, c.at.String())
	switch {
	case s.self.is(c.at.ip):
		// RFC 5321, 5.1: when we are one of the hosts, those that are no better than us are not for us.
		s.looped = true
		s.note(s.ourMistake("5.4.6", text+" is this server: the mail would come back"))
		return false
	case s.way.Kind == KindMX && !s.way.AllowLoopback && unroutable(c.at.ip.Addr()):
		s.note(ours(PermFail, smtpc.PhaseConnect, 550, "5.4.4", "%s is not an address that mail can go to", text))
		return false
	}
	return true
}

// ourMistake is permanent where the DNS of the domain is to blame, and temporary where our configuration or a router is.
func (s *search) ourMistake(enhanced, text string) Outcome {
	if s.way.Kind == KindMX && !s.routed {
		return ours(PermFail, smtpc.PhaseConnect, 550, enhanced, "%s", text)
	}
	return ours(TempFail, smtpc.PhaseConnect, 451, "4"+enhanced[1:], "%s", text)
}

// unroutable tells addresses that no other machine can have.
func unroutable(ip netip.Addr) bool {
	return ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() ||
		ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || (ip.Is4() && ip.As4()[0] == 0)
}

// try connects to one address.
func (s *search) try(ctx context.Context, c candidate) *line {
	if s.tried >= s.o.Limits.Addresses {
		return nil
	}
	s.tried++
	l, err := s.connect(ctx, c)
	if err == nil {
		return l
	}
	o := s.problem(c.host, c.at.String(), err)
	if o.Phase == smtpc.PhaseConnect && o.Class == TempFail && ctx.Err() == nil {
		s.memory.add(down, c.at.String(), s.o.Limits.RememberDown)
	}
	s.note(o)
	return nil
}

// problem puts into words why a connection failed.
func (a *attempt) problem(h host, addr string, err error) Outcome {
	phase := smtpc.PhaseConnect
	var e *smtpc.Error
	if errors.As(err, &e) {
		phase = e.Phase
		if e.Reply.Code != 0 {
			return a.refusal(h, addr, e)
		}
		err = e.Err
	}
	name := where(h, addr)
	var text string
	enhanced := "4.4.2"
	if phase == smtpc.PhaseConnect {
		enhanced = "4.4.1"
	}
	if phase == smtpc.PhaseTLS {
		enhanced = "4.7.5"
	}
	var timeout *smtpc.TimeoutError
	switch {
	case errors.As(err, &timeout):
		text = fmt.Sprintf("no answer from %s within %s", name, timeout.Wait)
	case errors.Is(err, errTooLong):
		text = fmt.Sprintf("the attempt took too long while waiting for %s", name)
	case errors.Is(err, context.Canceled):
		enhanced, text = "4.3.2", "the server is stopping"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = name + " refuses connections"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text = name + " closed the connection"
	default:
		text = fmt.Sprintf("%s: %v", name, err)
	}
	o := ours(TempFail, phase, 451, enhanced, "%s", text).because(err)
	o.Addr = addr
	return o
}

// refusal is the outcome of a reply that ended a connection.
func (a *attempt) refusal(h host, addr string, e *smtpc.Error) Outcome {
	if e.Phase == smtpc.PhaseAuth || e.Phase == smtpc.PhaseTLS {
		// A refused login or STARTTLS is between us and the host: the message has done nothing wrong.
		o := ours(TempFail, e.Phase, 451, "4.7.0", "%s refused our %s: %s", where(h, addr), strings.ToUpper(e.Phase), e.Reply.String())
		o.Addr, o.Err = addr, e
		return o
	}
	return Outcome{Class: classOf(e.Reply), Reply: e.Reply, Host: h.name, Addr: addr, Phase: e.Phase, Err: e.Err}
}
