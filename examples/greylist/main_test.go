package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestMain(m *testing.M) {
	if os.Getenv(sdk.CookieKey) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// peer is who sends, in one line.
func peer(ip, from string) *mail.Session {
	s := &mail.Session{ID: "s", Remote: netip.AddrPortFrom(netip.MustParseAddr(ip), 25), Helo: "h.example"}
	if from != "" {
		s.From = mail.MustParseAddress(from)
	}
	return s
}

// meets asks the plugin about ann, and wants her mail to be delayed or not.
func meets(t *testing.T, p *plugintest.Plugin, s *mail.Session, delayed bool) {
	t.Helper()
	v, err := p.Rcpt(t.Context(), s, mail.Recipient{Address: mail.MustParseAddress("ann@here.example")})
	if err != nil || (v.Action == mail.ActionTempFail) != delayed || v.Action != mail.ActionTempFail && v.Action != mail.ActionContinue {
		t.Errorf("%v from %s: %v %v, %v; delayed should be %v", s.Remote, s.From, v.Action, v.Reply, err, delayed)
	}
}

// inVirtualTime runs the plugin where hours pass at once.
func inVirtualTime(t *testing.T, config string, test func(t *testing.T, p *plugintest.Plugin)) {
	synctest.Test(t, func(t *testing.T) { test(t, plugintest.New(t, sdk.Of(plugin()), config)) })
}

func TestStranger(t *testing.T) {
	inVirtualTime(t, `{}`, func(t *testing.T, p *plugintest.Plugin) {
		bob := peer("192.0.2.1", "bob@there.example")
		meets(t, p, bob, true)
		time.Sleep(5*time.Minute - time.Second)
		meets(t, p, bob, true)
		time.Sleep(time.Second)
		meets(t, p, peer("192.0.2.77", "BOB@there.example"), false) // a neighbour tries again
		meets(t, p, bob, false)
		meets(t, p, peer("192.0.2.1", "eve@there.example"), true)
		meets(t, p, peer("198.51.100.1", "bob@there.example"), true)
		meets(t, p, peer("192.0.2.1", ""), true)
		time.Sleep(2 * time.Second) // figures are reported now and then
		for name, want := range map[string]float64{"delayed_total": 5, "returned_total": 1, "known_total": 1} {
			if got := p.Host.Metric(name); got != want {
				t.Errorf("%s is %v, not %v", name, got, want)
			}
		}
	})
}

func TestForgets(t *testing.T) {
	inVirtualTime(t, `{"window": "1h", "keep": "24h"}`, func(t *testing.T, p *plugintest.Plugin) {
		bob := peer("2001:db8::1", "bob@there.example")
		meets(t, p, bob, true)
		time.Sleep(time.Hour)
		meets(t, p, bob, true) // it came too late, and begins anew
		time.Sleep(10 * time.Minute)
		meets(t, p, bob, false)
		for range 3 { // each message renews the memory
			time.Sleep(23 * time.Hour)
			meets(t, p, bob, false)
		}
		time.Sleep(24 * time.Hour)
		meets(t, p, bob, true)
	})
}

func TestTrust(t *testing.T) {
	inVirtualTime(t, `{"trust_after": 3}`, func(t *testing.T, p *plugintest.Plugin) {
		senders := []string{"a@there.example", "b@there.example", "c@there.example"}
		for _, from := range senders {
			meets(t, p, peer("192.0.2.1", from), true)
		}
		time.Sleep(10 * time.Minute)
		for _, from := range senders {
			meets(t, p, peer("192.0.2.1", from), false)
			meets(t, p, peer("192.0.2.1", from), false) // the second time is not counted
		}
		meets(t, p, peer("192.0.2.1", "new@there.example"), false)
		meets(t, p, peer("192.0.3.1", "new@there.example"), true)
	})
}

func TestNotAsked(t *testing.T) {
	p := plugintest.New(t, sdk.Of(plugin()), `{"networks": ["198.51.100.0/24"]}`)
	user := peer("192.0.2.1", "bob@there.example")
	user.User = "bob"
	meets(t, p, user, false)
	meets(t, p, peer("198.51.100.9", "bob@there.example"), false)
	if keys := p.Host.Keys(); len(keys) != 0 {
		t.Error(keys)
	}
}

// TestLongAddresses remembers addresses that are longer than a key of the store.
func TestLongAddresses(t *testing.T) {
	p := plugintest.New(t, sdk.Of(plugin()), nil)
	domain := strings.Repeat(strings.Repeat("d", 60)+".", 3) + "example"
	meets(t, p, peer("192.0.2.1", strings.Repeat("x", 64)+"@"+domain), true)
}

// TestStoreFails leaves it to on_error what happens to mail.
func TestStoreFails(t *testing.T) {
	p := plugintest.New(t, sdk.Of(plugin()), nil)
	p.Host.Fail(errors.New("the disk is gone"))
	_, err := p.Rcpt(t.Context(), peer("192.0.2.1", ""), mail.Recipient{Address: mail.MustParseAddress("ann@here.example")})
	if err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Error(err)
	}
}

// TestKilled: what it has learned outlives it.
func TestKilled(t *testing.T) {
	inVirtualTime(t, `{}`, func(t *testing.T, p *plugintest.Plugin) {
		bob := peer("192.0.2.1", "bob@there.example")
		meets(t, p, bob, true)
		p = p.Restart() // killed, as by SIGKILL
		meets(t, p, bob, true)
		time.Sleep(5 * time.Minute)
		meets(t, p, bob, false)
	})
}

// TestHostHangs: a call ends with its time, and the next one is answered when the server lives again.
func TestHostHangs(t *testing.T) {
	inVirtualTime(t, `{}`, func(t *testing.T, p *plugintest.Plugin) {
		resume := p.Host.Stall()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := p.Rcpt(ctx, peer("192.0.2.1", ""), mail.Recipient{Address: mail.MustParseAddress("ann@here.example")}); err == nil {
			t.Error("it answered without its store")
		}
		resume()
		meets(t, p, peer("192.0.2.1", "bob@there.example"), true)
	})
}

func TestContract(t *testing.T) {
	inVirtualTime(t, `{}`, func(t *testing.T, p *plugintest.Plugin) { plugintest.Conform(t, p) })
}

func TestWrongConfig(t *testing.T) {
	for config, want := range map[string]string{
		`{"delay": "0s"}`: "delay", `{"delay": "1h", "window": "30m"}`: "window", `{"keep": "0s"}`: "keep", `{"networks": ["x"]}`: "networks",
	} {
		if problems := plugintest.Problems(t, sdk.Of(plugin()), config); len(problems) == 0 || problems[0].Path[0] != want {
			t.Errorf("%s: %v", config, problems)
		}
	}
}

// TestProcess runs the plugin as the server does.
func TestProcess(t *testing.T) {
	p := plugintest.Exec(t, os.Args[0], `{}`)
	for i := range 3 {
		meets(t, p, peer("192.0.2.1", fmt.Sprintf("bob%d@there.example", i)), true)
	}
	meets(t, p, peer("192.0.2.1", "bob0@there.example"), true)
}
