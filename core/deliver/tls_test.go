package deliver

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/tlspolicy"
)

func TestTLS(t *testing.T) {
	good, roots := certificate(t, "relay.example")
	for _, tt := range []struct {
		name   string
		mode   tlspolicy.Mode
		peer   *peer
		host   string
		want   string
		secure bool
	}{
		{"opportunistic", "", &peer{tls: good}, "other.example", "delivered dot 250", true},
		{"opportunistic without TLS", "", &peer{}, "relay.example", "delivered dot 250", false},
		{"opportunistic, refused", "", &peer{tls: good, answer: starttls("454 4.7.0 not now")}, "relay.example", "delivered dot 250", false},
		{"opportunistic, broken", "", &peer{tls: good, answer: starttls("220 go\r\n250 injected")}, "relay.example", "delivered dot 250", false},
		{"opportunistic, dropped", "", &peer{tls: good, answer: starttls("drop")}, "relay.example", "delivered dot 250", false},
		{"none", tlspolicy.None, &peer{tls: good}, "relay.example", "delivered dot 250", false},
		{"require", tlspolicy.Require, &peer{tls: good}, "other.example", "delivered dot 250", true},
		{"require without TLS", tlspolicy.Require, &peer{}, "relay.example", "tempfail tls 451 4.7.5", false},
		{"require, refused", tlspolicy.Require, &peer{tls: good, answer: starttls("454 4.7.0 not now")}, "relay.example", "tempfail tls 451 4.7.0", false},
		{"require, broken", tlspolicy.Require, &peer{tls: good, answer: starttls("220 go\r\n250 injected")}, "relay.example", "tempfail tls 451 4.7.5", false},
		{"verify", tlspolicy.Verify, &peer{tls: good}, "relay.example", "delivered dot 250", true},
		{"verify, wrong name", tlspolicy.Verify, &peer{tls: good}, "other.example", "tempfail tls 451 4.7.5", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := listen(t, tt.peer)
			var warnings []event.Event
			var mu sync.Mutex
			way := Way{Kind: KindSmarthost, TLS: tt.mode, Roots: roots, Hosts: []string{fmt.Sprintf("%s:%d", tt.host, p.port())}}
			d := deliverer(t, way, func(o *Options) {
				o.DNS = names{addr: map[string]string{"relay.example": "127.0.0.1", "other.example": "127.0.0.1"}}
				o.Events = &event.Bus{}
				o.Events.Listen(func(e event.Event) { mu.Lock(); warnings = append(warnings, e); mu.Unlock() })
			})
			for range 2 {
				outcomes := d.Attempt(t.Context(), job("x@y.example"))
				if got := told(t, outcomes); !strings.HasPrefix(got, tt.want) {
					t.Error(got)
				}
				if o := outcomes[0]; tt.secure != strings.HasPrefix(o.TLS, "TLS 1.3 TLS_") {
					t.Errorf("TLS %q", o.TLS)
				}
				d.pool.take("out", func(*line) bool { return true }) // the next attempt connects again
			}
			for _, m := range p.got() {
				if m.tls != tt.secure {
					t.Error("the peer got the message the other way")
				}
			}
			if broken := strings.Contains(tt.name, "opportunistic, broken") || strings.Contains(tt.name, "opportunistic, dropped"); broken && (p.connections() != 3 || len(warnings) != 1) {
				t.Errorf("%d connections, %d warnings: the broken TLS was not remembered", p.connections(), len(warnings))
			}
		})
	}
}

func starttls(reply string) func(int, string) string {
	return func(_ int, c string) string {
		if c == "STARTTLS" {
			return reply
		}
		return ""
	}
}

func TestRequireTLS(t *testing.T) {
	good, roots := certificate(t, "relay.example")
	p := listen(t, &peer{tls: good, ehlo: []string{"PIPELINING", "REQUIRETLS"}})
	plain := listen(t, &peer{tls: good})
	n := names{addr: map[string]string{"relay.example": "127.0.0.1", "other.example": "127.0.0.1"}}
	for _, tt := range []struct {
		p          *peer
		host, want string
	}{
		{p, "relay.example", "delivered dot 250 2.0.0 queued"},
		{p, "other.example", "tempfail tls 451 4.7.5"},
		{plain, "relay.example", "permfail mail 550 5.7.30"},
	} {
		d := deliverer(t, Way{Kind: KindSmarthost, Roots: roots, Hosts: []string{fmt.Sprintf("%s:%d", tt.host, tt.p.port())}}, func(o *Options) { o.DNS = n })
		j := job("x@y.example")
		told(t, d.Attempt(t.Context(), j)) // leaves an unproven connection in the pool
		j.Envelope.RequireTLS = true
		if got := told(t, d.Attempt(t.Context(), j)); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s", tt.host, got)
		}
	}
}

func TestAuth(t *testing.T) {
	p := listen(t, &peer{ehlo: []string{"AUTH PLAIN"}, answer: func(_ int, c string) string {
		if strings.HasPrefix(c, "AUTH") && c != "AUTH PLAIN AHUAcA==" {
			return "535 5.7.8 wrong"
		}
		return ""
	}})
	way := smarthost(p)
	way.User, way.Password = "u", "p"
	if got := told(t, deliverer(t, way, nil).Attempt(t.Context(), job("x@y.example"))); !strings.Contains(got, "the password is not sent") || strings.Contains(p.said(), "AUTH") {
		t.Error(got)
	}
	way.InsecureAuth = true
	if got := told(t, deliverer(t, way, nil).Attempt(t.Context(), job("x@y.example"))); got != "delivered dot 250 2.0.0 queued" {
		t.Error(got)
	}
	way.Password = "secret"
	got := told(t, deliverer(t, way, nil).Attempt(t.Context(), job("x@y.example")))
	if !strings.HasPrefix(got, "tempfail auth 451 4.7.0") || strings.Contains(got, "secret") {
		t.Error(got)
	}
}
