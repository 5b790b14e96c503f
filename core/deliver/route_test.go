package deliver

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/core/dns"
	"github.com/pabal-mta/mta/sdk/mail"
)

// router is a router of one function.
type router func(*mail.Routing) ([]mail.Hop, error)

func (r router) Route(_ context.Context, q *mail.Routing) ([]mail.Hop, error) { return r(q) }

// byLocal says the hop of each recipient by its local part.
func byLocal(hops map[string]mail.Hop) Router {
	return router(func(q *mail.Routing) (list []mail.Hop, err error) {
		for _, r := range q.Envelope.To {
			list = append(list, hops[r.Address.Local()])
		}
		return list, nil
	})
}

func TestRoute(t *testing.T) {
	one, two, mx := listen(t, &peer{}), listen(t, &peer{ehlo: []string{"AUTH PLAIN"}}), listen(t, &peer{})
	n := names{mx: map[string][]dns.Host{"there.example": {{Name: "mx.there.example"}}}, addr: map[string]string{"mx.there.example": "127.0.0.1"}}
	hop := func(p *peer) mail.Hop { return mail.Hop{Hosts: []string{p.l.Addr().String()}} }
	d := deliverer(t, Way{Kind: KindRouter, Port: mx.port(), AllowLoopback: true, Router: byLocal(map[string]mail.Hop{
		"a": hop(one), "b": hop(two), "c": hop(one), "m": {MX: true}, "n": {Route: "named"}, "x": {Route: "mailboxes"}, "y": {Route: "gone"},
		"r": {Reply: mail.NewReply(550, "5.1.1", "who?")}, "l": {Reply: mail.NewReply(451, "4.7.1", "later")}, "o": {Route: "out"},
		"bad": {Hosts: []string{"unix:/run/x"}}, "both": {MX: true, Route: "named"},
	})}, func(o *Options) {
		o.DNS = n
		o.Ways["named"] = Way{Kind: KindSmarthost, Hosts: []string{two.l.Addr().String()}, User: "me", Password: "secret", InsecureAuth: true}
		o.Ways["mailboxes"] = Way{Kind: KindStore}
	})
	j := job("a@x.example", "b@x.example", "c@y.example", "m@there.example", "r@x.example", "l@x.example", "x@x.example", "y@x.example", "o@x.example",
		"bad@x.example", "both@x.example", "nowhere@x.example")
	queued, lost := "delivered dot 250 2.0.0 queued\n", "tempfail route 451 4.3.0 the next host can't be found out now\n"
	want := strings.Repeat(queued, 4) + "permfail route 550 5.1.1 who?\ntempfail route 451 4.7.1 later\n" + strings.Repeat(lost, 6)
	if got := told(t, d.Attempt(t.Context(), j)); got+"\n" != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if m := one.got(); len(m) != 1 || strings.Join(m[0].to, " ") != "TO:<A@X.EXAMPLE> TO:<C@Y.EXAMPLE>" {
		t.Errorf("the recipients of one hop travel together: %+v", m)
	}
	if len(mx.got()) != 1 || len(two.got()) != 1 {
		t.Errorf("%+v %+v", mx.got(), two.got())
	}
	if strings.Contains(two.said(), "AUTH") {
		t.Error("a host that a router named was given a password")
	}
	if got := told(t, d.Attempt(t.Context(), job("n@x.example"))); got+"\n" != queued || !strings.Contains(two.said(), "AUTH PLAIN") {
		t.Errorf("the way of a named route: %s, %s", got, two.said())
	}
}

func TestRouterFails(t *testing.T) {
	lost := "tempfail route 451 4.3.0 the next host can't be found out now"
	boom := errors.New("open /etc/secret: no such file")
	for _, tt := range []struct {
		name string
		r    router
		want string
	}{
		{"error", func(*mail.Routing) ([]mail.Hop, error) { return nil, boom }, lost},
		{"too few", func(*mail.Routing) ([]mail.Hop, error) { return nil, nil }, lost},
		{"too many", func(*mail.Routing) ([]mail.Hop, error) { return make([]mail.Hop, 3), nil }, lost},
		{"refuses all", func(*mail.Routing) ([]mail.Hop, error) { return nil, new(mail.NewReply(550, "5.7.1", "no")) }, "permfail route 550 5.7.1 no"},
		{"says 250 as an error", func(*mail.Routing) ([]mail.Hop, error) { return nil, new(mail.NewReply(250, "", "ok")) }, lost},
	} {
		o := deliverer(t, Way{Kind: KindRouter, Router: tt.r}, nil).Attempt(t.Context(), job("x@y.example"))
		if got := told(t, o); got != tt.want {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
	d := deliverer(t, Way{Kind: KindRouter, Router: router(func(*mail.Routing) ([]mail.Hop, error) { panic("boom") })}, nil)
	if got := told(t, d.Attempt(t.Context(), job("x@y.example"))); !strings.HasPrefix(got, "tempfail") {
		t.Error(got)
	}
}

// A host of a router that does not answer is not called again for a while: it would keep mail to the others waiting.
func TestDeadHop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	alive := listen(t, &peer{})
	d := deliverer(t, Way{Kind: KindRouter, Router: byLocal(map[string]mail.Hop{"d": {Hosts: []string{dead}}, "a": {Hosts: []string{alive.l.Addr().String()}}})}, nil)
	for i, words := range []string{"refuses connections", "it did not answer a moment ago"} {
		got := told(t, d.Attempt(t.Context(), job("d@x.example", "a@x.example")))
		first, second, _ := strings.Cut(got, "\n")
		if !strings.HasPrefix(first, "tempfail connect 451 4.4.1") || !strings.Contains(first, words) || second != "delivered dot 250 2.0.0 queued" {
			t.Errorf("%d: %s", i, got)
		}
	}
}

// A router that sends mail back to us makes no bounce: it is its mistake, not the sender's.
func TestRouterToOurselves(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, Way{Kind: KindRouter, AllowLoopback: true, Port: p.port(), Router: byLocal(map[string]mail.Hop{
		"h": {Hosts: []string{p.l.Addr().String()}}, "m": {MX: true},
	})}, func(o *Options) {
		o.SelfAddrs = append(o.SelfAddrs, p.l.Addr().(*net.TCPAddr).AddrPort())
		o.DNS = names{mx: map[string][]dns.Host{"x.example": {{Name: "us.example"}}}, addr: map[string]string{"us.example": "127.0.0.1"}}
	})
	got := told(t, d.Attempt(t.Context(), job("h@x.example", "m@x.example")))
	if strings.Count(got, "451 4.4.6") != 2 || p.connections() != 0 {
		t.Error(got)
	}
}
