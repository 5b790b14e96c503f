package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// fake is a name server on loopback, over UDP and TCP.
type fake struct {
	addr    string
	asked   atomic.Int32
	zone    map[string]string // "name type" → records, one a line; or a word: NXDOMAIN SERVFAIL SILENT CUT JUNK
	mu      sync.Mutex
	network []string
}

func serve(t *testing.T, zone map[string]string) *fake {
	t.Helper()
	f := &fake{zone: zone}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = pc.LocalAddr().String()
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		pc.Close()
		t.Skipf("the port is not free for TCP: %v", err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: f}, {Listener: l, Handler: f}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
	return f
}

func (f *fake) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	f.asked.Add(1)
	network := w.RemoteAddr().Network()
	f.mu.Lock()
	f.network = append(f.network, network)
	f.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	m.AuthenticatedData = strings.HasPrefix(q.Question[0].Name, "secure.") || strings.HasPrefix(q.Question[0].Name, "_25.")
	text := f.zone[strings.ToLower(q.Question[0].Name)+" "+dns.TypeToString[q.Question[0].Qtype]]
	switch {
	case text == "SILENT":
		return
	case text == "NXDOMAIN":
		m.Rcode = dns.RcodeNameError
	case text == "SERVFAIL":
		m.Rcode = dns.RcodeServerFailure
	case text == "JUNK":
		m.Question[0].Name = "other.example."
	case strings.HasPrefix(text, "CUT") && network == "udp":
		m.Truncated = true
	default:
		for line := range strings.Lines(strings.TrimPrefix(text, "CUT\n")) {
			r, err := dns.NewRR(line)
			if err != nil {
				panic(err)
			}
			if r != nil {
				m.Answer = append(m.Answer, r)
			}
		}
	}
	w.WriteMsg(m)
}

func newClient(t *testing.T, servers ...string) *Client {
	t.Helper()
	c, err := New(Options{Servers: servers, Timeout: 200 * time.Millisecond, Attempts: 2, Hosts: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func kindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func TestMX(t *testing.T) {
	f := serve(t, map[string]string{
		"two.example. MX":      "two.example. 60 IN MX 20 B.two.example.\ntwo.example. 60 IN MX 10 a.two.example.",
		"null.example. MX":     "null.example. 60 IN MX 0 .",
		"nodomain.example. MX": "NXDOMAIN",
		"fail.example. MX":     "SERVFAIL",
		"junk.example. MX":     "JUNK",
		"literal.example. MX":  "literal.example. 60 IN MX 10 192.0.2.1.",
		"mixed.example. MX":    "mixed.example. 60 IN MX 0 .\nmixed.example. 60 IN MX 10 192.0.2.1.\nmixed.example. 60 IN MX 10 a\\032b.example.\nmixed.example. 60 IN MX 30 good.example.",
		"alias.example. MX":    "alias.example. 60 IN CNAME two.example.\ntwo.example. 60 IN MX 10 a.two.example.\nevil.example. 60 IN MX 1 evil.example.",
		"loop.example. MX":     "loop.example. 60 IN CNAME loop2.example.\nloop2.example. 60 IN CNAME loop.example.",
		"big.example. MX":      "CUT\nbig.example. 60 IN MX 10 a.big.example.",
	})
	c := newClient(t, f.addr)
	for _, tt := range []struct {
		domain, want string
		kind         Kind
	}{
		{"two.example", "10 a.two.example, 20 b.two.example", 0},
		{"TWO.Example.", "10 a.two.example, 20 b.two.example", 0},
		{"implicit.example", "0 implicit.example", 0},
		{"null.example", "", NullMX},
		{"nodomain.example", "", NoDomain},
		{"fail.example", "", Temporary},
		{"junk.example", "", Temporary},
		{"literal.example", "", BadMX},
		{"mixed.example", "30 good.example", 0},
		{"alias.example", "10 a.two.example", 0},
		{"loop.example", "0 loop.example", 0},
		{"big.example", "10 a.big.example", 0},
		{"no name.example", "", NoDomain},
		{"a..example", "", NoDomain},
		{"", "", NoDomain},
		{"[192.0.2.1]", "", NoDomain},
	} {
		t.Run(tt.domain, func(t *testing.T) {
			hosts, err := c.MX(t.Context(), tt.domain)
			var got []string
			for _, h := range hosts {
				got = append(got, fmt.Sprint(h.Pref, " ", h.Name))
			}
			if strings.Join(got, ", ") != tt.want || kindOf(err) != tt.kind {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.network, "tcp") {
		t.Error("the cut answer was not asked for by TCP")
	}
}

// Equals come in another order from time to time.
func TestMXShuffled(t *testing.T) {
	f := serve(t, map[string]string{"x.example. MX": "x.example. 60 IN MX 5 a.example.\nx.example. 60 IN MX 5 b.example.\nx.example. 60 IN MX 1 best.example."})
	c := newClient(t, f.addr)
	seconds := map[string]bool{}
	for range 100 {
		hosts, err := c.MX(t.Context(), "x.example")
		if err != nil || hosts[0].Name != "best.example" {
			t.Fatal(hosts, err)
		}
		seconds[hosts[1].Name] = true
	}
	if len(seconds) != 2 {
		t.Errorf("second was always %v", seconds)
	}
}

func TestAddresses(t *testing.T) {
	f := serve(t, map[string]string{
		"both.example. A":          "both.example. 60 IN A 192.0.2.1\nboth.example. 60 IN A 192.0.2.2",
		"both.example. AAAA":       "both.example. 60 IN AAAA 2001:db8::1\nboth.example. 60 IN AAAA ::ffff:192.0.2.9",
		"half.example. A":          "half.example. 60 IN A 192.0.2.1",
		"half.example. AAAA":       "SERVFAIL",
		"fail.example. A":          "SERVFAIL",
		"gone.example. A":          "NXDOMAIN",
		"gone.example. AAAA":       "NXDOMAIN",
		"alias.example. A":         "alias.example. 60 IN CNAME b.example.\nb.example. 60 IN CNAME c.example.\nc.example. 60 IN A 192.0.2.3",
		"listed.example. A":        "listed.example. 60 IN A 192.0.2.66",
		"secure.example. TXT":      "secure.example. 60 IN TXT \"v=STSv1; \" \"id=1\"",
		"plain.example. TXT":       "plain.example. 60 IN TXT \"x\"",
		"_25._tcp.a.example. TLSA": "_25._tcp.a.example. 60 IN TLSA 3 1 1 " + strings.Repeat("ab", 32),
	})
	c := newClient(t, f.addr)
	hostsFile := filepath.Join(t.TempDir(), "hosts")
	os.WriteFile(hostsFile, []byte("127.0.0.1 localhost\n# 192.0.2.99 comment.example\n192.0.2.7 Listed.example listed # x\n2001:db8::7 listed.example\nbad x\n"), 0o600)
	c.hosts = newHosts(hostsFile)
	for _, tt := range []struct {
		host, want string
		kind       Kind
	}{
		{"both.example", "[192.0.2.1 2001:db8::1 192.0.2.2 192.0.2.9]", 0},
		{"half.example", "[192.0.2.1]", 0},
		{"fail.example", "[]", Temporary},
		{"gone.example", "[]", NoDomain},
		{"empty.example", "[]", NoRecord},
		{"alias.example", "[192.0.2.3]", 0},
		{"listed.example", "[192.0.2.7 2001:db8::7]", 0},
		{"localhost", "[127.0.0.1]", 0},
		{"x.localhost", "[127.0.0.1 ::1]", 0},
		{"192.0.2.5", "[192.0.2.5]", 0},
		{"::ffff:127.0.0.1", "[127.0.0.1]", 0},
	} {
		t.Run(tt.host, func(t *testing.T) {
			got, err := c.Addresses(t.Context(), tt.host)
			if fmt.Sprint(got) != tt.want || kindOf(err) != tt.kind {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	texts, secure, err := c.TXT(t.Context(), "secure.example")
	if fmt.Sprint(texts) != "[v=STSv1; id=1]" || !secure || err != nil {
		t.Error(texts, secure, err)
	}
	if _, secure, err = c.TXT(t.Context(), "plain.example"); secure || err != nil {
		t.Error(secure, err)
	}
	if _, _, err = c.TXT(t.Context(), "empty.example"); kindOf(err) != NoRecord {
		t.Error(err)
	}
	tlsa, secure, err := c.TLSA(t.Context(), "_25._tcp.a.example")
	if len(tlsa) != 1 || tlsa[0].Usage != 3 || !secure || err != nil {
		t.Error(tlsa, secure, err)
	}
}

func TestCache(t *testing.T) {
	f := serve(t, map[string]string{"a.example. A": "a.example. 60 IN A 192.0.2.1", "b.example. A": "b.example. 60 IN A 192.0.2.1", "fail.example. MX": "SERVFAIL"})
	c := newClient(t, f.addr)
	ask := func(name string) {
		t.Helper()
		if _, err := c.Addresses(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		ask("a.example")
	}
	if n := f.asked.Load(); n != 2 { // A and AAAA
		t.Errorf("asked %d times", n)
	}
	for k, a := range c.cache.answers {
		a.expires = time.Now().Add(-time.Second)
		c.cache.answers[k] = a
	}
	ask("a.example")
	if n := f.asked.Load(); n != 4 {
		t.Errorf("asked %d times after the answers had expired", n)
	}
	for range 2 {
		c.MX(t.Context(), "fail.example")
	}
	if n := f.asked.Load(); n != 8 { // twice the two attempts: no failure is kept
		t.Errorf("asked %d times", n)
	}
	c.o.CacheSize, c.cache.limit = 10, 10
	for i := range 100 {
		c.MX(t.Context(), fmt.Sprintf("d%d.example", i))
	}
	if n := len(c.cache.answers); n > 10 {
		t.Errorf("%d answers are kept", n)
	}
}

// Those who ask the same at the same time share one question, and one who gives up does not spoil it for the others.
func TestAskedTogether(t *testing.T) {
	f := serve(t, map[string]string{"slow.example. MX": "SILENT"})
	c := newClient(t, f.addr)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.MX(ctx, "slow.example"); !errors.Is(err, context.Canceled) || kindOf(err) != Temporary {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.MX(t.Context(), "slow.example"); kindOf(err) != Temporary || errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := f.asked.Load(); n > 4 {
		t.Errorf("asked %d times", n)
	}
}

func TestSecondServer(t *testing.T) {
	bad := serve(t, map[string]string{"x.example. MX": "SERVFAIL"})
	good := serve(t, map[string]string{"x.example. MX": "x.example. 60 IN MX 5 a.example."})
	hosts, err := newClient(t, bad.addr, good.addr).MX(t.Context(), "x.example")
	if err != nil || hosts[0].Name != "a.example" {
		t.Error(hosts, err)
	}
}

func TestServers(t *testing.T) {
	for text, want := range map[string]string{"192.0.2.53": "192.0.2.53:53", "192.0.2.53:54": "192.0.2.53:54", "[2001:db8::53]:54": "[2001:db8::53]:54",
		"2001:db8::53": "[2001:db8::53]:53", "[2001:db8::53]": "[2001:db8::53]:53", "ns.example": "", "": "", "192.0.2.53:x": ""} {
		if got, err := withPort(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	os.WriteFile(resolv, []byte("search lan\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"), 0o600)
	c, err := New(Options{Resolv: resolv})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.servers.list()); got != "[192.0.2.1:53 [2001:db8::1]:53]" {
		t.Error(got)
	}
	// It is read again when it has changed, and a vanished file changes nothing.
	os.WriteFile(resolv, []byte("nameserver 192.0.2.2\n"), 0o600)
	c.servers.file.checked = time.Now().Add(-time.Hour)
	if got := fmt.Sprint(c.servers.list()); got != "[192.0.2.2:53]" {
		t.Error(got)
	}
	os.Remove(resolv)
	c.servers.file.checked = time.Now().Add(-time.Hour)
	if got := fmt.Sprint(c.servers.list()); got != "[192.0.2.2:53]" {
		t.Error(got)
	}
	if got := byTurns(nil, []netip.Addr{netip.IPv6Loopback()}); len(got) != 1 {
		t.Error(got)
	}
	if _, err := New(Options{Servers: []string{"ns.example"}}); err == nil {
		t.Error("a name is taken for a server")
	}
}

func FuzzHosts(f *testing.F) {
	for _, s := range []string{"127.0.0.1 a b # c\n", "fe80::1%eth0 x", "\x00", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, list := range parseHosts(text) {
			for _, ip := range list {
				if !ip.IsValid() || name == "#" {
					t.Fatal(name, ip)
				}
			}
		}
		parseResolv(text)
	})
}
