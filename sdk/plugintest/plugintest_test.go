package plugintest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
	"github.com/pabal-mta/mta/sdk/pluginv1/calls"
)

// The test binary is a plugin too, so that Exec has something to run.
func TestMain(m *testing.M) {
	switch os.Getenv("BE_A_PLUGIN") {
	case "":
		os.Exit(m.Run())
	case "well":
		sdk.ServeAny(wellPlugin(os.Getenv("BREAKS")))
	default:
		sdk.ServeAny(echoPlugin())
	}
}

type config struct {
	Greeting string `mta:"greeting,optional" default:"hello"`
}

// echo has every kind. What it is given it keeps, so that a test can see what came over the wire; what it answers is
// decided by the local part or the ID in the question.
type echo struct {
	config config
	host   sdk.Host
	mu     sync.Mutex
	got    any
}

var last *echo // of this process, for tests in memory

func echoPlugin() sdk.Served {
	return sdk.Of(sdk.Plugin[config]{
		Name: "echo", Version: "1.2.3", Doc: "says what it hears", Kinds: (*echo)(nil),
		New: func(_ context.Context, c config, h sdk.Host) (any, error) {
			if c.Greeting == "bad" {
				return nil, sdk.Problems{{Path: []string{"greeting"}, Summary: "not nice"}}
			}
			last = &echo{config: c, host: h}
			return last, nil
		},
	})
}

func (e *echo) keep(v any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got = v
}

func (e *echo) Authenticate(_ context.Context, l mail.Login) (mail.Identity, error) {
	e.keep(l)
	switch l.User {
	case "bad":
		return mail.Identity{}, fmt.Errorf("looked up: %w", mail.ErrBadLogin)
	case "down":
		return mail.Identity{}, errors.New("the directory\r\nis down")
	case "panic":
		panic("no such map")
	}
	return mail.Identity{User: l.User, Addresses: []mail.Address{mail.MustParseAddress("a@b.example")}, AnySender: true}, nil
}

func (e *echo) Lookup(_ context.Context, list []mail.Address) ([]mail.Mailbox, error) {
	out := make([]mail.Mailbox, len(list))
	for i, a := range list {
		switch a.Local() {
		case "alias":
			out[i] = mail.Mailbox{State: mail.MailboxAlias, Aliases: []mail.Address{mail.MustParseAddress("x@y.example")}}
		case "none":
			out[i].State = mail.MailboxUnknown
		case "forgotten":
			return out[:i], nil
		default:
			out[i].State = mail.MailboxExists
		}
	}
	return out, nil
}

func (e *echo) Store(_ context.Context, d *mail.Delivery) ([]mail.Reply, error) {
	e.keep(d)
	out := make([]mail.Reply, len(d.To))
	for i := range out {
		out[i] = mail.NewReply(250, "2.0.0", fmt.Sprintf("%d bytes", d.Content.Size()))
	}
	return out, nil
}

func (e *echo) Convert(ctx context.Context, c *mail.Conversion) (mail.Converted, error) {
	e.keep(c)
	switch c.ID {
	case "same":
		return mail.Converted{}, nil
	case "refuse":
		r := mail.NewReply(554, "5.6.3", "can't convert")
		return mail.Converted{}, &r
	case "pid":
		r := mail.NewReply(554, "5.6.3", strconv.Itoa(os.Getpid()))
		return mail.Converted{}, &r
	case "wait":
		<-ctx.Done()
		return mail.Converted{}, ctx.Err()
	}
	b := make([]byte, c.Content.Size())
	if _, err := c.Content.ReadAt(b, 0); err != nil && err != io.EOF {
		return mail.Converted{}, err
	}
	return mail.Converted{Content: mail.Bytes(bytes.ToUpper(b)), Body: mail.Body8Bit}, nil
}

func (e *echo) Bounce(_ context.Context, f *mail.Failure) (mail.Notice, error) {
	e.keep(f)
	return mail.Notice{Action: mail.NoticeRender, Subject: "돌아온 편지", Text: "sorry\n\tvery", Language: "ko", To: f.From}, nil
}

func (e *echo) Observe(_ context.Context, list []mail.Event) error {
	e.keep(list)
	return nil
}

func (e *echo) Connect(_ context.Context, s *mail.Session) (mail.Verdict, error) {
	e.keep(s)
	return mail.Accept(), nil
}

func (e *echo) Helo(_ context.Context, s *mail.Session) (mail.Verdict, error) {
	return mail.TempFail(450, "4.7.1", "%s, %s", e.config.Greeting, s.Helo), nil
}

func (e *echo) Mail(_ context.Context, s *mail.Session) (mail.Verdict, error) {
	return mail.Discard("because of " + s.From.String()), nil
}

func (e *echo) Rcpt(_ context.Context, _ *mail.Session, r mail.Recipient) (mail.Verdict, error) {
	e.keep(r)
	switch r.Address.Local() {
	case "zero":
		return mail.Verdict{}, nil
	case "crlf":
		return mail.Reject(550, "5.7.1", "no\r\nRCPT TO:<e@v.example>"), nil
	case "class":
		return mail.Reject(450, "4.7.1", "no"), nil
	case "header":
		return mail.Continue(mail.AddHeader{Name: "X", Value: "a\r\nBcc: b"}), nil
	case "reason":
		return mail.Discard("a\r\nb"), nil
	}
	return mail.Continue(), nil
}

func (e *echo) Message(_ context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	e.keep(m)
	body := make([]byte, m.Content.Size())
	_, _ = m.Content.ReadAt(body, 0)
	a := mail.MustParseAddress
	return mail.Quarantine("odd", mail.AddHeader{Name: "X-A", Value: " b"}, mail.ReplaceHeader{ID: 1, Value: " c"}, mail.RemoveHeader{ID: 2},
		mail.SetSender{}, mail.AddRecipient{Recipient: mail.Recipient{Address: a("n@x.example"), Notify: mail.NotifyDelay}},
		mail.DropRecipient{Address: a("d@x.example")}, mail.RewriteRecipient{Old: a("o@x.example"), New: a("p@x.example")},
		mail.ReplaceBody{Body: body}, mail.SetMeta{Key: "k", Value: "v"}), nil
}

// everywhere runs a test against the plugin in memory and as a process.
func everywhere(t *testing.T, test func(t *testing.T, p *plugintest.Plugin)) {
	t.Run("memory", func(t *testing.T) { test(t, plugintest.New(t, echoPlugin(), nil)) })
	t.Run("process", func(t *testing.T) { test(t, plugintest.Exec(t, os.Args[0], nil, "BE_A_PLUGIN=1")) })
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func session() *mail.Session {
	return &mail.Session{
		ID: "s1", Listener: "mx", Remote: netip.MustParseAddrPort("192.0.2.7:2525"), Local: netip.MustParseAddrPort("[2001:db8::1]:25"),
		Helo: "client.example", ESMTP: true, TLS: &mail.TLS{Version: "TLS 1.3", Cipher: "C", ServerName: "mx.example"}, User: "ann",
		From: mail.MustParseAddress(`"a b"@c.example`), To: []mail.Recipient{{Address: mail.MustParseAddress("r@x.example"), Notify: mail.NotifyNever}},
		Meta: map[string]string{"k": "v"},
	}
}

func envelope() mail.Envelope {
	return mail.Envelope{
		From: mail.MustParseAddress("s@x.example"), To: []mail.Recipient{{Address: mail.MustParseAddress("유저@x.example"), Original: "rfc822;o@x.example", Notify: mail.NotifySuccess | mail.NotifyDelay}},
		EnvID: "e1", Ret: mail.RetHeaders, Body: mail.BodyBinary, SMTPUTF8: true, RequireTLS: true, Priority: -4,
	}
}

// TestWords sends a value of each kind and compares what the plugin got with what was sent.
func TestWords(t *testing.T) {
	p := plugintest.New(t, echoPlugin(), nil)
	ctx := within(t, 10*time.Second)
	when := time.Unix(1700000000, 5)
	same := func(want any) {
		t.Helper()
		if !reflect.DeepEqual(last.got, want) {
			t.Errorf("the plugin got\n%+v, not\n%+v", last.got, want)
		}
	}
	login := mail.Login{User: "ann\xff", Password: "p\x00\xfe", Mechanism: "PLAIN", Remote: netip.MustParseAddrPort("192.0.2.1:1"), Service: "smtp"}
	if _, err := p.Authenticate(ctx, login); err == nil { // the name comes back as U+FFFD, never as broken UTF-8
		same(login)
	}
	if _, err := p.Connect(ctx, session()); err != nil {
		t.Error(err)
	}
	same(session())
	d := &mail.Delivery{ID: "d1", To: envelope().To, Content: mail.Bytes([]byte("x")), Time: when}
	if r, err := p.Store(ctx, d); err != nil || r[0].Text != "1 bytes" {
		t.Error(r, err)
	}
	same(d)
	f := &mail.Failure{ID: "f", Kind: mail.FailureDelayed, From: envelope().From, EnvID: "e", Header: []byte("A: b\xff\r\n"), Arrived: when, Expires: when, Hostname: "h",
		Recipients: []mail.FailedRecipient{{Recipient: envelope().To[0], Reply: mail.NewReply(550, "5.1.1", "no"), Host: "mx", Time: when}}}
	n, err := p.Bounce(ctx, f)
	if err != nil || n.To != f.From || n.Subject != "돌아온 편지" || n.Action != mail.NoticeRender {
		t.Error(n, err)
	}
	same(f)
	c := &mail.Conversion{ID: "same", Envelope: envelope(), Content: mail.Bytes(nil), Target: mail.Target{EightBit: true, Mailbox: true}}
	if got, err := p.Convert(ctx, c); err != nil || got.Content != nil {
		t.Error(got, err)
	}
	same(c)
}

func TestKinds(t *testing.T) {
	everywhere(t, func(t *testing.T, p *plugintest.Plugin) {
		ctx := within(t, 10*time.Second)
		want := []string{"authenticator", "store", "directory", "converter", "bounce", "observer", "connect", "helo", "mail", "rcpt", "message"}
		if !reflect.DeepEqual(p.Kinds, want) {
			t.Errorf("kinds %v", p.Kinds)
		}
		if v, err := p.Helo(ctx, session()); err != nil || v.Reply.String() != "450 4.7.1 hello, client.example" {
			t.Error(v, err)
		}
		if v, err := p.Mail(ctx, session()); err != nil || v.Reason != `because of "a b"@c.example` {
			t.Error(v, err)
		}
		a := mail.MustParseAddress
		boxes, err := p.Lookup(ctx, []mail.Address{a("alias@x.example"), a("none@x.example"), a("ann@x.example")})
		if err != nil || boxes[0].Aliases[0] != a("x@y.example") || boxes[1].State != mail.MailboxUnknown || boxes[2].State != mail.MailboxExists {
			t.Error(boxes, err)
		}
		if id, err := p.Authenticate(ctx, mail.Login{User: "ann"}); err != nil || id.User != "ann" || !id.AnySender {
			t.Error(id, err)
		}
	})
}

// TestHostileSession sends what a hostile client can put into a session: the call must work, or be an error of its own.
func TestHostileSession(t *testing.T) {
	p := plugintest.New(t, echoPlugin(), nil)
	s := session()
	s.Helo, s.User, s.Meta = "\xff\xfe\x00", "\xc3", map[string]string{"\xff": "\xff"}
	ctx := within(t, 10*time.Second)
	if v, err := p.Connect(ctx, s); err != nil || v.Action != mail.ActionAccept {
		t.Fatal(v, err)
	}
	if v, err := p.Connect(ctx, session()); err != nil {
		t.Fatal("the stream did not live on:", v, err)
	}
}

func TestBadAnswers(t *testing.T) {
	p := plugintest.New(t, echoPlugin(), nil)
	ctx := within(t, 10*time.Second)
	for local, words := range map[string]string{
		"zero": "no verdict", "crlf": "control character", "class": "5xx", "header": "fold",
	} {
		_, err := p.Rcpt(ctx, session(), mail.Recipient{Address: mail.MustParseAddress(local + "@x.example")})
		var bad *calls.BadAnswer
		if !errors.As(err, &bad) || bad.Call != "rcpt" || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", local, err)
		}
	}
	v, err := p.Rcpt(ctx, session(), mail.Recipient{Address: mail.MustParseAddress("reason@x.example")})
	if err != nil || strings.ContainsAny(v.Reason, "\r\n") {
		t.Errorf("reason %q, %v", v.Reason, err)
	}
	if _, err := p.Lookup(ctx, []mail.Address{mail.MustParseAddress("forgotten@x.example")}); err == nil || !strings.Contains(err.Error(), "0 mailboxes") {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	everywhere(t, func(t *testing.T, p *plugintest.Plugin) {
		ctx := within(t, 10*time.Second)
		if _, err := p.Authenticate(ctx, mail.Login{User: "bad"}); err != mail.ErrBadLogin {
			t.Error(err)
		}
		var failed *calls.Failed
		if _, err := p.Authenticate(ctx, mail.Login{User: "down"}); !errors.As(err, &failed) || strings.ContainsAny(err.Error(), "\r\n") {
			t.Error(err)
		}
		if _, err := p.Authenticate(ctx, mail.Login{User: "panic"}); !errors.As(err, &failed) || !failed.Panic || !strings.Contains(err.Error(), "no such map") {
			t.Error(err)
		}
		var reply *mail.Reply
		if _, err := p.Convert(ctx, &mail.Conversion{ID: "refuse", Content: mail.Bytes(nil)}); !errors.As(err, &reply) || reply.Code != 554 {
			t.Error(err)
		}
	})
}

func TestLarge(t *testing.T) {
	everywhere(t, func(t *testing.T, p *plugintest.Plugin) {
		ctx := within(t, 30*time.Second)
		for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 255 << 10, 4<<20 + 1, 10 << 20} {
			in := bytes.Repeat([]byte("abcdefghijk"), size/11+1)[:size]
			out, err := p.Convert(ctx, &mail.Conversion{ID: "upper", Content: mail.Bytes(in)})
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			got := make([]byte, out.Content.Size())
			if n, err := out.Content.ReadAt(got, 0); n < len(got) {
				t.Fatal(err)
			}
			if !bytes.Equal(got, bytes.ToUpper(in)) || out.Body != mail.Body8Bit {
				t.Errorf("%d bytes came back changed", size)
			}
		}
		body := bytes.Repeat([]byte("line\r\n"), 1<<20)
		v, err := p.Message(ctx, session(), &mail.Message{Content: mail.Bytes(body)})
		if err != nil || len(v.Edits) != 9 || !bytes.Equal(v.Edits[7].(mail.ReplaceBody).Body, body) {
			t.Errorf("a new body of %d bytes: %d edits, %v", len(body), len(v.Edits), err)
		}
	})
}

func TestCancel(t *testing.T) {
	everywhere(t, func(t *testing.T, p *plugintest.Plugin) {
		for _, size := range []int{10, 1 << 20} {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_, err := p.Convert(ctx, &mail.Conversion{ID: "wait", Content: mail.Bytes(make([]byte, size))})
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%d bytes: %v", size, err)
			}
			cancel()
		}
		if n, err := p.Drain(within(t, 5*time.Second), 4*time.Second); n != 0 || err != nil {
			t.Errorf("%d calls go on after they were cancelled, %v", n, err)
		}
	})
}

type modest struct{ t *testing.T }

func (modest) Needs() sdk.Needs { return sdk.Needs{Header: true} }

func (m modest) Message(_ context.Context, _ *mail.Session, msg *mail.Message) (mail.Verdict, error) {
	if n, err := msg.Content.ReadAt(make([]byte, 1), 0); n != 0 || err == nil || msg.Content.Size() != 100<<10 {
		m.t.Errorf("content of %d bytes was sent, size %d, %v", n, msg.Content.Size(), err)
	}
	if msg.Header.Get("subject") != "x" || msg.Header[0].ID != 7 {
		m.t.Errorf("header %v", msg.Header)
	}
	return mail.Continue(), nil
}

func TestNeeds(t *testing.T) {
	p := plugintest.New(t, sdk.Of(sdk.Plugin[struct{}]{Name: "modest", New: func(context.Context, struct{}, sdk.Host) (any, error) { return modest{t}, nil }}), nil)
	m := &mail.Message{Content: mail.Bytes(make([]byte, 100<<10)), Header: mail.Header{{ID: 7, Name: "Subject", Value: []byte(" x")}}}
	if v, err := p.Message(within(t, 5*time.Second), session(), m); err != nil || v.Action != mail.ActionContinue {
		t.Error(v, err)
	}
	if _, err := p.Store(within(t, 5*time.Second), &mail.Delivery{}); !errors.Is(err, calls.ErrUnsupported) {
		t.Error(err)
	}
}

// picky wants two kinds of field and 20 bytes. It removes the second of three fields that have one name.
type picky struct{ t *testing.T }

func (picky) Needs() sdk.Needs { return sdk.Needs{Fields: []string{"x-spam", "Subject"}, Prefix: 20} }

func (p picky) Message(_ context.Context, _ *mail.Session, m *mail.Message) (mail.Verdict, error) {
	if len(m.Header) != 4 || m.Header.Has("From") || m.Header.Get("Subject") != "x" || m.Header[2].ID != 4 {
		p.t.Errorf("header %v", m.Header)
	}
	b := make([]byte, 21)
	if n, err := m.Content.ReadAt(b[:20], 0); err != nil || string(b[:n]) != "X-Spam: a\r\nFrom: ann" {
		p.t.Errorf("the first bytes: %q, %v", b[:n], err)
	}
	if n, err := m.Content.ReadAt(b, 10); n != 10 || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "Needs") {
		p.t.Errorf("beyond what was sent: %d, %v", n, err)
	}
	if m.Content.Size() < 100<<10 {
		p.t.Errorf("size %d", m.Content.Size())
	}
	return mail.Continue(mail.RemoveHeader{ID: m.Header[2].ID}), nil
}

// TestNeedsLittle is about chosen fields and a prefix: no more comes, and fields keep the IDs that they have among all.
func TestNeedsLittle(t *testing.T) {
	p := plugintest.New(t, sdk.Of(sdk.Plugin[struct{}]{Name: "picky", New: func(context.Context, struct{}, sdk.Host) (any, error) { return picky{t}, nil }}), nil)
	text := append([]byte("X-Spam: a\r\nFrom: ann\r\nSubject: x\r\nX-SPAM: b\r\nX-Spam: c\r\n\r\n"), make([]byte, 100<<10)...)
	v, err := p.Message(within(t, 5*time.Second), session(), &mail.Message{Content: mail.Bytes(text)})
	if err != nil || len(v.Edits) != 1 || v.Edits[0] != (mail.RemoveHeader{ID: 4}) {
		t.Error(v, err)
	}
	if k := p.Kind("message"); !k.GetHeader() || !k.GetBody() {
		t.Errorf("an older server would send less than it needs: %v", k)
	}
}

// sorter routes by what filters have set.
type sorter struct{}

func (sorter) Route(_ context.Context, r *mail.Routing) ([]mail.Hop, error) {
	return []mail.Hop{{Hosts: []string{r.Meta["class"] + ".example"}}}, nil
}

func TestRouteMeta(t *testing.T) {
	p := plugintest.New(t, sdk.Of(sdk.Plugin[struct{}]{Name: "sorter", New: func(context.Context, struct{}, sdk.Host) (any, error) { return sorter{}, nil }}), nil)
	r := &mail.Routing{Meta: map[string]string{"class": "bulk", "\xff": "\xff"}}
	r.Envelope.To = []mail.Recipient{{Address: mail.MustParseAddress("a@b.example")}}
	if hops, err := p.Route(within(t, 5*time.Second), r); err != nil || hops[0].Hosts[0] != "bulk.example" {
		t.Error(hops, err)
	}
}

func TestProblems(t *testing.T) {
	if got := plugintest.Problems(t, echoPlugin(), `{"greting":"x"}`); len(got) != 1 || got[0].Path[0] != "greting" {
		t.Error(got)
	}
	if got := plugintest.Problems(t, echoPlugin(), map[string]any{"greeting": "x"}); len(got) != 0 {
		t.Error(got)
	}
}

func TestConcurrent(t *testing.T) {
	everywhere(t, func(t *testing.T, p *plugintest.Plugin) {
		ctx := within(t, 20*time.Second)
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				s := session()
				for n := range 50 {
					s.Helo = fmt.Sprintf("h%d-%d.example", i, n)
					if v, err := p.Helo(ctx, s); err != nil || v.Reply.Text != "hello, "+s.Helo {
						t.Errorf("asked for %s, got %q, %v", s.Helo, v.Reply.Text, err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}
