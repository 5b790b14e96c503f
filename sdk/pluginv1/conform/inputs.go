package conform

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// sample is how one kind of plugin is called.
type sample struct {
	kind    string
	timeout time.Duration
	content bool // the call carries a message
	call    func(ctx context.Context, c *calls.Client, in input) error
}

// input is what a call is about.
type input struct {
	what    string
	id      string
	words   string // the HELO name, the account, the password, the envelope ID
	from    mail.Address
	to      []mail.Recipient
	content []byte
	remote  netip.AddrPort
}

var samples = []sample{
	{"authenticator", calls.QuickTimeout, false, func(ctx context.Context, c *calls.Client, in input) error {
		_, err := c.Authenticate(ctx, mail.Login{User: in.words, Password: in.words, Mechanism: "PLAIN", Remote: in.remote, Service: "smtp"})
		return err
	}},
	{"store", calls.StoreTimeout, true, func(ctx context.Context, c *calls.Client, in input) error {
		_, err := c.Store(ctx, &mail.Delivery{ID: in.id, From: in.from, To: in.to, Content: mail.Bytes(in.content), Time: time.Now()})
		return err
	}},
	{"directory", calls.QuickTimeout, false, func(ctx context.Context, c *calls.Client, in input) error {
		var list []mail.Address
		for _, r := range in.to {
			list = append(list, r.Address)
		}
		_, err := c.Lookup(ctx, list)
		return err
	}},
	{"converter", calls.MessageTimeout, true, func(ctx context.Context, c *calls.Client, in input) error {
		_, err := c.Convert(ctx, &mail.Conversion{ID: in.id, Envelope: in.envelope(), Content: mail.Bytes(in.content)})
		return err
	}},
	{"bounce", calls.MessageTimeout, false, func(ctx context.Context, c *calls.Client, in input) error {
		_, err := c.Bounce(ctx, in.failure())
		return err
	}},
	{"router", calls.QuickTimeout, false, func(ctx context.Context, c *calls.Client, in input) error {
		_, err := c.Route(ctx, &mail.Routing{ID: in.id, Envelope: in.envelope(), Size: int64(len(in.content)), Attempt: 1, Arrived: time.Now(), Meta: in.meta()})
		return err
	}},
	{"observer", calls.QuickTimeout, false, func(ctx context.Context, c *calls.Client, in input) error {
		return c.Observe(ctx, in.events())
	}},
	{"connect", calls.QuickTimeout, false, func(ctx context.Context, c *calls.Client, in input) error {
		_, err := c.Connect(ctx, &mail.Session{ID: in.id, Listener: "mx", Remote: in.remote})
		return err
	}},
	{"helo", calls.QuickTimeout, false, func(ctx context.Context, c *calls.Client, in input) error {
		_, err := c.Helo(ctx, &mail.Session{ID: in.id, Listener: "mx", Remote: in.remote, Helo: in.words, ESMTP: true})
		return err
	}},
	{"mail", calls.QuickTimeout, false, func(ctx context.Context, c *calls.Client, in input) error {
		_, err := c.Mail(ctx, in.session())
		return err
	}},
	{"rcpt", calls.QuickTimeout, false, func(ctx context.Context, c *calls.Client, in input) error {
		s := in.session()
		s.To = in.to[1:]
		_, err := c.Rcpt(ctx, s, in.to[0])
		return err
	}},
	{"message", calls.MessageTimeout, true, func(ctx context.Context, c *calls.Client, in input) error {
		content := mail.Bytes(in.content)
		h, _, err := mail.ReadHeader(content)
		if err != nil {
			return err
		}
		s := in.session()
		s.To = in.to
		_, err = c.Message(ctx, s, &mail.Message{ID: in.id, Envelope: in.envelope(), Header: h, Content: content})
		return err
	}},
}

func sampleOf(kind string) *sample {
	for i := range samples {
		if samples[i].kind == kind {
			return &samples[i]
		}
	}
	return nil
}

func (in input) session() *mail.Session {
	return &mail.Session{
		ID: in.id, Listener: "mx", Remote: in.remote, Local: in.remote, Helo: in.words, ESMTP: true, From: in.from,
		TLS: &mail.TLS{Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256"}, Meta: in.meta(),
	}
}

func (in input) meta() map[string]string { return map[string]string{"check": "yes", "helo": in.words} }

func (in input) envelope() mail.Envelope {
	return mail.Envelope{From: in.from, To: in.to, Body: mail.Body8Bit}
}

func (in input) failure() *mail.Failure {
	f := &mail.Failure{
		ID: in.id, Kind: mail.FailurePermanent, From: in.from, EnvID: in.words, Header: in.content[:min(len(in.content), 64<<10)],
		Arrived: time.Now().Add(-time.Hour), Hostname: "mx.check.example", Postmaster: mail.MustParseAddress("postmaster@check.example"),
	}
	for _, r := range in.to {
		reply := mail.Reply{Code: 550, Enhanced: mail.EnhancedCode{5, 1, 1}, Text: "no such user"}
		f.Recipients = append(f.Recipients, mail.FailedRecipient{Recipient: r, Reply: reply, Host: "mx.check.example", Time: time.Now()})
	}
	return f
}

// events tell of one attempt for each recipient.
func (in input) events() []mail.Event {
	list := make([]mail.Event, len(in.to))
	for i, r := range in.to {
		list[i] = mail.Event{
			Name: "attempt", Time: time.Now(), Session: in.id, ID: in.id, Listener: "mx", User: in.words, From: in.from.String(),
			To: r.Address.String(), Route: "internet", Host: "mx.check.example", Class: "tempfail", Reply: "451 4.3.0 later", Reason: in.words,
			Error: in.words, Size: int64(len(in.content)), Count: 1, Attempt: i + 1, Next: time.Now().Add(time.Hour), Took: time.Second,
		}
		if in.remote.IsValid() {
			list[i].Remote = in.remote.String()
		}
	}
	return list
}

func recipients(n int) []mail.Recipient {
	list := make([]mail.Recipient, n)
	for i := range list {
		list[i].Address = mail.MustParseAddress(fmt.Sprintf("user%d@check.example", i))
	}
	return list
}

const plainText = "From: <ann@check.example>\r\nTo: <user0@check.example>\r\nSubject: a check\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n" +
	"Message-ID: <check@check.example>\r\n\r\nHello.\r\n"

// plain is an input that has nothing strange about it.
func plain(i int) input {
	return input{
		what: "a plain call", id: fmt.Sprintf("check%08d", i), words: "client.check.example",
		from: mail.MustParseAddress("ann@check.example"), to: recipients(2), content: []byte(plainText),
		remote: netip.MustParseAddrPort("192.0.2.1:25"),
	}
}

// largeInput has five megabytes of text.
func largeInput() input {
	in := plain(500)
	in.content = append(in.content, bytes.Repeat([]byte(strings.Repeat("x", 76)+"\r\n"), 5<<20/78)...)
	return in
}

// hostileInputs are strange and legal: a peer may send each of them, and the server hands it on.
func hostileInputs() []input {
	var list []input
	add := func(what string, change func(*input)) {
		in := plain(1000 + len(list))
		in.what = what
		change(&in)
		list = append(list, in)
	}
	var every []byte
	for c := 1; c < 256; c++ {
		every = append(every, byte(c))
	}
	body := func(b []byte) func(*input) {
		return func(in *input) { in.content = append(in.content, b...) }
	}
	add("8-bit content that is no UTF-8", body([]byte("\xff\xfe\x80 \xed\xa0\x80\r\n")))
	add("UTF-8 in the header", func(in *input) { in.content = []byte("Subject: 파발 \xe2\x80\xae\r\nX: \xff\r\n\r\nx\r\n") })
	add("binary content", body(bytes.Repeat(every, 200)))
	add("a line of 2,000 bytes", body([]byte(strings.Repeat("y", 2000)+"\r\n")))
	add("no line end", body([]byte("the end")))
	add("no content", func(in *input) { in.content = nil })
	add("no header", func(in *input) { in.content = []byte("\r\nbody\r\n") })
	add("a header without end", func(in *input) { in.content = []byte("Subject: x") })
	add("10,000 header fields", func(in *input) {
		in.content = append(bytes.Repeat([]byte("Received: from x by y; now\r\n"), 10_000), plainText...)
	})
	add("a header field of 60 KB", func(in *input) {
		in.content = append([]byte("X-Long: "+strings.Repeat("z\r\n ", 15_000)+"\r\n"), plainText...)
	})
	add("a multipart that never ends", func(in *input) {
		in.content = []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", 1000))
	})
	add("words of all bytes", func(in *input) { in.words = string(every) })
	add("no words at all", func(in *input) { in.words = "" })
	add("long words", func(in *input) { in.words = strings.Repeat("ä", 500) })
	add("the null sender", func(in *input) { in.from = mail.Address{} })
	add("a quoted local part", func(in *input) {
		in.to[0].Address = mail.MustParseAddress(`"a b@c\" ../../x"@check.example`)
		in.from = in.to[0].Address
	})
	add("an address in UTF-8", func(in *input) { in.to[0].Address = mail.MustParseAddress("파발@도메인.example") })
	add("an address literal", func(in *input) { in.to[0].Address = mail.MustParseAddress("a@[IPv6:2001:db8::1]") })
	add("1,000 recipients", func(in *input) { in.to = recipients(1000) })
	add("a client with IPv6", func(in *input) { in.remote = netip.MustParseAddrPort("[2001:db8::1]:65535") })
	add("no client", func(in *input) { in.remote = netip.AddrPort{} })
	return list
}
