package dns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// recheck is how often a file is looked at for changes.
const recheck = 5 * time.Second

// watched is a file that is read again when it has changed.
type watched[T any] struct {
	path  string
	parse func(text string) T

	mu      sync.Mutex
	checked time.Time
	changed time.Time
	size    int64
	value   T
}

// get returns what the file says now. A file that can't be read leaves what was read before.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.checked.IsZero() && now.Sub(w.checked) < recheck {
		return w.value
	}
	w.checked = now
	info, err := os.Stat(w.path)
	if err != nil || (info.ModTime().Equal(w.changed) && info.Size() == w.size) {
		return w.value
	}
	text, err := os.ReadFile(w.path)
	if err == nil {
		w.value, w.changed, w.size = w.parse(string(text)), info.ModTime(), info.Size()
	}
	return w.value
}

// servers are the name servers that are asked.
type servers struct {
	fixed []string
	file  watched[[]string]
}

func newServers(o Options) (*servers, error) {
	s := &servers{file: watched[[]string]{path: o.Resolv, parse: parseResolv}}
	if o.Resolv == "" {
		s.file.path = "/etc/resolv.conf"
	}
	for _, text := range o.Servers {
		a, err := withPort(text)
		if err != nil {
			return nil, err
		}
		s.fixed = append(s.fixed, a)
	}
	return s, nil
}

func (s *servers) list() []string {
	if s.fixed != nil {
		return s.fixed
	}
	if list := s.file.get(); len(list) > 0 {
		return list
	}
	return []string{"127.0.0.1:53"} // resolv.conf(5)
}

func withPort(text string) (string, error) {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return a.String(), nil
	}
	ip, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		return "", fmt.Errorf("%q is not the address of a name server, such as 192.0.2.53 or [2001:db8::53]:53", text)
	}
	return net.JoinHostPort(ip.String(), "53"), nil
}

func parseResolv(text string) []string {
	conf, err := dns.ClientConfigFromReader(strings.NewReader(text))
	if err != nil {
		return nil
	}
	var list []string
	for _, s := range conf.Servers {
		list = append(list, net.JoinHostPort(s, conf.Port))
	}
	return list
}

// hosts is the hosts file.
type hosts struct {
	file watched[map[string][]netip.Addr]
}

func newHosts(path string) *hosts {
	if path == "" {
		path = "/etc/hosts"
	}
	return &hosts{watched[map[string][]netip.Addr]{path: path, parse: parseHosts}}
}

// lookup returns the addresses that the file has for a name. Localhost has some in any case (RFC 6761, 6.3).
func (h *hosts) lookup(name string) []netip.Addr {
	if list := h.file.get()[name]; len(list) > 0 {
		return list
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	return nil
}

func parseHosts(text string) map[string][]netip.Addr {
	names := map[string][]netip.Addr{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		ip, err := netip.ParseAddr(words[0])
		if err != nil {
			continue
		}
		for _, w := range words[1:] {
			names[canonical(w)] = append(names[canonical(w)], ip.Unmap().WithZone(""))
		}
	}
	return names
}
