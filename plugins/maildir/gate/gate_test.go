package gate

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

type auth func() error

func (a auth) Authenticate(context.Context, mail.Login) (mail.Identity, error) {
	return mail.Identity{User: "ann"}, a()
}

func from(ip string) mail.Login {
	return mail.Login{User: "ann", Remote: netip.AddrPortFrom(netip.MustParseAddr(ip), 1)}
}

func TestWrongLoginsAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := mail.ErrBadLogin
		asked := 0
		g := NewGuard(auth(func() error { asked++; return answer }))
		for i, want := range []time.Duration{500, 1000, 2000, 4000, 8000, 10000, 10000} {
			start := time.Now()
			if _, err := g.Login(t.Context(), from("192.0.2.1")); !errors.Is(err, mail.ErrBadLogin) || time.Since(start) != want*time.Millisecond {
				t.Errorf("%d: %v after %v", i, err, time.Since(start))
			}
		}
		start := time.Now()
		if _, err := g.Login(t.Context(), from("192.0.2.2")); err == nil || time.Since(start) != firstDelay {
			t.Errorf("another address waits %v, %v", time.Since(start), err)
		}
		for range maxFailures - 7 {
			_, _ = g.Login(t.Context(), from("192.0.2.1"))
		}
		asked = 0
		if _, err := g.Login(t.Context(), from("::ffff:192.0.2.1")); !errors.Is(err, ErrTooMany) || asked != 0 {
			t.Errorf("%v, asked %d times", err, asked)
		}
		time.Sleep(forgetAfter + time.Second)
		answer = nil
		if id, err := g.Login(t.Context(), from("192.0.2.1")); err != nil || id.User != "ann" {
			t.Errorf("%v", err)
		}
		answer = errors.New("trouble")
		start = time.Now()
		if _, err := g.Login(t.Context(), from("192.0.2.1")); err == nil || errors.Is(err, mail.ErrBadLogin) || time.Since(start) != 0 {
			t.Errorf("trouble is no wrong login: %v", err)
		}
	})
}

func TestPlacesAreBounded(t *testing.T) {
	g := NewGuard(nil)
	for i := range maxPlaces + 100 {
		g.count(placeOf(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})), 1)
	}
	if len(g.places) > maxPlaces {
		t.Errorf("%d places", len(g.places))
	}
	if placeOf(netip.MustParseAddr("2001:db8::1")) != placeOf(netip.MustParseAddr("2001:db8::2")) {
		t.Error("one customer is two places")
	}
}

func TestCheck(t *testing.T) {
	good := Config{Address: []string{"127.0.0.1:1143", "[::1]:1143", "localhost:1"}, InsecureAuth: true, Connections: 1, ConnectionsPerIP: 1, ConnectionsPerLogin: 1}
	if p := good.Check("imap"); len(p) != 0 {
		t.Errorf("%v", p)
	}
	for want, change := range map[string]func(*Config){
		"imap address":       func(c *Config) { c.Address = nil },
		"imap address ":      func(c *Config) { c.Address = []string{"1143"} },
		"imap insecure_auth": func(c *Config) { c.Address = []string{"0.0.0.0:143"} },
		"imap cert_file":     func(c *Config) { c.CertFile = "x" },
		"imap cert_file ":    func(c *Config) { c.InsecureAuth = false },
		"imap implicit":      func(c *Config) { c.Implicit = true },
		"imap connections":   func(c *Config) { c.Connections = 0 },
	} {
		c := good
		change(&c)
		if p := c.Check("imap"); len(p) != 1 || strings.Join(p[0].Path, " ") != strings.TrimSpace(want) {
			t.Errorf("%s: %v", want, p)
		}
	}
}

// TestSlowClient: one byte a second, and nothing at all, end after the time for a login; who is in may take longer.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{cfg: Config{ConnectionsPerLogin: 1}, byIP: make(map[netip.Addr]int), accounts: make(map[string]int)}
		for name, c := range map[string]struct {
			every time.Duration
			in    bool
			ends  bool
		}{"a byte a second": {time.Second, false, true}, "silence": {time.Hour, false, true}, "logged in": {time.Second, true, false}} {
			client, server := net.Pipe()
			conn := newConn(server, g, netip.AddrPort{})
			if c.in && (!conn.Enter("ann") || conn.SetReadDeadline(time.Time{}) != nil) {
				t.Fatal("no way in")
			}
			done := make(chan struct{})
			go func() {
				for {
					select {
					case <-time.After(c.every):
						_, _ = client.Write([]byte("x")) // until the server closes
					case <-done:
						return
					}
				}
			}()
			start := time.Now()
			var err error
			for err == nil && time.Since(start) < 2*loginTime {
				_, err = conn.Read(make([]byte, 10))
			}
			if took := time.Since(start); (err != nil) != c.ends || c.ends && took > loginTime {
				t.Errorf("%s: %v after %v", name, err, took)
			}
			close(done)
			client.Close()
			server.Close()
			synctest.Wait()
		}
	})
}

// TestWrongLoginsLookAlike: the time that an answer takes tells nothing about what was wrong.
func TestWrongLoginsLookAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, slow := range []time.Duration{0, 300 * time.Millisecond} { // no such account, and a hash that was compared
			g := NewGuard(auth(func() error { time.Sleep(slow); return mail.ErrBadLogin }))
			start := time.Now()
			_, err := g.Login(t.Context(), from("192.0.2.1"))
			if took := time.Since(start); !errors.Is(err, mail.ErrBadLogin) || took != firstDelay {
				t.Errorf("%v, %v", err, took)
			}
		}
	})
}
