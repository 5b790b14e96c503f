// Package gate is the door of a mailbox server: listeners, limits, TLS and logins, the same for IMAP and POP3.
//
// It refuses connections above its limits, clients that do not log in within two minutes or send more than a login needs,
// and logins from where too many have failed. A wrong login is answered late, and later each time; the answer tells nothing
// but that it was wrong. It leaves nothing behind.
package gate

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pabal-mta/mta/sdk/schema"
)

// Config is a listener's block in the plugin's configuration.
type Config struct {
	Address             []string `mta:"address" doc:"where to listen, such as 127.0.0.1:1143"`
	CertFile            string   `mta:"cert_file,optional" type:"path" doc:"the certificate chain; it is read again when it changes"`
	KeyFile             string   `mta:"key_file,optional" type:"path" doc:"the key of the certificate"`
	Implicit            bool     `mta:"implicit,optional" doc:"TLS from the first byte; without it, STARTTLS"`
	InsecureAuth        bool     `mta:"insecure_auth,optional" doc:"passwords may come without TLS: on loopback only"`
	Connections         int      `mta:"connections,optional" default:"8192" doc:"at most so many at once"`
	ConnectionsPerIP    int      `mta:"connections_per_ip,optional" default:"64" doc:"at most so many at once from one address"`
	ConnectionsPerLogin int      `mta:"connections_per_account,optional" default:"32" doc:"at most so many at once of one account"`
}

// Check finds what is wrong with a block.
func (c Config) Check(path ...string) (problems []schema.Problem) {
	report := func(key, format string, args ...any) {
		problems = append(problems, schema.Problem{Path: append(path[:len(path):len(path)], key), Summary: fmt.Sprintf(format, args...)})
	}
	if len(c.Address) == 0 {
		report("address", "a listener has an address, such as 127.0.0.1:1143")
	}
	for _, a := range c.Address {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			report("address", "%q is no address and port: %v", a, err)
			continue
		}
		if ip, err := netip.ParseAddr(host); c.InsecureAuth && host != "localhost" && (err != nil || !ip.IsLoopback()) {
			report("insecure_auth", "passwords without TLS are for loopback only, not for %s", a)
		}
	}
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		report("cert_file", "cert_file and key_file go together")
	case c.CertFile == "" && c.Implicit:
		report("implicit", "TLS from the first byte needs cert_file and key_file")
	case c.CertFile == "" && !c.InsecureAuth:
		report("cert_file", "without a certificate nobody could log in; on loopback there is insecure_auth = true")
	}
	if c.Connections < 1 || c.ConnectionsPerIP < 1 || c.ConnectionsPerLogin < 1 {
		report("connections", "a limit is at least 1")
	}
	return problems
}

// Gate is one block's listeners.
type Gate struct {
	cfg    Config
	refuse string // what a client above a limit is told, a line
	log    *slog.Logger
	tls    *tls.Config // nil: none
	nets   []net.Listener

	mu       sync.Mutex
	total    int
	byIP     map[netip.Addr]int
	accounts map[string]int
	warned   time.Time
}

// Open listens. Refuse is the line that a client above a limit is told.
func Open(cfg Config, refuse string, log *slog.Logger) (*Gate, error) {
	g := &Gate{cfg: cfg, refuse: refuse, log: log, byIP: make(map[netip.Addr]int), accounts: make(map[string]int)}
	if cfg.CertFile != "" {
		c := &certificate{cert: cfg.CertFile, key: cfg.KeyFile}
		if _, err := c.get(nil); err != nil {
			return nil, err
		}
		g.tls = &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12}
	}
	for _, address := range cfg.Address {
		l, err := listen(address)
		if err != nil {
			g.Close()
			return nil, err
		}
		g.nets = append(g.nets, l)
	}
	return g, nil
}

// Close stops listening.
func (g *Gate) Close() {
	for _, l := range g.nets {
		l.Close()
	}
}

// InsecureAuth says whether passwords may come without TLS.
func (g *Gate) InsecureAuth() bool { return g.cfg.InsecureAuth }

// TLS returns what STARTTLS uses; nil where it is not offered.
func (g *Gate) TLS() *tls.Config {
	if g.cfg.Implicit {
		return nil
	}
	return g.tls
}

// Listeners returns a listener for each address. What they accept is a *Conn, or a *tls.Conn over one.
func (g *Gate) Listeners() (all []net.Listener) {
	for _, l := range g.nets {
		all = append(all, &listener{l, g})
	}
	return all
}

type listener struct {
	net.Listener
	gate *Gate
}

// Accept returns the next connection within the limits.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c, ok := l.gate.admit(conn)
		if !ok {
			l.gate.turnAway(conn)
			continue
		}
		if l.gate.cfg.Implicit {
			return tls.Server(c, l.gate.tls), nil
		}
		return c, nil
	}
}

func (g *Gate) turnAway(conn net.Conn) {
	if !g.cfg.Implicit {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte(g.refuse)) // it is closed all the same
	}
	conn.Close()
}

func (g *Gate) admit(conn net.Conn) (*Conn, bool) {
	remote, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	ip := remote.Addr().Unmap()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.cfg.Connections || g.byIP[ip] >= g.cfg.ConnectionsPerIP {
		if now := time.Now(); now.Sub(g.warned) > time.Minute {
			g.warned = now
			g.log.Warn("connections are being refused", "from", ip.String(), "open", g.total, "of_it", g.byIP[ip])
		}
		return nil, false
	}
	g.total++
	g.byIP[ip]++
	return newConn(conn, g, remote), true
}

func (g *Gate) leave(ip netip.Addr, account string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.byIP[ip]--; g.byIP[ip] == 0 {
		delete(g.byIP, ip)
	}
	if account == "" {
		return
	}
	if g.accounts[account]--; g.accounts[account] == 0 {
		delete(g.accounts, account)
	}
}

func (g *Gate) enter(account string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.accounts[account] >= g.cfg.ConnectionsPerLogin {
		return false
	}
	g.accounts[account]++
	return true
}

// certificate is read again when its file has changed; one that has become unusable leaves the last good one in force.
type certificate struct {
	cert, key string

	mu     sync.Mutex
	loaded *tls.Certificate
	stamp  time.Time
	looked time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && time.Since(c.looked) < time.Second {
		return c.loaded, nil
	}
	c.looked = time.Now()
	info, err := os.Stat(c.cert)
	if err == nil && c.loaded != nil && info.ModTime().Equal(c.stamp) {
		return c.loaded, nil
	}
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.cert, c.key); err == nil {
			c.loaded, c.stamp = &pair, info.ModTime()
		}
	}
	if c.loaded != nil {
		return c.loaded, nil
	}
	return nil, err
}
