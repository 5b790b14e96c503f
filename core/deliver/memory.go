package deliver

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// What is remembered of an address.
type trait string

const (
	down  trait = "down"   // it did not answer
	noTLS trait = "no tls" // its TLS is broken
	loses trait = "loses"  // it does not answer to what follows a message in the same write
)

// maxMemory bounds what is remembered; beyond it anything may be forgotten.
const maxMemory = 10000

// memory keeps for a while what went wrong with addresses.
type memory struct {
	mu    sync.Mutex
	until map[remembered]time.Time
}

type remembered struct {
	trait trait
	addr  string
}

func newMemory() *memory { return &memory{until: map[remembered]time.Time{}} }

func (m *memory) has(t trait, addr string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.until) == 0 {
		return false
	}
	k := remembered{t, addr}
	until, ok := m.until[k]
	if ok && !time.Now().Before(until) {
		delete(m.until, k)
		ok = false
	}
	return ok
}

func (m *memory) add(t trait, addr string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.until {
		if len(m.until) < maxMemory {
			break
		}
		delete(m.until, k)
	}
	m.until[remembered{t, addr}] = time.Now().Add(d)
}

// self knows the addresses that our own listeners answer at.
type self struct {
	listeners []netip.AddrPort

	mu    sync.Mutex
	at    time.Time
	local []netip.Addr
}

func newSelf(listeners []netip.AddrPort) *self { return &self{listeners: listeners} }

// is reports whether a connection to the address would end at one of our listeners.
func (s *self) is(a netip.AddrPort) bool {
	return slices.ContainsFunc(s.listeners, func(l netip.AddrPort) bool {
		if l.Port() != a.Port() {
			return false
		}
		ip := l.Addr().Unmap()
		return ip == a.Addr() || (ip.IsUnspecified() && s.isLocal(a.Addr()))
	})
}

// isLocal reports whether the machine has the address.
func (s *self) isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.at.IsZero() || now.Sub(s.at) > time.Minute {
		// Without a list the one from before serves on.
		if addrs, err := net.InterfaceAddrs(); err == nil {
			s.at, s.local = now, s.local[:0]
			for _, a := range addrs {
				if n, ok := a.(*net.IPNet); ok {
					own, _ := netip.AddrFromSlice(n.IP)
					s.local = append(s.local, own.Unmap())
				}
			}
		}
	}
	return slices.Contains(s.local, ip)
}
