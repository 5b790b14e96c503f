package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/dns"
	"github.com/pabal-mta/mta/core/smtpc"
	"github.com/pabal-mta/mta/sdk/mail"
)

// smarthost is a way to a peer.
func smarthost(peers ...*peer) Way {
	w := Way{Kind: KindSmarthost}
	for _, p := range peers {
		w.Hosts = append(w.Hosts, p.l.Addr().String())
	}
	return w
}

func TestReuse(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, smarthost(p), nil)
	for range 20 {
		if got := told(t, d.Attempt(t.Context(), job("bob@there.example"))); got != "delivered dot 250 2.0.0 queued" {
			t.Fatal(got)
		}
	}
	m := p.got()
	if len(m) != 20 || p.connections() != 1 || m[19].body != content || m[0].from != "FROM:<ANN@HERE.EXAMPLE> SIZE=48" {
		t.Errorf("%d messages over %d connections, %v", len(m), p.connections(), m[0])
	}
	if n := strings.Count(p.said(), "EHLO"); n != 1 {
		t.Errorf("EHLO was said %d times", n)
	}
	d.Close(t.Context())
	if !strings.HasSuffix(p.said(), "\nQUIT") {
		t.Errorf("no QUIT in %q", p.said())
	}
	// A closed Deliverer still delivers, and keeps nothing.
	told(t, d.Attempt(t.Context(), job("bob@there.example")))
	if d.pool.size != 0 {
		t.Error("a connection was kept")
	}
}

func TestMessagesPerConnection(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, smarthost(p), func(o *Options) { o.Limits.Messages = 3 })
	for range 7 {
		told(t, d.Attempt(t.Context(), job("bob@there.example")))
	}
	if p.connections() != 3 || len(p.got()) != 7 {
		t.Errorf("%d connections", p.connections())
	}
}

func TestIdleTimeout(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, smarthost(p), func(o *Options) { o.Limits.IdleTimeout = 10 * time.Millisecond })
	told(t, d.Attempt(t.Context(), job("bob@there.example")))
	<-p.closed
	if !strings.HasSuffix(p.said(), "QUIT") {
		t.Errorf("no QUIT in %q", p.said())
	}
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	if d.pool.size != 0 || len(d.pool.idle) != 0 {
		t.Error("something is left in the pool")
	}
}

// A peer that has closed an idle connection, with or without a word, costs nothing but a new one.
func TestStaleConnection(t *testing.T) {
	for _, way := range []string{"drop", "421 4.4.2 idle for too long"} {
		p := listen(t, &peer{ehlo: []string{"8BITMIME"}})
		p.answer = func(conn int, command string) string {
			if conn == 0 && strings.HasPrefix(command, "MAIL") && len(p.got()) == 1 {
				return way
			}
			return ""
		}
		d := deliverer(t, smarthost(p), nil)
		for range 2 {
			if got := told(t, d.Attempt(t.Context(), job("bob@there.example"))); got != "delivered dot 250 2.0.0 queued" {
				t.Errorf("%s: %s", way, got)
			}
		}
		if p.connections() != 2 {
			t.Errorf("%s: %d connections", way, p.connections())
		}
	}
	// A message that the peer may have taken is not sent twice at once.
	dots := 0
	cut := listen(t, &peer{answer: func(_ int, c string) string {
		if c == "DOT" {
			dots++
		}
		return map[bool]string{true: "drop"}[c == "DOT" && dots > 1]
	}})
	d := deliverer(t, smarthost(cut), nil)
	told(t, d.Attempt(t.Context(), job("bob@there.example")))
	if got := told(t, d.Attempt(t.Context(), job("bob@there.example"))); !strings.HasPrefix(got, "tempfail dot 451 4.4.2") || cut.connections() != 1 {
		t.Errorf("%s, %d connections", got, cut.connections())
	}
	// On a new connection the same is an answer.
	p := listen(t, &peer{answer: func(_ int, command string) string {
		if strings.HasPrefix(command, "MAIL") {
			return "421 4.3.2 not now"
		}
		return ""
	}})
	d = deliverer(t, smarthost(p), nil)
	if got := told(t, d.Attempt(t.Context(), job("bob@there.example"))); got != "tempfail mail 421 4.3.2 not now" || p.connections() != 1 {
		t.Error(got)
	}
}

func TestReplies(t *testing.T) {
	at := func(verb, reply string) func(int, string) string {
		return func(_ int, command string) string {
			if strings.HasPrefix(command, verb) {
				return reply
			}
			return ""
		}
	}
	for _, tt := range []struct {
		name, greeting string
		answer         func(int, string) string
		want           string
	}{
		{"refused", "", at("DOT", "554 5.7.1 spam"), "permfail dot 554 5.7.1 spam\npermfail dot 554 5.7.1 spam"},
		{"one refused", "", at("RCPT TO:<bob", "550 5.1.1 who?"), "permfail rcpt 550 5.1.1 who?\ndelivered dot 250 2.0.0 queued"},
		{"dropped after the dot", "", at("DOT", "drop"), "tempfail dot 451 4.4.2 PEER closed the connection\ntempfail dot 451 4.4.2 PEER closed the connection"},
		{"greeting 5xx", "554 5.7.1 blocked", nil, "permfail connect 554 5.7.1 blocked\npermfail connect 554 5.7.1 blocked"},
		{"greeting 4xx", "421 4.7.0 busy", nil, "tempfail connect 421 4.7.0 busy\ntempfail connect 421 4.7.0 busy"},
		{"no SMTP", "\x1b[2JHTTP/1.1", nil, "tempfail connect 451 4.4.1 PEER: the peer does not speak SMTP: it said \" [2JHTTP/1.1\"\ntempfail connect 451 4.4.1 PEER: the peer does not speak SMTP: it said \" [2JHTTP/1.1\""},
		{"mixed codes", "", at("MAIL", "250-a\r\n550 b"), "tempfail mail 451 4.4.2 PEER: the peer's reply has the code 250 on one line and 550 on another\n" +
			"tempfail mail 451 4.4.2 PEER: the peer's reply has the code 250 on one line and 550 on another"},
		{"enhanced code only", "", at("DOT", "5.7.2"), "tempfail dot 451 4.4.2 PEER: the peer does not speak SMTP: it said \"5.7.2\"\n" +
			"tempfail dot 451 4.4.2 PEER: the peer does not speak SMTP: it said \"5.7.2\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := listen(t, &peer{greeting: tt.greeting, answer: tt.answer})
			d := deliverer(t, smarthost(p), nil)
			outcomes := d.Attempt(t.Context(), job("bob@there.example", "cat@there.example"))
			name := fmt.Sprintf("[127.0.0.1]:%d", p.port())
			if got := strings.ReplaceAll(told(t, outcomes), name, "PEER"); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if o := outcomes[0]; o.Addr != p.l.Addr().String() || (o.Host == "") != strings.Contains(o.Reply.Text, name) {
				t.Errorf("%+v", o)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := deliverer(t, Way{Kind: KindSmarthost, Hosts: []string{l.Addr().String()}}, func(o *Options) {
		o.Limits.Timeouts.Greeting = 20 * time.Millisecond
	})
	want := fmt.Sprintf("tempfail connect 451 4.4.1 no answer from [127.0.0.1]:%d within 20ms", l.Addr().(*net.TCPAddr).Port)
	if got := told(t, d.Attempt(t.Context(), job("bob@there.example"))); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	d = deliverer(t, Way{Kind: KindSmarthost, Hosts: []string{l.Addr().String()}}, func(o *Options) { o.Limits.Search = 20 * time.Millisecond })
	if got := told(t, d.Attempt(t.Context(), job("bob@there.example"))); !strings.Contains(got, "the attempt took too long") {
		t.Error(got)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if got := told(t, d.Attempt(ctx, job("bob@there.example"))); !strings.Contains(got, "451 4.3.2 the server is stopping") {
		t.Error(got)
	}
}

// The next host is tried after one that does not answer or greets with a refusal.
func TestNextHost(t *testing.T) {
	busy, blocked, good := listen(t, &peer{greeting: "421 busy"}), listen(t, &peer{greeting: "554 blocked"}), listen(t, &peer{})
	dead := listen(t, &peer{})
	dead.l.Close()
	d := deliverer(t, smarthost(dead, busy, blocked, good), nil)
	for range 2 {
		if got := told(t, d.Attempt(t.Context(), job("bob@there.example"))); got != "delivered dot 250 2.0.0 queued" {
			t.Fatal(got)
		}
		d.pool.close(t.Context()) // the next attempt searches again
	}
	if n := busy.connections(); n != 1 {
		t.Errorf("the host that did not answer was asked %d times", n)
	}
	d = deliverer(t, smarthost(blocked, dead), nil)
	want := fmt.Sprintf("tempfail connect 451 4.4.1 [127.0.0.1]:%d refuses connections", dead.port())
	if got := told(t, d.Attempt(t.Context(), job("bob@there.example"))); got != want {
		t.Error(got)
	}
	// What one host says to a recipient is final: the next is not asked.
	strict := listen(t, &peer{answer: func(_ int, c string) string {
		if strings.HasPrefix(c, "RCPT") {
			return "450 4.2.1 later"
		}
		return ""
	}})
	before := good.connections()
	d = deliverer(t, smarthost(strict, good), nil)
	if got := told(t, d.Attempt(t.Context(), job("bob@there.example"))); got != "tempfail rcpt 450 4.2.1 later" || good.connections() != before {
		t.Error(got)
	}
}

func TestManyRecipients(t *testing.T) {
	p := listen(t, &peer{answer: func(_ int, c string) string {
		if strings.HasPrefix(c, "RCPT TO:<u7@") {
			return "550 5.1.1 who?"
		}
		return ""
	}})
	d := deliverer(t, smarthost(p), func(o *Options) { o.Limits.Recipients = 10 })
	j := job()
	for i := range 25 {
		j.Envelope.To = append(j.Envelope.To, mail.Recipient{Address: mail.MustParseAddress(fmt.Sprintf("u%d@there.example", i))})
	}
	outcomes := d.Attempt(t.Context(), j)
	told(t, outcomes)
	m := p.got()
	if len(m) != 3 || len(m[0].to) != 9 || len(m[2].to) != 5 || p.connections() != 1 {
		t.Errorf("%d messages, %d connections", len(m), p.connections())
	}
	for i, o := range outcomes {
		if (o.Class == Delivered) == (i == 7) {
			t.Errorf("recipient %d: %v", i, o.Reply)
		}
	}
}

// mxWay delivers by MX to a port that a test has.
func mxWay(p *peer) Way { return Way{Kind: KindMX, Port: p.port(), AllowLoopback: true} }

func TestMX(t *testing.T) {
	p := listen(t, &peer{})
	n := names{
		mx: map[string][]dns.Host{
			"a.example":    {{Name: "mx1.host.example", Pref: 10}, {Name: "mx2.host.example", Pref: 20}},
			"b.example":    {{Name: "mx2.host.example", Pref: 10}, {Name: "mx1.host.example", Pref: 10}},
			"gone.example": {{Name: "nowhere.example", Pref: 10}},
			"half.example": {{Name: "nowhere.example", Pref: 10}, {Name: "slow.example", Pref: 20}},
		},
		addr: map[string]string{"mx1.host.example": "127.0.0.1", "mx2.host.example": "127.0.0.1"},
		err: map[string]dns.Kind{"null.example": dns.NullMX, "no.example": dns.NoDomain, "bad.example": dns.BadMX, "fail.example": dns.Temporary,
			"slow.example": dns.Temporary},
	}
	d := deliverer(t, mxWay(p), func(o *Options) { o.DNS = n })
	for _, tt := range []struct{ to, want string }{
		{"x@a.example", "delivered dot 250 2.0.0 queued"},
		{"x@b.example", "delivered dot 250 2.0.0 queued"},
		{"x@null.example", "permfail resolve 556 5.1.10 the domain null.example takes no mail (null MX)"},
		{"x@no.example", "permfail resolve 550 5.1.2 the domain no.example does not exist"},
		{"x@bad.example", "permfail resolve 550 5.4.4 the MX records of bad.example name no host"},
		{"x@fail.example", "tempfail resolve 451 4.4.3 the name service gives no answer for fail.example now"},
		{"x@gone.example", "permfail resolve 550 5.4.4 nowhere.example has no A record"},
		{"x@half.example", "tempfail resolve 451 4.4.3 the name service gives no answer for slow.example now"},
		{"x@[127.0.0.1]", "delivered dot 250 2.0.0 queued"},
	} {
		outcomes := d.Attempt(t.Context(), job(tt.to))
		if got := told(t, outcomes); got != tt.want {
			t.Errorf("%s: got %s\nwant %s", tt.to, got, tt.want)
		}
		if o := outcomes[0]; o.Class == Delivered && o.Host == "" {
			t.Errorf("%s: no host", tt.to)
		}
	}
	// Two domains with the same hosts share a connection; the literal is another host.
	if p.connections() != 2 {
		t.Errorf("%d connections", p.connections())
	}
}

// Mail never goes to ourselves, nor to loopback because a stranger's DNS says so.
func TestForbiddenAddresses(t *testing.T) {
	p := listen(t, &peer{})
	up := listen(t, &peer{greeting: "421 busy"})
	n := names{
		mx: map[string][]dns.Host{
			"backup.example": {{Name: "busy.example", Pref: 10}, {Name: "us.example", Pref: 20}, {Name: "after.example", Pref: 30}},
			"us.example":     {{Name: "us.example", Pref: 10}, {Name: "after.example", Pref: 20}},
		},
		addr: map[string]string{"us.example": "127.0.0.1", "mapped.example": "::ffff:127.0.0.1", "zero.example": "0.0.0.0", "six.example": "::1",
			"link.example": "fe80::1 169.254.1.1", "multi.example": "224.0.0.1", "after.example": "127.0.0.2", "busy.example": "127.0.0.3", "null8.example": "0.1.2.3"},
	}
	for _, host := range []string{"us", "mapped", "zero", "six", "link", "multi", "null8"} {
		d := deliverer(t, Way{Kind: KindMX, Port: p.port()}, func(o *Options) { o.DNS = names{addr: n.addr} })
		got := told(t, d.Attempt(t.Context(), job("x@"+host+".example")))
		if !strings.HasPrefix(got, "permfail connect 550 5.4.4 "+host+".example [") || !strings.HasSuffix(got, "is not an address that mail can go to") {
			t.Errorf("%s: %s", host, got)
		}
	}
	for _, tt := range []struct {
		listener netip.AddrPort
		to, want string
	}{
		{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(p.port())), "x@us.example", "permfail connect 550 5.4.6"},
		{netip.AddrPortFrom(netip.MustParseAddr("0.0.0.0"), uint16(p.port())), "x@us.example", "permfail connect 550 5.4.6"},
		{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(p.port())), "x@mapped.example", "permfail connect 550 5.4.6"},
		{netip.AddrPortFrom(netip.MustParseAddr("::"), uint16(p.port())), "x@mapped.example", "permfail connect 550 5.4.6"},
		{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(p.port())), "x@backup.example", "tempfail connect 451 4.4.1"},
		{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 1), "x@us.example", "delivered"},
	} {
		d := deliverer(t, mxWay(p), func(o *Options) { o.DNS, o.SelfAddrs = n, []netip.AddrPort{tt.listener} })
		if got := told(t, d.Attempt(t.Context(), job(tt.to))); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s, %s: %s", tt.listener, tt.to, got)
		}
	}
	// A smarthost that is ourselves is a mistake in our file.
	d := deliverer(t, smarthost(up), func(o *Options) { o.SelfAddrs = []netip.AddrPort{netip.MustParseAddrPort(up.l.Addr().String())} })
	if got := told(t, d.Attempt(t.Context(), job("x@y.example"))); !strings.HasPrefix(got, "tempfail connect 451 4.4.6") || up.connections() != 0 {
		t.Error(got)
	}
}

func TestSmarthostByName(t *testing.T) {
	p := listen(t, &peer{})
	way := Way{Kind: KindSmarthost, Hosts: []string{fmt.Sprintf("relay.example:%d", p.port())}}
	d := deliverer(t, way, func(o *Options) { o.DNS = names{addr: map[string]string{"relay.example": "127.0.0.1"}} })
	outcomes := d.Attempt(t.Context(), job("x@y.example"))
	if got := told(t, outcomes); got != "delivered dot 250 2.0.0 queued" || outcomes[0].Host != "relay.example" {
		t.Error(got)
	}
	d = deliverer(t, way, func(o *Options) { o.DNS = names{err: map[string]dns.Kind{"relay.example": dns.NoDomain}} })
	if got := told(t, d.Attempt(t.Context(), job("x@y.example"))); got != "tempfail resolve 451 4.1.2 the domain relay.example does not exist" {
		t.Error(got)
	}
	for text, want := range map[string]string{"h:25": "h:25", "h": "h:25", "[::1]:26": "::1:26", "unix:/x": "unix:/x", "h:0": "", "h:x": "", ":25": "", "": ""} {
		if h, err := parseHost(text, KindSmarthost); (err == nil) != (want != "") || (err == nil && h.String() != want) {
			t.Errorf("%q: %v, %v", text, h, err)
		}
	}
}

func TestLMTP(t *testing.T) {
	answer := func(_ int, c string) string {
		switch {
		case c == "DOT 1":
			return "452 4.2.2 full"
		case strings.HasPrefix(c, "RCPT TO:<no@"):
			return "550 5.1.1 who?"
		}
		return ""
	}
	want := "delivered dot 250 2.0.0 stored\npermfail rcpt 550 5.1.1 who?\ntempfail dot 452 4.2.2 full"
	socket := filepath.Join(t.TempDir(), "lmtp")
	for _, p := range []*peer{listen(t, &peer{lmtp: true, answer: answer}), listenOn(t, "unix", socket, &peer{lmtp: true, answer: answer})} {
		way := Way{Kind: KindLMTP, Hosts: []string{p.l.Addr().String()}}
		if p.l.Addr().Network() == "unix" {
			way.Hosts[0] = "unix:" + socket
		}
		d := deliverer(t, way, nil)
		for range 2 {
			outcomes := d.Attempt(t.Context(), job("a@y.example", "no@y.example", "b@y.example"))
			if got := told(t, outcomes); got != want || outcomes[0].Addr != p.l.Addr().String() {
				t.Error(got)
			}
		}
		if p.connections() != 1 || !strings.HasPrefix(p.said(), "LHLO") {
			t.Errorf("%d connections, %s", p.connections(), p.said())
		}
	}
}

func TestUnknownRoute(t *testing.T) {
	d := deliverer(t, Way{}, nil)
	j := job("x@y.example")
	j.Route = "gone"
	if got := told(t, d.Attempt(t.Context(), j)); got != `tempfail resolve 451 4.3.5 the route "gone" is not configured` {
		t.Error(got)
	}
	if got := told(t, d.Attempt(t.Context(), job("x@y.example"))); !strings.HasPrefix(got, "tempfail resolve 451 4.3.5") {
		t.Error(got)
	}
	if len(d.Attempt(t.Context(), job())) != 0 {
		t.Error("an outcome for nobody")
	}
}

// Many attempts at once share the pool and mix nothing up.
func TestConcurrent(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, smarthost(p), func(o *Options) { o.Limits.IdlePerHost = 4 })
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				j := job(fmt.Sprintf("u%d-%d@y.example", w, i))
				j.Content = mail.Bytes(fmt.Appendf(nil, "X: %d-%d\r\n\r\n", w, i))
				if o := d.Attempt(context.Background(), j); o[0].Class != Delivered {
					t.Error(o[0].Reply, o[0].Err)
				}
			}
		})
	}
	wg.Wait()
	for _, m := range p.got() {
		var w, i int
		fmt.Sscanf(m.body, "X: %d-%d", &w, &i)
		if len(m.to) != 1 || !strings.HasPrefix(m.to[0], fmt.Sprintf("TO:<U%d-%d@", w, i)) {
			t.Errorf("%v got %q", m.to, m.body)
		}
	}
	if len(p.got()) != 160 {
		t.Errorf("%d messages", len(p.got()))
	}
}

func TestMemory(t *testing.T) {
	m := newMemory()
	for i := range maxMemory + 100 {
		m.add(down, fmt.Sprint(i), time.Hour)
	}
	if len(m.until) > maxMemory {
		t.Errorf("%d are remembered", len(m.until))
	}
	m.add(noTLS, "a", time.Hour)
	m.add(noTLS, "b", -time.Second)
	if !m.has(noTLS, "a") || m.has(down, "a") || m.has(noTLS, "b") {
		t.Error("remembered wrongly")
	}
}

// The words for a failure keep our names and paths, and whatever a peer said, in one legal line.
func TestProblem(t *testing.T) {
	a := &attempt{Deliverer: New(Options{}), job: job("x@y.example")}
	for _, err := range []error{nil, errors.New("\x1b\r\nQUIT\xff" + strings.Repeat("é", 5000)), &smtpc.Error{Phase: "mail"}, context.DeadlineExceeded} {
		o := a.problem(host{name: "mx", port: 25}, "192.0.2.1:25", err)
		o.Time = time.Now()
		if got := told(t, []Outcome{o}); !strings.HasPrefix(got, "tempfail") || strings.ContainsAny(got, "\r\n") {
			t.Error(got)
		}
	}
}
