package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pabal-mta/mta/core/event"
	"github.com/pabal-mta/mta/sdk/mail"
)

// asked is what a filter of these tests was asked with.
type asked struct {
	ctx     context.Context
	stage   Stage
	session *mail.Session
	rcpt    mail.Recipient
	message *mail.Message
}

// filter is a filter for every stage.
type filter func(a asked) (mail.Verdict, error)

func (f filter) Connect(ctx context.Context, s *mail.Session) (mail.Verdict, error) {
	return f(asked{ctx: ctx, stage: StageConnect, session: s})
}

func (f filter) Helo(ctx context.Context, s *mail.Session) (mail.Verdict, error) {
	return f(asked{ctx: ctx, stage: StageHelo, session: s})
}

func (f filter) Mail(ctx context.Context, s *mail.Session) (mail.Verdict, error) {
	return f(asked{ctx: ctx, stage: StageMail, session: s})
}

func (f filter) Rcpt(ctx context.Context, s *mail.Session, rcpt mail.Recipient) (mail.Verdict, error) {
	return f(asked{ctx: ctx, stage: StageRcpt, session: s, rcpt: rcpt})
}

func (f filter) Message(ctx context.Context, s *mail.Session, m *mail.Message) (mail.Verdict, error) {
	return f(asked{ctx: ctx, stage: StageMessage, session: s, message: m})
}

// says is a filter that always gives the same verdict.
func says(v mail.Verdict) filter { return func(asked) (mail.Verdict, error) { return v, nil } }

var allStages = []Stage{StageConnect, StageHelo, StageMail, StageRcpt, StageMessage}

var (
	ann = mail.MustParseAddress("ann@example.com")
	bob = mail.MustParseAddress("bob@example.com")
	cy  = mail.MustParseAddress("cy@example.com")
)

func newSession() *mail.Session {
	return &mail.Session{ID: "s1", Listener: "mx", Remote: netip.MustParseAddrPort("192.0.2.1:25"), From: ann}
}

func newMessage(text string) *mail.Message {
	return &mail.Message{
		Envelope: mail.Envelope{From: ann, To: []mail.Recipient{{Address: bob}}},
		Content:  mail.Bytes([]byte(text)),
	}
}

const plain = "Subject: hi\r\nTo: bob\r\n\r\nbody\r\n"

// with returns a pipeline that has these steps at every stage, and the events that it emits.
func with(steps ...Step) (*Pipeline, *[]event.Event) {
	p := &Pipeline{Name: "test", Stages: map[Stage][]Step{}, Events: &event.Bus{}}
	for _, s := range allStages {
		p.Stages[s] = steps
	}
	var seen []event.Event
	p.Events.Listen(func(e event.Event) { seen = append(seen, e) })
	return p, &seen
}

func (p *Pipeline) at(ctx context.Context, stage Stage, s *mail.Session) Result {
	switch stage {
	case StageConnect:
		return p.Connect(ctx, s)
	case StageHelo:
		return p.Helo(ctx, s)
	case StageMail:
		return p.Mail(ctx, s)
	case StageRcpt:
		return p.Rcpt(ctx, s, mail.Recipient{Address: bob})
	default:
		return p.Message(ctx, s, newMessage(plain))
	}
}

func text(t *testing.T, c mail.Content) string {
	t.Helper()
	b := make([]byte, c.Size())
	if n, err := c.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	return string(b)
}

func TestVerdictsAreCombined(t *testing.T) {
	mark := func(name string) Step {
		return Step{Plugin: name, Filter: says(mail.Continue(mail.SetMeta{Key: name, Value: "1"}))}
	}
	ends := func(v mail.Verdict) Step {
		v.Edits = []mail.Edit{mail.SetMeta{Key: "e", Value: "1"}}
		return Step{Plugin: "end", Filter: says(v)}
	}
	reject := mail.Reject(550, "5.7.1", "no")
	disconnect := mail.Verdict{Action: mail.ActionDisconnect, Reply: mail.NewReply(421, "", "bye")}
	for _, tc := range []struct {
		name  string
		steps []Step
		want  mail.Action
		meta  string
	}{
		{"none", nil, mail.ActionContinue, ""},
		{"all continue", []Step{mark("a"), mark("b")}, mail.ActionContinue, "ab"},
		{"accept skips the rest", []Step{mark("a"), ends(mail.Accept()), mark("b")}, mail.ActionAccept, "ae"},
		{"reject", []Step{mark("a"), ends(reject), mark("b")}, mail.ActionReject, "ae"},
		{"tempfail", []Step{ends(mail.TempFail(450, "4.7.1", "later")), mark("b")}, mail.ActionTempFail, "e"},
		{"disconnect", []Step{ends(disconnect), mark("b")}, mail.ActionDisconnect, "e"},
	} {
		for _, stage := range allStages {
			p, events := with(tc.steps...)
			s := newSession()
			r := p.at(t.Context(), stage, s)
			if r.Verdict.Action != tc.want || r.Verdict.Check() != nil || r.Verdict.Edits != nil {
				t.Errorf("%s at %s: %+v", tc.name, stage, r.Verdict)
			}
			meta := ""
			for _, e := range r.Edits {
				meta += e.(mail.SetMeta).Key
			}
			if meta != tc.meta || len(s.Meta) != len(tc.meta) {
				t.Errorf("%s at %s: edits %v, session %v", tc.name, stage, r.Edits, s.Meta)
			}
			if len(*events) != len(tc.meta) {
				t.Errorf("%s at %s: %d events", tc.name, stage, len(*events))
			}
		}
	}
}

func TestActionsThatNeedAMessage(t *testing.T) {
	for _, v := range []mail.Verdict{mail.Discard("spam"), mail.Quarantine("virus")} {
		for _, stage := range allStages {
			p, _ := with(Step{Plugin: "x", Filter: says(v)})
			got, want := p.at(t.Context(), stage, newSession()).Verdict, v.Action
			if stage == StageConnect || stage == StageHelo {
				want = mail.ActionTempFail
			}
			if got.Action != want || got.Check() != nil {
				t.Errorf("%s at %s: %+v", v.Action, stage, got)
			}
		}
	}
}

// broken is every way of failing that does not need time.
var broken = map[string]filter{
	"error":           func(asked) (mail.Verdict, error) { return mail.Accept(), errors.New("secret path /etc/x") },
	"reply as error":  func(asked) (mail.Verdict, error) { r := mail.NewReply(250, "", "ok"); return mail.Accept(), &r },
	"panic":           func(asked) (mail.Verdict, error) { panic("secret") },
	"nil panic":       func(asked) (mail.Verdict, error) { panic(nil) },
	"goexit":          func(asked) (mail.Verdict, error) { runtime.Goexit(); return mail.Accept(), nil },
	"no verdict":      says(mail.Verdict{}),
	"unknown":         says(mail.Verdict{Action: 42}),
	"wrong class":     says(mail.Reject(250, "", "ok")),
	"CRLF in a reply": says(mail.Reject(550, "", "no\r\n250 ok")),
	"nil edit":        says(mail.Accept(nil)),
	"illegal edit":    says(mail.Accept(mail.SetMeta{Key: "good", Value: "1"}, mail.AddHeader{Name: "X", Value: "a\r\nBcc: b"})),
	"protected":       says(mail.Accept(mail.SetMeta{Key: "good", Value: "1"}, mail.AddHeader{Name: "received", Value: "from hell"})),
	"too many edits":  says(mail.Accept(make([]mail.Edit, maxEdits+1)...)),
}

func TestBrokenFilters(t *testing.T) {
	for _, onError := range []OnError{"", OnErrorTempFail, OnErrorAccept, OnErrorReject, OnErrorQuarantine, "nonsense"} {
		for _, stage := range allStages {
			for name, f := range broken {
				p, events := with(Step{Plugin: "bad", Filter: f, OnError: onError}, Step{Plugin: "next", Filter: says(mail.Continue())})
				s := newSession()
				r := p.at(t.Context(), stage, s)
				want, reply := mail.ActionTempFail, "451 4.3.0"
				switch {
				case onError == OnErrorAccept:
					want, reply = mail.ActionContinue, ""
				case onError == OnErrorReject:
					want, reply = mail.ActionReject, "554 5.3.0"
				case onError == OnErrorQuarantine && stage != StageConnect && stage != StageHelo:
					want, reply = mail.ActionQuarantine, ""
				}
				at := fmt.Sprintf("%s, on_error %q, at %s", name, onError, stage)
				if r.Verdict.Action != want || r.Verdict.Check() != nil || reply != "" && !strings.HasPrefix(r.Verdict.Reply.String(), reply) {
					t.Errorf("%s: %+v", at, r.Verdict)
				}
				if strings.Contains(r.Verdict.Reply.Text, "bad") || strings.Contains(r.Verdict.Reply.Text, "secret") {
					t.Errorf("%s: the peer is told %q", at, r.Verdict.Reply.Text)
				}
				if len(r.Edits) != 0 || len(s.Meta) != 0 {
					t.Errorf("%s: edits remain: %v, %v", at, r.Edits, s.Meta)
				}
				e := (*events)[0]
				if e.Name != event.FilterVerdict || e.Plugin != "bad" || e.Stage != string(stage) || e.Class != want.String() || e.Err == nil || e.Session != "s1" {
					t.Errorf("%s: event %+v", at, e)
				}
				if asked := len(*events) == 2; asked != (want == mail.ActionContinue) {
					t.Errorf("%s: %d events", at, len(*events))
				}
			}
		}
	}
}

func TestWhen(t *testing.T) {
	for _, stage := range allStages {
		var got Facts
		see := func(answer bool, err error) func(Facts) (bool, error) {
			return func(f Facts) (bool, error) { got = f; return answer, err }
		}
		for name, tc := range map[string]struct {
			when   func(Facts) (bool, error)
			want   mail.Action
			events int
		}{
			"true":  {see(true, nil), mail.ActionReject, 1},
			"false": {see(false, nil), mail.ActionContinue, 0},
			"error": {see(true, errors.New("no such attribute")), mail.ActionTempFail, 1},
			"panic": {func(Facts) (bool, error) { panic("x") }, mail.ActionTempFail, 1},
		} {
			p, events := with(Step{Plugin: "x", Filter: says(mail.Reject(550, "", "no")), When: tc.when})
			r := p.at(t.Context(), stage, newSession())
			if r.Verdict.Action != tc.want || len(*events) != tc.events {
				t.Errorf("%s at %s: %+v, %d events", name, stage, r.Verdict, len(*events))
			}
		}
		if got.Session.ID != "s1" || (got.Rcpt != nil) != (stage == StageRcpt) || (got.Message != nil) != (stage == StageMessage) {
			t.Errorf("at %s: %+v", stage, got)
		}
	}
}

// rcptOnly has one method, as a plugin in this process would.
type rcptOnly struct{}

func (rcptOnly) Rcpt(context.Context, *mail.Session, mail.Recipient) (mail.Verdict, error) {
	return mail.Reject(550, "", "no"), nil
}

// picky has every method and means one, as a plugin in another process does.
type picky struct {
	filter
	stage Stage
}

func (p picky) Handles(stage string) bool { return stage == string(p.stage) }

func TestOnlyMethodsThatAreThereAreAsked(t *testing.T) {
	for _, stage := range allStages {
		for name, f := range map[string]any{"one method": rcptOnly{}, "handles": picky{says(mail.Reject(550, "", "no")), StageRcpt}, "nothing": nil, "no filter": 7} {
			conditions := 0
			p, events := with(Step{Filter: f, When: func(Facts) (bool, error) { conditions++; return true, nil }})
			want := mail.ActionContinue
			if stage == StageRcpt && (name == "one method" || name == "handles") {
				want = mail.ActionReject
			}
			r := p.at(t.Context(), stage, newSession())
			if n := len(*events); r.Verdict.Action != want || n != conditions || (n == 1) != (want == mail.ActionReject) {
				t.Errorf("%s at %s: %+v, %d events, %d conditions", name, stage, r.Verdict, n, conditions)
			}
		}
	}
}

func TestLaterStepsSeeEdits(t *testing.T) {
	var last asked
	see := Step{Plugin: "see", Filter: filter(func(a asked) (mail.Verdict, error) { last = a; return mail.Continue(), nil })}
	edit := func(edits ...mail.Edit) Step { return Step{Plugin: "edit", Filter: says(mail.Continue(edits...))} }
	bad := Step{Plugin: "bad", Filter: says(mail.Verdict{Edits: []mail.Edit{mail.SetMeta{Key: "bad", Value: "1"}}}), OnError: OnErrorAccept}

	p, _ := with(edit(mail.SetMeta{Key: "score", Value: "5"}), bad, edit(mail.SetMeta{Key: "score", Value: "7"}), see)
	before := map[string]string{"old": "1", "score": "1"}
	s := newSession()
	s.Meta = before
	p.Connect(t.Context(), s)
	if fmt.Sprint(last.session.Meta, s.Meta, before) != "map[old:1 score:7] map[old:1 score:7] map[old:1 score:1]" {
		t.Errorf("meta: %v, %v, %v", last.session.Meta, s.Meta, before)
	}

	p, _ = with(edit(mail.SetSender{Address: cy}), see)
	if r := p.Mail(t.Context(), s); last.session.From != cy || s.From != ann || len(r.Edits) != 1 {
		t.Errorf("sender: %v, session %v, %v", last.session.From, s.From, r.Edits)
	}

	p, events := with(edit(mail.RewriteRecipient{Old: bob, New: cy}), see)
	r := p.Rcpt(t.Context(), s, mail.Recipient{Address: bob, Original: "rfc822;bob@x.org"})
	if last.rcpt != (mail.Recipient{Address: cy, Original: "rfc822;bob@x.org"}) || len(r.Edits) != 1 || (*events)[1].To != cy.String() {
		t.Errorf("recipient: %v, %v", last.rcpt, r.Edits)
	}

	p, _ = with(edit(mail.AddHeader{Name: "X-A", Value: "1"}, mail.DropRecipient{Address: bob}, mail.AddRecipient{Recipient: mail.Recipient{Address: cy}}), see)
	m := newMessage(plain)
	r = p.Message(t.Context(), s, m)
	if last.message.Header[0].Name != "X-A" || text(t, last.message.Content) != "X-A: 1\r\n"+plain || last.message.Envelope.To[0].Address != cy {
		t.Errorf("message: %+v", last.message)
	}
	if r.Message.Content != last.message.Content || len(r.Edits) != 3 || m.Envelope.To[0].Address != bob || m.Header != nil {
		t.Errorf("result: %+v, given: %+v", r, m)
	}
}

func TestStepsDoNotChangeWhatOthersSaw(t *testing.T) {
	var seen []*mail.Message
	step := func(edits ...mail.Edit) Step {
		return Step{Filter: filter(func(a asked) (mail.Verdict, error) {
			seen = append(seen, a.message)
			return mail.Continue(edits...), nil
		})}
	}
	p, _ := with(
		step(mail.AddHeader{Name: "X", Value: "1"}, mail.RewriteRecipient{Old: bob, New: cy}),
		step(mail.RemoveHeader{ID: 3}, mail.RewriteRecipient{Old: cy, New: ann}),
		step(mail.AddHeader{Name: "Y", Value: "2"}),
		step(),
	)
	p.Message(t.Context(), newSession(), newMessage(plain))
	for i, want := range []string{"bob 2: Subject 1 To 2", "cy 3: X 3 Subject 1 To 2", "ann 2: Subject 1 To 2", "ann 3: Y 4 Subject 1 To 2"} {
		m := seen[i]
		got := fmt.Sprintf("%s %d:", m.Envelope.To[0].Address.Local(), len(m.Header))
		for _, f := range m.Header {
			got += fmt.Sprintf(" %s %d", f.Name, f.ID)
		}
		if got != want {
			t.Errorf("step %d saw %s, want %s", i+1, got, want)
		}
	}
}

func TestEditsOfEachStage(t *testing.T) {
	kinds := map[string]struct {
		edit   mail.Edit
		stages string
	}{
		"meta":          {mail.SetMeta{Key: "k", Value: "v"}, "connect helo mail rcpt message"},
		"add header":    {mail.AddHeader{Name: "X", Value: "v"}, "mail rcpt message"},
		"8-bit header":  {mail.AddHeader{Name: "X", Value: "é"}, ""},
		"replace":       {mail.ReplaceHeader{ID: 1, Value: "v"}, "message"},
		"remove":        {mail.RemoveHeader{ID: 1}, "message"},
		"body":          {mail.ReplaceBody{Body: []byte("x\r\n")}, "message"},
		"sender":        {mail.SetSender{Address: cy}, "mail message"},
		"add recipient": {mail.AddRecipient{Recipient: mail.Recipient{Address: cy}}, "rcpt message"},
		"drop":          {mail.DropRecipient{Address: cy}, "message"},
		"rewrite":       {mail.RewriteRecipient{Old: bob, New: cy}, "rcpt message"},
		"rewrite other": {mail.RewriteRecipient{Old: cy, New: ann}, "message"},
	}
	for name, k := range kinds {
		for _, stage := range allStages {
			p, _ := with(Step{Filter: says(mail.Accept(k.edit))})
			r := p.at(t.Context(), stage, newSession())
			if got, want := r.Verdict.Action == mail.ActionAccept, strings.Contains(k.stages, string(stage)); got != want {
				t.Errorf("%s at %s: %+v", name, stage, r)
			}
		}
	}
}

func TestReasonsAreMadeHarmless(t *testing.T) {
	v := mail.Quarantine("line\r\nid=42 \x1b[2J\u2028\xff" + strings.Repeat("é", 2*maxReason))
	p, events := with(Step{Filter: says(v)})
	r := p.Message(t.Context(), newSession(), newMessage(plain))
	if got := r.Verdict.Reason; strings.ContainsAny(got, "\r\n\x1b\u2028") || !utf8.ValidString(got) || len([]rune(got)) != maxReason || (*events)[0].Reason != got {
		t.Errorf("%q", got)
	}
}

func TestMetaIsBounded(t *testing.T) {
	n := 0
	p, _ := with(Step{Filter: filter(func(asked) (mail.Verdict, error) {
		n++
		return mail.Continue(mail.SetMeta{Key: fmt.Sprint(n), Value: "v"}), nil
	}), OnError: OnErrorAccept})
	s := newSession()
	for range maxMeta + 10 {
		p.Connect(t.Context(), s)
	}
	if len(s.Meta) != maxMeta {
		t.Errorf("%d values", len(s.Meta))
	}
}

func TestHeaderThatCannotBeRead(t *testing.T) {
	long := strings.Repeat("X: "+strings.Repeat("v", 500)+"\r\n", mail.MaxHeader/500)
	p, events := with(Step{Filter: says(mail.Accept())})
	if r := p.Message(t.Context(), newSession(), newMessage(long+"\r\n")); !strings.HasPrefix(r.Verdict.Reply.String(), "552 5.3.4") || len(*events) != 0 {
		t.Errorf("too long: %+v", r.Verdict)
	}
	if r := p.Message(t.Context(), newSession(), &mail.Message{Content: unreadable{}}); r.Verdict.Action != mail.ActionTempFail {
		t.Errorf("unreadable: %+v", r.Verdict)
	}
}

type unreadable struct{}

func (unreadable) Size() int64                       { return 100 }
func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, errors.New("disk on fire") }

func TestNoStepsCostNothing(t *testing.T) {
	empty, other := &Pipeline{}, &Pipeline{Stages: map[Stage][]Step{StageHelo: {{Filter: says(mail.Accept())}}}}
	s, m, ctx := newSession(), newMessage(plain), t.Context()
	for name, p := range map[string]*Pipeline{"nil": nil, "empty": empty, "another stage": other} {
		allocs := testing.AllocsPerRun(100, func() {
			p.Connect(ctx, s)
			p.Mail(ctx, s)
			p.Rcpt(ctx, s, mail.Recipient{Address: bob})
			if p.Message(ctx, s, m).Message != m {
				t.Error("the message has been changed")
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	for name, f := range map[string]any{"goroutine": says(mail.Continue()), "prompt": prompt{says(mail.Continue())}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			p := &Pipeline{Stages: map[Stage][]Step{StageRcpt: {{Filter: f}}}}
			s := newSession()
			for b.Loop() {
				p.Rcpt(b.Context(), s, mail.Recipient{Address: bob})
			}
		})
	}
}
