package deliver

import (
	"fmt"
	"testing"

	"github.com/pabal-mta/mta/core/dns"
	"github.com/pabal-mta/mta/core/tlspolicy"
	"github.com/pabal-mta/mta/sdk/mail"
)

// TestExplain: where a message would go, without a connection to anybody.
func TestExplain(t *testing.T) {
	p := listen(t, &peer{})
	n := names{mx: map[string][]dns.Host{"there.example": {{Name: "mx.there.example"}, {Name: "lost.example"}}}, addr: map[string]string{"mx.there.example": "127.0.0.1"}}
	routing := Way{Kind: KindRouter, AllowLoopback: true, Port: 25, Router: byLocal(map[string]mail.Hop{
		"hosts": {Hosts: []string{"127.0.0.1:2525"}}, "mx": {MX: true}, "no": {Reply: mail.NewReply(550, "5.1.1", "who?")},
	})}
	mx := Way{Kind: KindMX, Port: p.port(), AllowLoopback: true}
	wary := mx
	wary.AllowLoopback, wary.TLS = false, tlspolicy.Verify
	here := fmt.Sprintf("127.0.0.1:%d", p.port())
	for _, row := range []struct {
		name, to, want string
		way            Way
	}{
		{"by mx", "a@there.example", fmt.Sprintf("[{mx.there.example:%d [%s] where it is offered and works }", p.port(), here), mx},
		{"a loopback address", "a@there.example", "no address", wary},
		{"no such host", "a@nowhere.example", fmt.Sprintf("[{nowhere.example:%d [] where it is offered and works 550 5.4.4", p.port()), mx},
		{"a router names hosts", "hosts@x.example", "[{127.0.0.1:2525 [127.0.0.1:2525] where it is offered and works }]", routing},
		{"a router leaves it to the DNS", "mx@there.example", "[{mx.there.example:25 [127.0.0.1:25]", routing},
		{"a router refuses", "no@x.example", "permfail 550 5.1.1 who?", routing},
		{"a store", "a@x.example", "[]", Way{Kind: KindStore}},
	} {
		d := deliverer(t, row.way, func(o *Options) { o.DNS = n })
		j := job(row.to)
		hops, failure := d.Explain(t.Context(), j)
		got := fmt.Sprint(hops)
		if failure != nil {
			got = failure.Class.String() + " " + failure.Reply.String()
		}
		if row.want == "no address" {
			if len(hops) != 2 || len(hops[0].Addresses) != 0 || hops[0].Problem == "" || hops[0].TLS != "a certificate for mx.there.example is wanted (config)" {
				t.Errorf("%s: %s", row.name, got)
			}
		} else if len(got) < len(row.want) || got[:len(row.want)] != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
	if p.connections() != 0 {
		t.Error("a host was connected to")
	}
}

// TestHosts: the hosts by which the schedule knows a destination.
func TestHosts(t *testing.T) {
	n := names{mx: map[string][]dns.Host{"there.example": {{Name: "mx.there.example"}, {Name: "mx2.there.example"}}}}
	for _, row := range []struct {
		name, want string
		way        Way
	}{
		{"by mx", "[mx.there.example mx2.there.example]", Way{Kind: KindMX}},
		{"smarthosts", "[smtp.partner.example 2001:db8::1]", Way{Kind: KindSmarthost, Hosts: []string{"smtp.partner.example:587", "[2001:db8::1]:25"}}},
		{"LMTP at a socket and a host", "[mail.inside.example]", Way{Kind: KindLMTP, Hosts: []string{"unix:/run/lmtp", "mail.inside.example:24"}}},
		{"a store", "[]", Way{Kind: KindStore}},
	} {
		d := deliverer(t, row.way, func(o *Options) { o.DNS = n })
		j := job("a@there.example")
		if got, err := d.Hosts(t.Context(), j.Route, "there.example"); err != nil || fmt.Sprint(got) != row.want {
			t.Errorf("%s: %v, %v; want %s", row.name, got, err, row.want)
		}
	}
	d := deliverer(t, Way{Kind: KindMX}, func(o *Options) { o.DNS = n })
	if got, err := d.Hosts(t.Context(), job("a@there.example").Route, "nowhere.example"); err == nil && fmt.Sprint(got) != "[nowhere.example]" {
		t.Errorf("no MX: %v, %v", got, err)
	}
}
