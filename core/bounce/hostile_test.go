package bounce

import (
	"strings"
	"testing"

	"github.com/pabal-mta/mta/sdk/mail"
)

func TestHostileReplies(t *testing.T) {
	for name, text := range map[string]string{
		"crlf":       "no\r\nSubject: injected\r\nBcc: victim@example.com\r\n\r\nbody",
		"bare":       "no\rSubject: injected\nFinal-Recipient: rfc822; other@example.com",
		"folded":     "no\r\n Action: delivered\r\n\tStatus: 2.0.0",
		"boundary":   "no\r\n--=_BOUNDARY--\r\nContent-Type: text/html\r\n\r\n<script>",
		"bytes":      "\xff\xfe\x80 \xc3\x28 no \x00 \x1b[2J\x9b31m",
		"separators": "no\u2028Subject: injected\u2029x\u0085y\u202egnp.exe",
		"long word":  strings.Repeat("x", 100<<10),
		"long":       strings.Repeat("no such user, ", 10<<10),
		"wide":       strings.Repeat("없는 사용자 ", 10<<10),
		"spaces":     strings.Repeat(" \t", 5000) + "x",
		"empty":      "",
	} {
		for _, kind := range []mail.FailureKind{mail.FailurePermanent, mail.FailureDelayed} {
			t.Run(name, func(t *testing.T) {
				f := failed("bob@example.net", text, 550)
				f.Host = "mx\r\nX: y." + text[:min(len(text), 50)]
				f.Recipient.Original = "rfc822;" + text
				r := report(kind, f, failed("carl@example.net", text, 450))
				r.Failure.EnvID = text
				r.Failure.ID = text
				p := write(t, r)
				if len(p.raw) > 20<<10 {
					t.Errorf("the report has %d bytes", len(p.raw))
				}
				if len(p.groups) != 3 || len(p.kinds) != 3 {
					t.Errorf("%d groups, parts %v", len(p.groups), p.kinds)
				}
				for _, g := range p.groups {
					for field, values := range g {
						if len(values) != 1 || field == "Subject" || field == "Bcc" {
							t.Errorf("%s: %q", field, values)
						}
					}
				}
				if got := p.groups[1].Get("Final-Recipient"); got != "rfc822; bob@example.net" {
					t.Errorf("Final-Recipient: %q", got)
				}
				if strings.ContainsAny(p.human, "\x00\x1b\u009b\u2028\u202e") {
					t.Errorf("controls in %q", p.human)
				}
			})
		}
	}
}

func TestHostileNotice(t *testing.T) {
	r := report(mail.FailurePermanent, failed("bob@example.net", "no", 550))
	r.Notice = mail.Notice{
		Action: mail.NoticeRender, Subject: "a\r\nBcc: victim@example.com", Language: "en\r\nX: y",
		Text: "one\r\n\r\n--boundary\r\nlast\x00\rline\xff " + strings.Repeat("y", 2000),
	}
	p := write(t, r)
	if p.header.Has("Bcc") || len(p.kinds) != 3 || !strings.HasPrefix(p.human, "one\r\n\r\n--boundary\r\nlast") {
		t.Errorf("%v %q", p.kinds, p.human)
	}
	if got := p.header.Get("Subject"); got != "a Bcc: victim@example.com" {
		t.Errorf("Subject: %q", got)
	}
}

func TestOriginalMessageID(t *testing.T) {
	for id, want := range map[string]string{
		"<a@b>": "<a@b>", " <a.b+c@[192.0.2.1]>\t": "<a.b+c@[192.0.2.1]>",
		"": "", "a@b": "", "<a@b": "", "<a b@c>": "", "<a@b> <c@d>": "", "<a@b@c>": "", "<없음@b>": "", "<\"a\"@b>": "",
		"<" + strings.Repeat("a", 300) + "@b>": "",
	} {
		r := report(mail.FailurePermanent, failed("bob@example.net", "no", 550))
		r.Original = mail.Bytes([]byte("Message-ID: " + id + "\r\n\r\n"))
		p := write(t, r)
		if p.header.Get("In-Reply-To") != want || p.header.Get("References") != want {
			t.Errorf("%q: In-Reply-To %q, References %q", id, p.header.Get("In-Reply-To"), p.header.Get("References"))
		}
	}
}

func TestBoundaryIsNotInContent(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		p := write(t, report(mail.FailurePermanent, failed("bob@example.net", "no", 550)))
		_, params, err := p.header.ContentType()
		if err != nil || seen[params["boundary"]] || len(params["boundary"]) < 20 {
			t.Fatalf("boundary %q again (%v)", params["boundary"], err)
		}
		seen[params["boundary"]] = true
	}
}

func FuzzWrite(f *testing.F) {
	f.Add(original, "no such user", "QQ1", "rfc822;a@b", "mx.example.net", "subject", "text\n", true)
	f.Add("a\rb\x00\nc", "\r\nX: y", "\x00\r\n", "x;\r\n", "a\r\nb", "=?utf-8?q?x?=\r\n", "\r\n.\r\n--", false)
	f.Add("Message-ID: <a@b>\r\n x\r\n\r\n", "\xff\xfe", "é", "utf-8;é", "::1%x\r\n", "é\u2028", "\xff", true)
	f.Fuzz(func(t *testing.T, content, reply, envid, orcpt, host, subject, text string, utf8 bool) {
		r := report(mail.FailurePermanent, failed("bob@example.net", reply, 550))
		r.Failure.Recipients[0].Host, r.Failure.Recipients[0].Recipient.Original = host, orcpt
		r.Original, r.Failure.EnvID, r.UTF8 = mail.Bytes([]byte(content)), envid, utf8
		r.Notice = mail.Notice{Action: mail.NoticeRender, Subject: subject, Text: text}
		p := write(t, r)
		if len(p.groups) != 2 || len(p.kinds) > 3 {
			t.Fatalf("%d groups, parts %v", len(p.groups), p.kinds)
		}
	})
}
