package deliver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/dns"
	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/core/smtpc"
	"github.com/pabal-mta/mta/sdk/mail"
)

// numbered makes n jobs to u0@there.example and so on, each of which has the one behind it for its next one. It counts
// how many are asked for.
func numbered(n int) (list []*Job, asked *int) {
	asked = new(int)
	for i := range n {
		list = append(list, job(fmt.Sprintf("u%d@there.example", i)))
		list[i].Next = func() *Job {
			*asked++
			if i+1 < n {
				return list[i+1]
			}
			return nil
		}
	}
	return list, asked
}

// attempted attempts the jobs in their order and tells what came of each, with a + where it had been begun.
func attempted(t *testing.T, d *Deliverer, list ...*Job) (came []string) {
	for _, j := range list {
		mark := ""
		if j.begun != nil {
			mark = "+"
		}
		came = append(came, mark+told(t, d.Attempt(t.Context(), j)))
	}
	return came
}

const (
	alone  = "delivered dot 250 2.0.0 queued"
	behind = "+" + alone
)

// once checks that the peer has each message once, and says so of those that it should not have.
func (p *peer) once(t *testing.T, users ...int) {
	t.Helper()
	var have, want []string
	for _, m := range p.got() {
		if m.body != content {
			t.Errorf("the content is %q", m.body)
		}
		have = append(have, m.to...)
	}
	for _, u := range users {
		want = append(want, fmt.Sprintf("TO:<U%d@THERE.EXAMPLE>", u))
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Errorf("the peer has %q, and not %q", have, want)
	}
}

func TestPassOn(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, smarthost(p), nil)
	list, asked := numbered(6)
	if got, want := attempted(t, d, list...), []string{alone, alone, behind, behind, behind, behind}; !slices.Equal(got, want) || *asked != 5 {
		t.Errorf("%q, asked %d times", got, *asked)
	}
	p.once(t, 0, 1, 2, 3, 4, 5)
	if p.connections() != 1 || d.pool.size != 1 {
		t.Errorf("%d connections, %d idle", p.connections(), d.pool.size)
	}
}

// What a peer does to one message of a flight concerns that one alone.
func TestPassOnTrouble(t *testing.T) {
	const closed = "tempfail dot 451 4.4.2 PEER closed the connection"
	for _, tt := range []struct {
		name, command, reply string // of the peer, to the third message over its first connection
		want                 string // of the third message; all others arrive
		fourth               string
		connections          int
	}{
		{"dot refused for now", "DOT", "451 4.2.2 full", "+tempfail dot 451 4.2.2 full", behind, 1},
		{"dot refused", "DOT", "554 5.7.1 spam", "+permfail dot 554 5.7.1 spam", behind, 1},
		{"421 to the dot", "DOT", "421 4.3.2 bye\r\n250 no\r\n250 no\r\n354 no", "+tempfail dot 421 4.3.2 bye", behind, 2},
		{"no answer to the dot", "DOT", "drop", "+" + closed, behind, 2},
		{"MAIL dropped", "MAIL", "drop", behind, alone, 2},
		{"421 to MAIL", "MAIL", "421 4.7.0 enough", behind, alone, 2},
		{"recipient refused", "RCPT", "550 5.1.1 who?", "+permfail rcpt 550 5.1.1 who?", alone, 1},
		{"DATA refused", "DATA", "451 4.3.0 not now", "+tempfail data 451 4.3.0 not now", alone, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen := map[string]int{}
			p := listen(t, &peer{})
			p.answer = func(conn int, command string) string {
				verb, _, _ := strings.Cut(command, " ")
				p.mu.Lock()
				defer p.mu.Unlock()
				if conn > 0 {
					return ""
				}
				if seen[verb]++; verb == tt.command && seen[verb] == 3 {
					return tt.reply
				}
				return ""
			}
			d := deliverer(t, smarthost(p), nil)
			list, _ := numbered(6)
			got := attempted(t, d, list...)
			want := []string{alone, alone, strings.ReplaceAll(tt.want, "PEER", where(host{name: "127.0.0.1"}, p.l.Addr().String())), tt.fourth}
			if !slices.Equal(got[:4], want) || strings.TrimPrefix(got[4], "+") != alone || got[5] != behind {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if strings.HasSuffix(tt.want, alone) {
				p.once(t, 0, 1, 2, 3, 4, 5)
			} else {
				p.once(t, 0, 1, 3, 4, 5)
			}
			if p.connections() != tt.connections {
				t.Errorf("%d connections, want %d", p.connections(), tt.connections)
			}
		})
	}
}

// The limits of a connection and of a transaction count as ever.
func TestPassOnLimits(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, smarthost(p), func(o *Options) { o.Limits.Messages = 3 })
	list, _ := numbered(6)
	if got, want := attempted(t, d, list...), []string{alone, alone, behind, alone, alone, behind}; !slices.Equal(got, want) || p.connections() != 2 {
		t.Errorf("%q over %d connections", got, p.connections())
	}
	p = listen(t, &peer{})
	d = deliverer(t, smarthost(p), func(o *Options) { o.Limits.Recipients = 2 })
	list, asked := numbered(4)
	list[1].Envelope.To = append(list[1].Envelope.To, job("a@there.example", "b@there.example").Envelope.To...)
	list[2].Envelope.To = list[1].Envelope.To
	three := strings.Repeat(alone+"\n", 2) + alone
	if got, want := attempted(t, d, list...), []string{alone, three, three, behind}; !slices.Equal(got, want) || *asked != 3 {
		t.Errorf("%q, asked %d times", got, *asked)
	}
}

// A message that may not go over the connection, or not as it is, is not begun there.
func TestPassOnSuits(t *testing.T) {
	good, roots := certificate(t, "relay.example")
	p := listen(t, &peer{tls: good, ehlo: []string{"PIPELINING", "REQUIRETLS"}})
	n := names{addr: map[string]string{"other.example": "127.0.0.1"}}
	d := deliverer(t, Way{Kind: KindSmarthost, Roots: roots, Hosts: []string{fmt.Sprintf("other.example:%d", p.port())}}, func(o *Options) { o.DNS = n })
	list, _ := numbered(4)
	list[2].Envelope.RequireTLS = true
	if got := attempted(t, d, list...); !strings.HasPrefix(got[2], "tempfail tls 451 4.7.5") || got[3] != alone {
		t.Errorf("%q", got)
	}
	p.once(t, 0, 1, 3)

	p = listen(t, &peer{ehlo: []string{"PIPELINING"}})
	way := smarthost(p)
	way.Converters = []Converter{WhenNeeded(converter(func(c *mail.Conversion) (mail.Converted, error) {
		return mail.Converted{Content: c.Content, Body: mail.Body7Bit}, nil
	}))}
	d = deliverer(t, way, nil)
	list, _ = numbered(5)
	list[3].Envelope.Body = mail.Body8Bit
	if got, want := attempted(t, d, list...), []string{alone, alone, behind, alone, alone}; !slices.Equal(got[:4], want[:4]) {
		t.Errorf("%q", got)
	}
	p.once(t, 0, 1, 2, 3, 4)

	p = listen(t, &peer{})
	way = smarthost(p)
	way.Converters = []Converter{converter(func(*mail.Conversion) (mail.Converted, error) { return mail.Converted{}, nil })}
	list, _ = numbered(3)
	if got := attempted(t, deliverer(t, way, nil), list...); got[2] != alone {
		t.Errorf("%q: a converter that is to be asked each time was not", got)
	}
}

// A job that has been begun by one Deliverer is done by another when the configuration has changed meanwhile, and over
// a connection of its own.
func TestPassOnToAnother(t *testing.T) {
	old, p := listen(t, &peer{}), listen(t, &peer{})
	before, after := deliverer(t, smarthost(old), nil), deliverer(t, smarthost(p), nil)
	list, _ := numbered(4)
	attempted(t, before, list[:2]...)
	if list[2].begun == nil {
		t.Fatal("it was not begun")
	}
	if got := attempted(t, after, list[2:]...); !slices.Equal(got, []string{behind, alone}) {
		t.Errorf("%q", got)
	}
	old.once(t, 0, 1)
	p.once(t, 2, 3)
	<-old.closed
	if before.pool.size != 0 || after.pool.size != 1 {
		t.Errorf("%d and %d idle connections", before.pool.size, after.pool.size)
	}
}

// The server stops between two messages: the first is delivered, and the other is not, nor half of it.
func TestPassOnCancelled(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, smarthost(p), nil)
	list, _ := numbered(3)
	attempted(t, d, list[:2]...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := told(t, d.Attempt(ctx, list[2])); !strings.HasPrefix(got, "tempfail mail 451 4.3.2") {
		t.Error(got)
	}
	<-p.closed
	p.once(t, 0, 1)
	if d.pool.size != 0 {
		t.Error("the connection was kept")
	}
}

// A host that throws away what came with the end of a message costs one wait, and then gets each message by itself.
func TestPassOnLost(t *testing.T) {
	t.Parallel()
	p := listen(t, &peer{loses: true})
	var warnings []event.Event
	d := deliverer(t, smarthost(p), func(o *Options) {
		o.Limits.Timeouts.Command = time.Second
		o.Events = &event.Bus{}
		o.Events.Listen(func(e event.Event) { warnings = append(warnings, e) })
	})
	list, _ := numbered(7)
	if got, want := attempted(t, d, list...), []string{alone, alone, behind, alone, alone, alone, alone}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	p.once(t, 0, 1, 2, 3, 4, 5, 6)
	if p.connections() != 2 || len(warnings) != 1 || !strings.Contains(warnings[0].Reason, "by itself") {
		t.Errorf("%d connections, %v", p.connections(), warnings)
	}
}

// A host that refuses what comes with the end of a message, as smuggled mail, refuses no message for that: Haraka does so.
func TestPassOnRefused(t *testing.T) {
	for _, code := range []string{"503 5.5.1 pipelined after end of DATA", "554 5.5.0 synchronization", "450 4.5.0 not so fast"} {
		p := listen(t, &peer{refuses: code})
		list, _ := numbered(7)
		if got, want := attempted(t, deliverer(t, smarthost(p), nil), list...), []string{alone, alone, behind, alone, alone, alone, alone}; !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		p.once(t, 0, 1, 2, 3, 4, 5, 6)
		if p.connections() != 2 {
			t.Errorf("%d connections", p.connections())
		}
	}
}

// Nor is it refused where the server stops, or the time is up, before it could be sent by itself.
func TestPassOnRefusedAtTheEnd(t *testing.T) {
	a := &attempt{}
	refused := &smtpc.NotBegunError{Reply: mail.NewReply(503, "5.5.1", "pipelined after end of DATA")}
	o := a.problem(host{name: "127.0.0.1"}, "127.0.0.1:25", &smtpc.Error{Phase: smtpc.PhaseMail, Unanswered: true, Err: refused})
	if o.Class != TempFail || o.Reply.Code != 451 || !strings.Contains(o.Reply.Text, "pipelined after end of DATA") {
		t.Errorf("%+v", o)
	}
}

// Refused for itself, it is refused.
func TestPassOnRefusedForItself(t *testing.T) {
	p := listen(t, &peer{})
	p.answer = func(_ int, command string) string {
		if strings.HasPrefix(command, "MAIL FROM:<no@sender.example>") {
			return "550 5.7.1 not you"
		}
		return ""
	}
	list, _ := numbered(4)
	list[2].Envelope.From = mail.MustParseAddress("no@sender.example")
	if got, want := attempted(t, deliverer(t, smarthost(p), nil), list...), []string{alone, alone, "+permfail mail 550 5.7.1 not you", alone}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	p.once(t, 0, 1, 3)
}

// Hosts that nobody has chosen get each message by itself.
func TestPassOnToChosenHostsOnly(t *testing.T) {
	p := listen(t, &peer{})
	n := names{mx: map[string][]dns.Host{"there.example": {{Name: "mx.there.example"}}}, addr: map[string]string{"mx.there.example": "127.0.0.1"}}
	d := deliverer(t, Way{Kind: KindMX, Port: p.port(), AllowLoopback: true}, func(o *Options) { o.DNS = n })
	list, asked := numbered(4)
	for _, j := range list {
		j.Domain = "there.example"
	}
	if got := attempted(t, d, list...); slices.ContainsFunc(got, func(s string) bool { return s != alone }) || *asked != 0 || p.connections() != 1 {
		t.Errorf("%q, asked %d times, %d connections", got, *asked, p.connections())
	}
}

// One that is silent for another reason is not taken for such a host.
func TestSilentIsNotLost(t *testing.T) {
	t.Parallel()
	p := listen(t, &peer{})
	p.answer = func(conn int, command string) string {
		if conn == 0 && strings.HasPrefix(command, "MAIL") && len(p.got()) == 1 {
			<-t.Context().Done()
		}
		return ""
	}
	d := deliverer(t, smarthost(p), func(o *Options) { o.Limits.Timeouts.Command = time.Second })
	if got := attempted(t, d, job("u0@there.example"), job("u1@there.example")); !slices.Equal(got, []string{alone, alone}) {
		t.Errorf("%q", got)
	}
	if p.connections() != 2 || len(d.memory.until) != 0 {
		t.Errorf("%d connections, remembered %v", p.connections(), d.memory.until)
	}
}

// A panic while the next job is looked for is no word of the peer's on either, and leaves it nothing half said.
func TestPassOnPanic(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, smarthost(p), nil)
	list, _ := numbered(3)
	list[1].Next = func() *Job { panic("oh") }
	got := attempted(t, d, list...)
	if !strings.HasPrefix(got[1], "tempfail  451 4.3.0") || got[2] != alone || p.connections() != 2 {
		t.Errorf("%q over %d connections", got, p.connections())
	}
	p.once(t, 0, 2)
}

// A router's recipients go to several hosts at once: there is no one connection for the next message.
func TestPassOnRouter(t *testing.T) {
	p := listen(t, &peer{})
	d := deliverer(t, Way{Kind: KindRouter, Router: router(func(*mail.Routing) ([]mail.Hop, error) {
		return []mail.Hop{{Hosts: []string{p.l.Addr().String()}}}, nil
	})}, nil)
	list, asked := numbered(4)
	if got := attempted(t, d, list...); slices.ContainsFunc(got, func(s string) bool { return s != alone }) || *asked != 0 {
		t.Errorf("%q, asked %d times", got, *asked)
	}
}
