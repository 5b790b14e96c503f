package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// secure puts TLS over the client's connection.
func (c *client) secure() {
	c.r.t.Helper()
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.ours.example"})
	if err := conn.Handshake(); err != nil {
		c.r.t.Fatal(err)
	}
	c.conn = conn
	go c.listen(conn)
}

// startTLS says STARTTLS without a listener on the plain connection, which would eat the handshake.
func (r *rig) startTLS() *client {
	r.t.Helper()
	here, there := net.Pipe()
	r.conns <- addressed{there, netip.MustParseAddrPort("198.51.100.7:40000")}
	c := &client{r: r, conn: here}
	plain := bufio.NewReader(here)
	for _, line := range []string{"", "EHLO before.example\r\n", "STARTTLS\r\n"} {
		if line != "" {
			here.Write([]byte(line))
		}
		for {
			answer, err := plain.ReadString('\n')
			if err != nil || answer[0] != '2' {
				r.t.Fatalf("%q was answered %q, %v", line, answer, err)
			}
			if answer[3] == ' ' {
				break
			}
		}
	}
	c.secure()
	return c
}

func TestStartTLS(t *testing.T) {
	in(t, func(c *Config, d *Deps) {
		c.TLS = certificate()
		c.AuthRequired, c.Submission, d.Authenticator = true, true, users{}
	}, func(t *testing.T, r *rig) {
		c := r.startTLS()
		c.expect("MAIL FROM:<ann@ours.example>", "503 5.5.1 introduce")
		c.expect("AUTH PLAIN AGFubkBvdXJzLmV4YW1wbGUAcmlnaHQ=", "503 5.5.1 introduce")
		said := c.say("EHLO after.example\r\n")
		if !strings.Contains(said, "250-AUTH PLAIN LOGIN\r\n") || !strings.Contains(said, "REQUIRETLS") || strings.Contains(said, "STARTTLS") {
			t.Errorf("under TLS EHLO was answered %s", said)
		}
		c.expect("STARTTLS", "503 5.5.1 TLS is active")
		c.expect("AUTH PLAIN AGFubkBvdXJzLmV4YW1wbGUAcmlnaHQ=", "235")
		c.expect("MAIL FROM:<ann@ours.example> REQUIRETLS", "250")
		c.expect("RCPT TO:<x@other.example>", "250")
		c.expect("DATA", "354")
		c.expect("Subject: x\r\n\r\nbody\r\n.", "250")
		m := r.take()[0]
		if !m.Envelope.RequireTLS || m.Meta["user"] != "ann@ours.example" || m.Meta["helo"] != "after.example" {
			t.Errorf("envelope %+v, meta %v", m.Envelope, m.Meta)
		}
		want := regexp.MustCompile(`^Received: from after\.example \(\[198\.51\.100\.7\]\)\r\n\tby mx\.ours\.example with ESMTPSA id [0-9a-z]{24}\.1\r\n\t\(TLS 1\.3 TLS_\w+\)\r\n\tfor <x@other\.example>;\r\n\t\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\r\n$`)
		if !want.MatchString(m.top) {
			t.Errorf("the Received field is %q", m.top)
		}
		c.conn.Close()
	})
}

func TestImplicitTLS(t *testing.T) {
	in(t, func(c *Config, _ *Deps) { c.TLS, c.Implicit = certificate(), true }, func(t *testing.T, r *rig) {
		here, there := net.Pipe()
		r.conns <- there
		c := &client{r: r, conn: here}
		c.secure()
		if got := c.hear(); !strings.HasPrefix(got, "220") {
			t.Errorf("greeted with %q", got)
		}
		c.expect("QUIT", "221")
	})
}

// TestSilentHandshake checks that a client that says nothing when TLS is awaited is let go.
func TestSilentHandshake(t *testing.T) {
	in(t, func(c *Config, _ *Deps) { c.TLS, c.Implicit = certificate(), true }, func(t *testing.T, r *rig) {
		c := r.dial()
		time.Sleep(31 * time.Second)
		if !c.isClosed() {
			t.Error("the connection lives on")
		}
		if e := r.named(event.SessionRefused); len(e) != 1 || e[0].Err == nil {
			t.Errorf("events: %+v", e)
		}
	})
}

func TestSubmissionFields(t *testing.T) {
	for name, test := range map[string]struct{ header, want string }{
		"both missing":     {"Subject: x\r\n", `^Date: .*\r\nMessage-ID: <[0-9a-z]{24}@mx\.ours\.example>\r\nSubject: x\r\n\r\nbody\r\n$`},
		"both there":       {"date: 1\r\nMESSAGE-ID : <2>\r\n", `^date: 1\r\nMESSAGE-ID : <2>\r\n\r\nbody\r\n$`},
		"in the body":      {"Subject: x\r\n\r\nDate: 1\r\n", `^Date: .*\r\nMessage-ID: .*\r\nSubject: x\r\n\r\nDate: 1\r\n\r\nbody\r\n$`},
		"in a fold":        {"Subject: x\r\n Date: 1\r\n", `^Date: .*\r\nMessage-ID: .*\r\nSubject: x\r\n Date: 1\r\n\r\nbody\r\n$`},
		"no header":        {"", `^Date: .*\r\nMessage-ID: .*\r\n\r\nbody\r\n$`},
		"begins in a fold": {" fold\r\n", `^Date: .*\r\nMessage-ID: .*\r\n\r\n fold\r\n\r\nbody\r\n$`},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(c *Config, _ *Deps) { c.Submission = true }, func(t *testing.T, r *rig) {
				c := r.dial()
				c.begin()
				c.expect(test.header+"\r\nbody\r\n.", "250")
				if got := r.take()[0].text; !regexp.MustCompile(test.want).MatchString(got) {
					t.Errorf("content is\n%q, want\n%s", got, test.want)
				}
				c.conn.Close()
			})
		})
	}
}

// TestReceived checks who the field says that the message comes from.
func TestReceived(t *testing.T) {
	for helo, want := range map[string]string{
		"EHLO c.example":          "Received: from c.example ([IPv6:2001:db8::1])\r\n\tby mx.ours.example with ESMTP id ",
		"HELO c.example":          "Received: from c.example ([IPv6:2001:db8::1])\r\n\tby mx.ours.example with SMTP id ",
		"EHLO [192.0.2.1]":        "Received: from [192.0.2.1] ([IPv6:2001:db8::1])\r\n\tby",
		"EHLO (evil)\\by;x":       "Received: from [IPv6:2001:db8::1] (HELO ?evil??by?x)\r\n\tby",
		"EHLO c.example comments": "Received: from c.example ([IPv6:2001:db8::1])\r\n\tby",
	} {
		in(t, nil, func(t *testing.T, r *rig) {
			c := r.dialFrom("[2001:db8::1]:4000")
			c.hear()
			c.expect(helo, "250")
			c.say("MAIL FROM:<a@c.example>\r\nRCPT TO:<ann@ours.example>\r\nRCPT TO:<bob@ours.example>\r\nDATA\r\n")
			c.expect("Subject: é\r\n\r\n.", "250")
			m := r.take()[0]
			if !strings.HasPrefix(m.top, want) || strings.Contains(m.top, "for <") {
				t.Errorf("%s: %q, want %q", helo, m.top, want)
			}
			if m.Envelope.Body != mail.Body8Bit {
				t.Errorf("the body is %s", m.Envelope.Body)
			}
			c.conn.Close()
		})
	}
}

func TestEnvelopeParameters(t *testing.T) {
	in(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		c.hear()
		c.expect("EHLO c.example", "250")
		c.expect("MAIL FROM:<é@c.example> SMTPUTF8 RET=HDRS ENVID=e+3D1 BODY=8BITMIME", "250")
		c.expect("RCPT TO:<team@ours.example> NOTIFY=success,delay", "250")
		c.expect("RCPT TO:<eve@ours.example> NOTIFY=NEVER ORCPT=rfc822;old+2Btag@c.example", "250")
		c.expect("DATA", "354")
		c.expect("Subject: x\r\n\r\n.", "250")
		m := r.take()[0]
		want := mail.Envelope{
			From: mail.MustParseAddress("é@c.example"), EnvID: "e=1", Ret: mail.RetHeaders, SMTPUTF8: true,
			To: []mail.Recipient{
				{Address: mail.MustParseAddress("ann@ours.example"), Notify: mail.NotifySuccess | mail.NotifyDelay, Original: "rfc822;team@ours.example"},
				{Address: mail.MustParseAddress("bob@ours.example"), Notify: mail.NotifySuccess | mail.NotifyDelay, Original: "rfc822;team@ours.example"},
				{Address: mail.MustParseAddress("eve@ours.example"), Notify: mail.NotifyNever, Original: "rfc822;old+tag@c.example"},
			},
		}
		if got := fmt.Sprintf("%+v", m.Envelope); got != fmt.Sprintf("%+v", want) {
			t.Errorf("envelope\n%s, want\n%+v", got, want)
		}
		if !strings.Contains(m.top, "with UTF8SMTP id") {
			t.Errorf("the Received field is %q", m.top)
		}
		c.conn.Close()
	})
}

// TestQueueErrors checks what a client is told when the queue fails.
func TestQueueErrors(t *testing.T) {
	full := mail.NewReply(452, "4.3.1", "disk full")
	odd := mail.Reply{Code: 250, Text: "ok"}
	bad := mail.Reply{Code: 550, Text: "a\r\nb"}
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("open /var/secret: no such file"), "451 4.3.0 temporary trouble here, try again later\r\n"},
		{&full, "452 4.3.1 disk full\r\n"},
		{fmt.Errorf("storing: %w", &full), "452 4.3.1 disk full\r\n"},
		{&odd, "451 4.3.0"},
		{&bad, "451 4.3.0"},
		{context.DeadlineExceeded, "451 4.3.0"},
		{&mail.Reply{Code: 550, Text: "one\ntwo é", Enhanced: mail.EnhancedCode{5, 7, 1}}, "550-5.7.1 one\r\n550 5.7.1 two ?\r\n"},
	} {
		in(t, nil, func(t *testing.T, r *rig) {
			r.fail = test.err
			c := r.dial()
			c.begin()
			c.expect("Subject: x\r\n\r\n.", test.want)
			r.mu.Lock()
			r.fail = nil
			r.mu.Unlock()
			c.expect("MAIL FROM:<a@c.example>", "250") // the session goes on
			c.conn.Close()
		})
	}
}

// TestTruncatedChunk checks that a chunk that breaks off is no message (RFC 3030, 2).
func TestTruncatedChunk(t *testing.T) {
	for _, stall := range []bool{false, true} {
		in(t, nil, func(t *testing.T, r *rig) {
			c := r.dial()
			c.hear()
			c.say("EHLO c\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<ann@ours.example>\r\n")
			c.say("BDAT 1000 LAST\r\nSubject: x\r\n\r\nbody")
			if stall {
				time.Sleep(4 * time.Minute)
				if got := c.hear(); !strings.HasPrefix(got, "421 4.4.2") {
					t.Errorf("answered %q", got)
				}
			} else {
				c.conn.Close()
			}
			if !c.isClosed() {
				t.Error("the connection lives on")
			}
			checkQueued(t, r, nil)
		})
	}
}

// TestUnwantedChunk checks that a chunk that no transaction wants is read to its end, or ends the connection: what comes
// late must not run as commands.
func TestUnwantedChunk(t *testing.T) {
	in(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		c.hear()
		c.say("EHLO c\r\nBDAT 1000 LAST\r\nx")
		time.Sleep(4 * time.Minute)
		c.say(tail)
		if got := c.hear(); !c.isClosed() {
			t.Errorf("the connection lives on and says %q", got)
		}
		checkQueued(t, r, nil)
	})
}

// TestLargeMessage checks that a body that goes through a file comes out as it went in.
func TestLargeMessage(t *testing.T) {
	in(t, nil, func(t *testing.T, r *rig) {
		body := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 40_000)
		c := r.dial()
		c.begin()
		c.expect(body+".", "250")
		checkQueued(t, r, []string{body})
		c.expect("MAIL FROM:<a@c.example>", "250")
		c.expect("RCPT TO:<ann@ours.example>", "250")
		c.say(fmt.Sprintf("BDAT %d\r\n%s", len(body), body))
		c.expect("BDAT 3 LAST\r\nend", "250")
		checkQueued(t, r, []string{body + "end\r\n"})
		c.conn.Close()
	})
}

func TestLongLines(t *testing.T) {
	long := strings.Repeat("x", 20_000)
	for name, test := range map[string]struct {
		line, want string
		close      bool
	}{
		"command":         {"NOOP " + long + "\r\n", "500 5.5.2 line too long", true},
		"endless command": {long, "500 5.5.2 line too long", true},
		"just short":      {"NOOP " + long[:maxCommand-7] + "\r\n", "250", false},
		"AUTH":            {"AUTH PLAIN " + long + "\r\n", "500 5.5.2 line too long", true},
		"AUTH just short": {"AUTH PLAIN " + long[:12000] + "\r\n", "501 5.5.2", false},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(c *Config, d *Deps) { c.InsecureAuth, d.Authenticator = true, users{} }, func(t *testing.T, r *rig) {
				c := r.dial()
				c.hear()
				c.expect("EHLO c", "250")
				if got := c.say(test.line); !strings.HasPrefix(got, test.want) {
					t.Errorf("answered %q", got)
				}
				if c.isClosed() != test.close {
					t.Errorf("closed: %v", c.isClosed())
				}
				c.conn.Close()
			})
		})
	}
}

// TestNeverReads checks that a client that takes no replies is let go, and costs no memory meanwhile.
func TestNeverReads(t *testing.T) {
	in(t, nil, func(t *testing.T, r *rig) {
		here, there := net.Pipe()
		r.conns <- there
		go func() {
			for {
				if _, err := here.Write([]byte("NOOP\r\n")); err != nil {
					return
				}
			}
		}()
		time.Sleep(2 * time.Minute)
		if n := len(r.named(event.SessionClosed)); n != 1 {
			t.Errorf("%d sessions have ended", n)
		}
		here.Close()
	})
}

func TestConnectionLimits(t *testing.T) {
	in(t, func(c *Config, _ *Deps) {
		c.Limits.Connections, c.Limits.ConnectionsPerIP = 4, 2
		c.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	}, func(t *testing.T, r *rig) {
		var open []*client
		dial := func(from, want string) *client {
			t.Helper()
			c := r.dialFrom(from + ":1")
			if got := c.hear(); !strings.HasPrefix(got, want) {
				t.Errorf("%s was greeted with %q, want %s", from, got, want)
			}
			open = append(open, c)
			return c
		}
		first := dial("[2001:db8::1]", "220")
		dial("[2001:db8::2]", "220")
		dial("[2001:db8::3]", "421 4.7.0")
		first.expect("QUIT", "221")
		dial("[2001:db8::3]", "220")
		dial("10.0.0.1", "220")
		dial("10.0.0.1", "220")
		dial("10.0.0.1", "421 4.3.2")
		for _, c := range open {
			c.conn.Close()
		}
	})
}

// TestShutdown checks what becomes of connections: those that wait are told, a message that is coming in is taken.
func TestShutdown(t *testing.T) {
	in(t, nil, func(t *testing.T, r *rig) {
		idle, busy := r.dial(), r.dial()
		busy.begin()
		idle.hear()
		done := make(chan error, 1)
		go func() { done <- r.server.Shutdown(t.Context()) }()
		if got := idle.hear(); got != "421 4.3.2 shutting down\r\n" || !idle.isClosed() {
			t.Errorf("an idle client was told %q", got)
		}
		if got := busy.say("Subject: x\r\n\r\n.\r\nMAIL FROM:<a@c.example>\r\n"); codes(got) != "250 250 421" {
			t.Errorf("a busy client was told %q", got)
		}
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := r.server.Serve(&pipeListener{}); !errors.Is(err, ErrClosed) {
			t.Errorf("Serve afterwards: %v", err)
		}
	})
}

func TestShutdownByForce(t *testing.T) {
	in(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		c.begin()
		c.say("Subject: x\r\n")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if !c.isClosed() {
			t.Error("the connection lives on")
		}
		checkQueued(t, r, nil)
	})
}

func TestJunkLimit(t *testing.T) {
	in(t, nil, func(t *testing.T, r *rig) {
		c := r.dial()
		c.hear()
		for range 100 {
			c.expect("RSET", "250")
		}
		c.expect("RSET", "421 4.7.0")
	})
}

// TestPanic checks that a defect met by one connection ends that connection and no other.
func TestPanic(t *testing.T) {
	in(t, func(_ *Config, d *Deps) {
		d.Queue = func(context.Context, *Accepted) (string, error) { panic("queue") }
	}, func(t *testing.T, r *rig) {
		other := r.dial()
		c := r.dial()
		c.begin()
		c.expect("Subject: x\r\n\r\n.", "421")
		if !c.isClosed() {
			t.Error("the connection lives on")
		}
		other.hear()
		other.expect("NOOP", "250")
		if len(r.named(event.Warning)) == 0 {
			t.Error("nobody was told")
		}
		other.conn.Close()
	})
}

func TestMaySendAs(t *testing.T) {
	id := mail.Identity{User: "ann@ours.example", Addresses: []mail.Address{mail.MustParseAddress("sales@ours.example")}}
	for from, want := range map[string]bool{
		"":                     true,
		"ann@ours.example":     true,
		"Ann@ours.example":     true,
		"ann+x@ours.example":   true,
		"sales@ours.example":   true,
		"sales+@ours.example":  true,
		"bob@ours.example":     false,
		"ann@other.example":    false,
		"+ann@ours.example":    false,
		"bob+ann@ours.example": false,
	} {
		var a mail.Address
		if from != "" {
			a = mail.MustParseAddress(from)
		}
		if got := maySendAs(id, a); got != want {
			t.Errorf("%q: %v", from, got)
		}
		if !maySendAs(mail.Identity{User: "root", AnySender: true}, a) {
			t.Errorf("%q: AnySender does not count", from)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"<a@b>", "<\"a b\"@c> SIZE=1", "<@x,@y:a@b>", "a@b X", "<\"a\\\"@b>\"@c>", "<>", "<a@[IPv6:::1]>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, params, err := parsePath(s)
		if err != nil {
			return
		}
		if !strings.HasSuffix(s, params) || params != "" && params[0] != ' ' {
			t.Fatalf("%q: the parameters are %q", s, params)
		}
		again, rest, err := parsePath("<" + p.address.String() + ">" + params)
		if err != nil || again.address != p.address || rest != params {
			t.Fatalf("%q: %v does not survive being written: %v, %q, %v", s, p.address, again.address, rest, err)
		}
	})
}

// TestRefuses has no mail taken for a while: MAIL is refused, with the size that was declared known, and the session goes on.
func TestRefuses(t *testing.T) {
	var full *mail.Reply
	var sizes []int64
	in(t, func(_ *Config, d *Deps) {
		d.Refuses = func(size int64) *mail.Reply {
			sizes = append(sizes, size)
			return full
		}
	}, func(t *testing.T, r *rig) {
		c := r.dial()
		c.hear()
		c.expect("EHLO c", "250")
		r452 := mail.NewReply(452, "4.3.1", "insufficient system storage, try again later")
		full = &r452
		c.expect("MAIL FROM:<a@c.example> SIZE=1234", "452 4.3.1 insufficient system storage, try again later\r\n")
		c.expect("RCPT TO:<ann@ours.example>", "503")
		full = nil
		c.expect("MAIL FROM:<a@c.example>", "250")
		c.expect("RCPT TO:<ann@ours.example>", "250")
		if !slices.Equal(sizes, []int64{1234, 0}) {
			t.Errorf("it was asked for the sizes %v", sizes)
		}
		c.conn.Close()
	})
}
