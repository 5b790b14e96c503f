package bounce

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"mime"
	netmail "net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset"

	"github.com/pabal-mta/mta/sdk/mail"
)

var update = flag.Bool("update", false, "write the golden files")

const original = "Received: from client.example.org by mx1.example.com;\r\n\tSun, 22 Nov 2026 09:00:00 +0000\r\n" +
	"From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: Lunch\r\nMessage-ID: <lunch.1@example.org>\r\n\r\n" +
	"Are you free?\r\n.\r\nAnn\r\n"

func clock(hour int) time.Time { return time.Date(2026, 11, 22, hour, 0, 0, 0, time.UTC) }

func report(kind mail.FailureKind, recipients ...mail.FailedRecipient) Report {
	return Report{
		Failure: mail.Failure{
			ID: "01JD8Z5QK3M7T", Kind: kind, From: mail.MustParseAddress("ann@example.org"), EnvID: "QQ314159",
			Recipients: recipients, Arrived: clock(9), Hostname: "mx1.example.com",
			Postmaster: mail.MustParseAddress("postmaster@example.com"),
		},
		Original: mail.Bytes([]byte(original)), Ret: mail.RetFull, Time: clock(15),
	}
}

func failed(to, reply string, code int) mail.FailedRecipient {
	f := mail.FailedRecipient{Recipient: mail.Recipient{Address: mail.MustParseAddress(to)}, Host: "mx.example.net", Time: clock(14)}
	f.Reply = mail.Reply{Code: code, Text: reply}
	return f
}

// parsed is a report as a mail program sees it.
type parsed struct {
	header message.Header
	raw    []byte
	env    mail.Envelope
	human  string
	groups []textproto.MIMEHeader // of the status part: first the message, then each recipient
	kinds  []string               // content types of the parts
	back   string                 // the original, as far as it came back
}

func write(t testing.TB, r Report) parsed {
	t.Helper()
	raw, env, err := Write(r)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, raw, env)
}

func parse(t testing.TB, raw []byte, env mail.Envelope) parsed {
	t.Helper()
	wellFormed(t, raw, env)
	e, err := message.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	p := parsed{header: e.Header, raw: raw, env: env}
	parts := e.MultipartReader()
	if parts == nil {
		t.Fatalf("not a multipart:\n%s", raw)
	}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p.take(t, part)
	}
	if len(p.kinds) < 2 || len(p.groups) < 2 {
		t.Fatalf("parts %v, status groups %d", p.kinds, len(p.groups))
	}
	return p
}

func (p *parsed) take(t testing.TB, part *message.Entity) {
	t.Helper()
	kind, _, err := part.Header.ContentType()
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(part.Body)
	if err != nil {
		t.Fatal(err)
	}
	switch p.kinds = append(p.kinds, kind); len(p.kinds) {
	case 1:
		p.human = string(body)
	case 2:
		for group := range strings.SplitSeq(strings.TrimRight(string(body), "\r\n"), "\r\n\r\n") {
			m, err := netmail.ReadMessage(strings.NewReader(group + "\r\n\r\n"))
			if err != nil {
				t.Fatalf("status group %q: %v", group, err)
			}
			p.groups = append(p.groups, textproto.MIMEHeader(m.Header))
		}
	case 3:
		p.back = string(body)
	}
}

// wellFormed checks what must hold for every report: CRLF lines within the limit, no control, a body type that covers the
// octets, a null sender, and each header field of the report once.
func wellFormed(t testing.TB, raw []byte, env mail.Envelope) {
	t.Helper()
	if !env.From.IsNull() || len(env.To) != 1 {
		t.Fatalf("envelope %+v", env)
	}
	if !isLines(raw) {
		t.Fatalf("not CRLF lines of at most 998 octets: %q", raw)
	}
	if !isASCII(raw) && env.Body != mail.Body8Bit {
		t.Fatal("8-bit content is declared as 7bit")
	}
	m, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range m.Header {
		if len(values) != 1 {
			t.Errorf("%s stands %d times", name, len(values))
		}
	}
	for _, name := range []string{"From", "To"} {
		if list, err := m.Header.AddressList(name); err != nil || len(list) != 1 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	if _, err := m.Header.Date(); err != nil {
		t.Error(err)
	}
	if m.Header.Get("Auto-Submitted") != "auto-replied" {
		t.Error("a report says that it was made by a program")
	}
}

func TestGolden(t *testing.T) {
	bob := failed("bob@example.net", "no such mailbox\nsee https://example.net/help", 550)
	bob.Reply.Enhanced = mail.EnhancedCode{5, 1, 1}
	bob.Recipient.Original = "rfc822;bob.old@example.org"
	carl := failed("carl@example.net", "over quota", 452)
	late := failed("bob@example.net", "greylisted, come back later", 451)
	late.Reply.Enhanced = mail.EnhancedCode{4, 7, 1}
	ours := failed("dora@example.net", "no host of example.net takes connections", 451)
	ours.Host, ours.Reply.Enhanced = "", mail.EnhancedCode{4, 4, 1}
	done := failed("bob@example.net", "2.1.5 ok", 250)
	passed := failed("carl@example.com", "queued as 1", 250)

	delayed := report(mail.FailureDelayed, late, ours)
	delayed.Failure.Expires = clock(9).AddDate(0, 0, 5)
	delivered := report(mail.FailureDelivered, done, passed)
	delivered.Actions = []Action{Delivered, Relayed}
	for name, r := range map[string]Report{
		"failed": report(mail.FailurePermanent, bob, carl), "delayed": delayed, "delivered": delivered,
	} {
		t.Run(name, func(t *testing.T) {
			p := write(t, r)
			golden(t, name+".eml", p.raw)
		})
	}
}

// golden compares with testdata, the boundary and the random part of the Message-ID made the same each time.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	got = regexp.MustCompile(`=_[A-Z2-7]{26}`).ReplaceAll(got, []byte("=_BOUNDARY"))
	got = regexp.MustCompile(`(Message-ID: )<[a-z2-7]{26}@`).ReplaceAll(got, []byte("$1<RANDOM@"))
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it):\n%s", name, got)
	}
}

func TestStatusFields(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Report, *mail.FailedRecipient)
		want   map[string]string // "" means that the field must be absent
	}{
		{"code without enhanced", nil, map[string]string{"Status": "5.0.0", "Action": "failed", "Remote-Mta": "dns; mx.example.net"}},
		{"enhanced code", func(_ *Report, f *mail.FailedRecipient) { f.Reply.Enhanced = mail.EnhancedCode{5, 7, 26} }, map[string]string{"Status": "5.7.26"}},
		{"enhanced code of another class", func(_ *Report, f *mail.FailedRecipient) { f.Reply.Enhanced = mail.EnhancedCode{2, 0, 0} }, map[string]string{"Status": "5.0.0"}},
		{"enhanced code out of range", func(_ *Report, f *mail.FailedRecipient) { f.Reply.Enhanced = mail.EnhancedCode{5, -1, 7000} }, map[string]string{"Status": "5.0.0"}},
		{"tried until the end", func(_ *Report, f *mail.FailedRecipient) { f.Reply.Code = 451 }, map[string]string{"Status": "4.4.7", "Action": "failed"}},
		{"no reply at all", func(_ *Report, f *mail.FailedRecipient) { f.Reply = mail.Reply{} }, map[string]string{"Status": "5.0.0", "Diagnostic-Code": ""}},
		{"our own words", func(_ *Report, f *mail.FailedRecipient) { f.Host = "" }, map[string]string{"Remote-Mta": "", "Diagnostic-Code": "X-Pabal; 550 no"}},
		{"host is an address", func(_ *Report, f *mail.FailedRecipient) { f.Host = "2001:db8::1%eth0" }, map[string]string{"Remote-Mta": "dns; [IPv6:2001:db8::1]"}},
		{"host is a path", func(_ *Report, f *mail.FailedRecipient) { f.Host = "unix:/run/lmtp" }, map[string]string{"Remote-Mta": ""}},
		{"no time", func(_ *Report, f *mail.FailedRecipient) { f.Time = time.Time{} }, map[string]string{"Last-Attempt-Date": ""}},
		{"original recipient", func(_ *Report, f *mail.FailedRecipient) { f.Recipient.Original = "rfc822;a+b c@example.net" }, map[string]string{"Original-Recipient": "rfc822; a+b c@example.net"}},
		{"original without type", func(_ *Report, f *mail.FailedRecipient) { f.Recipient.Original = "a@example.net" }, map[string]string{"Original-Recipient": ""}},
		{"original with a bad type", func(_ *Report, f *mail.FailedRecipient) { f.Recipient.Original = "rfc 822;a@example.net" }, map[string]string{"Original-Recipient": ""}},
		{"delay", func(r *Report, f *mail.FailedRecipient) {
			r.Failure.Kind, r.Failure.Expires, f.Reply.Code = mail.FailureDelayed, clock(20), 450
		}, map[string]string{"Status": "4.0.0", "Action": "delayed", "Will-Retry-Until": "Sun, 22 Nov 2026 20:00:00 +0000"}},
		{"failure has no retry", func(r *Report, _ *mail.FailedRecipient) { r.Failure.Expires = clock(20) }, map[string]string{"Will-Retry-Until": ""}},
		{"unknown action", func(r *Report, _ *mail.FailedRecipient) { r.Actions = []Action{"x\r\ny"} }, map[string]string{"Action": "failed"}},
		{"success", func(r *Report, f *mail.FailedRecipient) {
			r.Failure.Kind, r.Actions, f.Reply = mail.FailureDelivered, []Action{Expanded}, mail.Reply{Code: 250}
		}, map[string]string{"Status": "2.0.0", "Action": "expanded", "Last-Attempt-Date": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := failed("bob@example.net", "no", 550)
			r := report(mail.FailurePermanent)
			if tt.change != nil {
				tt.change(&r, &f)
			}
			r.Failure.Recipients = []mail.FailedRecipient{f}
			p := write(t, r)
			for name, want := range tt.want {
				if got := p.groups[1].Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if got := p.groups[0].Get("Original-Envelope-Id"); got != "QQ314159" {
				t.Errorf("Original-Envelope-Id: %q", got)
			}
		})
	}
}

func TestWhatGoesBack(t *testing.T) {
	big := original + strings.Repeat("0123456789\r\n", 5000)
	eight := strings.Replace(original, "free?", "frei, Jörg?", 1)
	for _, tt := range []struct {
		name    string
		content string
		change  func(*Report)
		kind    string
		back    string
		body    mail.BodyType
	}{
		{"full", original, nil, "message/rfc822", original, mail.Body7Bit},
		{"headers", original, func(r *Report) { r.Ret = mail.RetHeaders }, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"unset", original, func(r *Report) { r.Ret = mail.RetUnset }, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"delay", original, func(r *Report) { r.Failure.Kind = mail.FailureDelayed }, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"requiretls", original, func(r *Report) { r.RequireTLS = true }, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"too large", big, nil, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"limit raised", big, func(r *Report) { r.Limit = 1 << 20 }, "message/rfc822", big, mail.Body7Bit},
		{"8-bit", eight, nil, "message/rfc822", eight, mail.Body8Bit},
		{"8-bit body, headers asked", eight, func(r *Report) { r.Ret = mail.RetHeaders }, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"binary", original + "a\x00b\r\n", nil, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"bare LF", original + "a\nb\r\n", nil, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"header with bare CR", "Subject: a\rb\r\nFrom: Ann <a@b>\r\n\r\n", nil, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"UTF-8 header", strings.Replace(original, "Lunch", "점심", 1), func(r *Report) { r.UTF8 = true }, "message/global", "점심", mail.Body8Bit},
		{"UTF-8 headers only", strings.Replace(original, "Lunch", "점심", 1), func(r *Report) { r.UTF8, r.Ret = true, mail.RetHeaders }, "message/global-headers", "점심", mail.Body8Bit},
		{"no header at all", "\r\nbody\r\n", func(r *Report) { r.Ret = mail.RetHeaders }, "", "", mail.Body7Bit},
		{"nothing", "", func(r *Report) { r.Original = nil }, "", "", mail.Body7Bit},
		{"only the failure's header", "", func(r *Report) { r.Original, r.Failure.Header = nil, []byte("From: Ann <a@b>\r\n") }, "text/rfc822-headers", "Ann <", mail.Body7Bit},
		{"unreadable", "", func(r *Report) { r.Original = broken{} }, "", "", mail.Body7Bit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := report(mail.FailurePermanent, failed("bob@example.net", "no", 550))
			r.Original = mail.Bytes([]byte(tt.content))
			if tt.change != nil {
				tt.change(&r)
			}
			p := write(t, r)
			kind := ""
			if len(p.kinds) > 2 {
				kind = p.kinds[2]
			}
			if kind != tt.kind || p.env.Body != tt.body || !strings.Contains(p.back, tt.back) {
				t.Errorf("%q (%v), %q", kind, p.env.Body, p.back)
			}
			if kind == "message/rfc822" && p.back != tt.content {
				t.Errorf("the original came back changed: %q", p.back)
			}
			if strings.Contains(kind, "headers") && strings.Contains(p.back, "free") {
				t.Error("the body went back though only headers may")
			}
			if p.env.RequireTLS != r.RequireTLS {
				t.Error("RFC 8689, 5: a report on a REQUIRETLS message asks for it too")
			}
			if p.env.SMTPUTF8 != strings.HasPrefix(kind, "message/global") {
				t.Errorf("SMTPUTF8 is %v for %s", p.env.SMTPUTF8, kind)
			}
		})
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errors.New("checksum mismatch") }
func (broken) Size() int64                       { return 100 }

func TestKoreanNotice(t *testing.T) {
	r := report(mail.FailurePermanent, failed("bob@example.net", "no", 550))
	r.Notice = mail.Notice{
		Action: mail.NoticeRender, Language: "ko", To: mail.MustParseAddress("helpdesk@example.com"),
		Subject: "보내신 편지를 전하지 못했습니다: 받는 사람의 우편함이 그 서버에 없다고 합니다. 주소를 다시 확인해 주십시오",
		Text:    "안녕하세요.\n\n보내신 편지를 bob@example.net 님께 전하지 못했습니다.\n",
	}
	p := write(t, r)
	subject, err := new(mime.WordDecoder).DecodeHeader(p.header.Get("Subject"))
	if err != nil || subject != r.Notice.Subject {
		t.Errorf("Subject: %q, %v", subject, err)
	}
	if want := strings.ReplaceAll(r.Notice.Text, "\n", "\r\n"); p.human != want {
		t.Errorf("%q, want %q", p.human, want)
	}
	if p.env.Body != mail.Body7Bit || !isASCII(p.raw) {
		t.Error("a report in Korean about an ASCII message is 7-bit")
	}
	if got := p.env.To[0].Address.String(); got != "helpdesk@example.com" || !strings.Contains(p.header.Get("To"), got) {
		t.Errorf("sent to %s, To: %s", got, p.header.Get("To"))
	}
	for line := range bytes.Lines(p.raw) {
		if bytes.HasPrefix(line, []byte("Subject:")) && len(line) > 80 {
			t.Errorf("not folded: %q", line)
		}
	}
}

func TestDefaultWords(t *testing.T) {
	for _, action := range []mail.NoticeAction{mail.NoticeUnspecified, mail.NoticeDefault, mail.NoticeSuppress} {
		r := report(mail.FailurePermanent, failed("bob@example.net", "no such mailbox", 550))
		r.Notice = mail.Notice{Action: action, Subject: "ignored", Text: "ignored"}
		p := write(t, r)
		if !strings.Contains(p.human, "550 no such mailbox") || p.header.Get("Subject") == "ignored" {
			t.Errorf("action %d: %q", action, p.human)
		}
	}
	var many []mail.FailedRecipient
	for range 60 {
		many = append(many, failed("bob@example.net", "no", 550))
	}
	p := write(t, report(mail.FailurePermanent, many...))
	if !strings.Contains(p.human, "10 more") || len(p.groups) != 61 {
		t.Errorf("%d groups, %q", len(p.groups), p.human)
	}
}

func TestInternationalAddress(t *testing.T) {
	f := failed("밥+1@example.net", "없는 사용자", 550)
	f.Recipient.Original = "utf-8;밥@example.net"
	r := report(mail.FailurePermanent, f)
	p := write(t, r)
	if p.kinds[1] != "message/delivery-status" || p.env.SMTPUTF8 || p.env.Body != mail.Body7Bit {
		t.Errorf("%v, %+v", p.kinds, p.env)
	}
	if got := p.groups[1].Get("Final-Recipient"); got != `utf-8; \x{BC25}\x{2B}1@example.net` {
		t.Errorf("Final-Recipient: %q", got)
	}
	if got := p.groups[1].Get("Original-Recipient"); got != `utf-8; \x{BC25}@example.net` {
		t.Errorf("Original-Recipient: %q", got)
	}
	r.UTF8, r.Failure.From = true, mail.MustParseAddress("안@example.org")
	p = write(t, r)
	kind, params, err := p.header.ContentType()
	if err != nil || kind != "multipart/report" || params["report-type"] != "global-delivery-status" {
		t.Errorf("%s %v %v", kind, params, err)
	}
	if p.kinds[1] != "message/global-delivery-status" || !p.env.SMTPUTF8 || p.env.Body != mail.Body8Bit {
		t.Errorf("%v, %+v", p.kinds, p.env)
	}
	if got := p.groups[1].Get("Final-Recipient"); got != "utf-8; 밥+1@example.net" {
		t.Errorf("Final-Recipient: %q", got)
	}
	if got := p.groups[1].Get("Diagnostic-Code"); got != "smtp; 550 없는 사용자" {
		t.Errorf("Diagnostic-Code: %q", got)
	}
}

func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*Report){
		"null sender":    func(r *Report) { r.Failure.From = mail.Address{} },
		"no recipients":  func(r *Report) { r.Failure.Recipients = nil },
		"host injection": func(r *Report) { r.Failure.Hostname = "mx\r\nX: y" },
		"no host":        func(r *Report) { r.Failure.Hostname = "" },
		"actions":        func(r *Report) { r.Actions = []Action{Failed, Failed} },
	} {
		r := report(mail.FailurePermanent, failed("bob@example.net", "no", 550))
		change(&r)
		if _, _, err := Write(r); err == nil {
			t.Errorf("%s: a report was written", name)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	r := report(mail.FailurePermanent, failed("bob@example.net", "no such user", 550))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Write(r); err != nil {
			b.Fatal(err)
		}
	}
}
