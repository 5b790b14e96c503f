package mail

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Routing asks a router for the next hop of each recipient in Envelope.To. Whether the mail may be relayed at all was
// decided before, by the server.
type Routing struct {
	ID       string
	Envelope Envelope
	Size     int64 // of the message, in bytes
	Attempt  int   // 1 for the first
	Arrived  time.Time
	// Meta is what filters have set with SetMeta, and what the server keeps with the message (MetaKeys). A server that is
	// older than the field leaves it empty.
	Meta map[string]string
}

// Hop is where mail for one recipient goes next. Exactly one of its fields is set; the zero Hop is a mistake.
type Hop struct {
	Hosts []string // "host:port", "host" (port 25) or "[address]:port", at most 20; the first that answers takes the mail
	MX    bool     // the hosts that the recipient's domain names
	Route string   // the way of this route of mta.hcl, one by smarthost or mx, with its TLS and its password
	Reply Reply    // the recipient can't be delivered to: 5xx, or 4xx for now
}

// maxHosts bounds the hosts of a Hop.
const maxHosts = 20

// Check returns an error unless the hop says one thing, and that legally.
func (h Hop) Check() error {
	said := 0
	for _, set := range []bool{len(h.Hosts) > 0, h.MX, h.Route != "", h.Reply != (Reply{})} {
		if set {
			said++
		}
	}
	switch {
	case said == 0:
		return errors.New("a hop that leads nowhere")
	case said > 1:
		return errors.New("a hop says more than one of: hosts, mx, route, reply")
	case len(h.Hosts) > maxHosts:
		return fmt.Errorf("a hop of %d hosts, more than %d", len(h.Hosts), maxHosts)
	case h.Route != "":
		return checkRouteName(h.Route)
	case h.Reply != (Reply{}):
		return checkRefusal(h.Reply)
	}
	for _, host := range h.Hosts {
		if err := checkHostPort(host); err != nil {
			return err
		}
	}
	return nil
}

func checkRouteName(s string) error {
	if len(s) > 100 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("the name of a route is too long or holds a control character")
	}
	return nil
}

func checkRefusal(r Reply) error {
	if !r.Temporary() && !r.Permanent() {
		return fmt.Errorf("a recipient without a hop is answered 4xx or 5xx, not %d", r.Code)
	}
	return r.Check()
}

// checkHostPort wants a domain name or an address, and maybe a port.
func checkHostPort(s string) error {
	name, port, err := net.SplitHostPort(s)
	if err != nil {
		name, port = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), "25"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%.300q has no port between 1 and 65535", s)
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		if ip.Zone() != "" {
			return fmt.Errorf("%.300q is an address with a zone", s)
		}
		return nil
	}
	if d, err := ParseDomain(name); err != nil || strings.HasPrefix(d, "[") {
		return fmt.Errorf("%.300q is not a host and a port", s)
	}
	return nil
}
