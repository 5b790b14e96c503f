package smtpd

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/core/pipeline"
	"github.com/pabal-mta/mta/sdk/mail"
)

// scripted is a filter for all stages.
type scripted struct {
	connect, helo, mail, rcpt, message mail.Verdict
	seen                               []string
}

func (f *scripted) Connect(context.Context, *mail.Session) (mail.Verdict, error) {
	return f.connect, nil
}
func (f *scripted) Helo(_ context.Context, s *mail.Session) (mail.Verdict, error) {
	f.seen = append(f.seen, fmt.Sprintf("helo %s, meta %v, from %q", s.Helo, s.Meta, s.From))
	return f.helo, nil
}
func (f *scripted) Mail(_ context.Context, s *mail.Session) (mail.Verdict, error) {
	f.seen = append(f.seen, "mail "+s.From.String())
	return f.mail, nil
}
func (f *scripted) Rcpt(_ context.Context, s *mail.Session, rcpt mail.Recipient) (mail.Verdict, error) {
	f.seen = append(f.seen, fmt.Sprintf("rcpt %s after %d", rcpt.Address, len(s.To)))
	return f.rcpt, nil
}
func (f *scripted) Message(_ context.Context, s *mail.Session, m *mail.Message) (mail.Verdict, error) {
	f.seen = append(f.seen, fmt.Sprintf("message %q to %d, meta %v", m.Header.Get("Subject"), len(m.Envelope.To), s.Meta))
	return f.message, nil
}

func TestStages(t *testing.T) {
	ann, eve := mail.MustParseAddress("ann@ours.example"), mail.MustParseAddress("eve@ours.example")
	pass := mail.Continue()
	for name, test := range map[string]struct {
		f        scripted
		codes    string // of the greeting and the dialogue
		to       string
		held     string
		contains string
	}{
		"pass":              {f: scripted{pass, pass, pass, pass, pass, nil}, codes: "220 250 250 250 354 250", to: "ann@ours.example"},
		"connect reject":    {f: scripted{connect: mail.Reject(550, "5.7.1", "no")}, codes: "554"},
		"connect tempfail":  {f: scripted{connect: mail.TempFail(450, "4.7.1", "no")}, codes: "421"},
		"helo reject":       {f: scripted{connect: pass, helo: mail.Reject(550, "5.7.1", "no")}, codes: "220 550 503 503 503 500 500 500 500"},
		"mail reject":       {f: scripted{pass, pass, mail.Reject(550, "5.7.1", "no"), pass, pass, nil}, codes: "220 250 550 503 503 500 500 500 500"},
		"rcpt tempfail":     {f: scripted{pass, pass, pass, mail.TempFail(450, "4.7.1", "later"), pass, nil}, codes: "220 250 250 450 554 500 500 500 500"},
		"message reject":    {f: scripted{pass, pass, pass, pass, mail.Reject(550, "5.7.1", "no"), nil}, codes: "220 250 250 250 354 550"},
		"disconnect":        {f: scripted{pass, pass, pass, mail.Verdict{Action: mail.ActionDisconnect, Reply: mail.NewReply(421, "4.7.0", "go")}, pass, nil}, codes: "220 250 250 421"},
		"no verdict":        {f: scripted{pass, pass, pass, pass, mail.Verdict{}, nil}, codes: "220 250 250 250 354 451"},
		"discard message":   {f: scripted{pass, pass, pass, pass, mail.Discard("spam"), nil}, codes: "220 250 250 250 354 250"},
		"discard mail":      {f: scripted{pass, pass, mail.Discard("spam"), pass, pass, nil}, codes: "220 250 250 250 354 250"},
		"quarantine":        {f: scripted{pass, pass, pass, pass, mail.Quarantine("odd"), nil}, codes: "220 250 250 250 354 250", to: "ann@ours.example", held: "odd"},
		"quarantine rcpt":   {f: scripted{pass, pass, pass, mail.Quarantine("odd"), pass, nil}, codes: "220 250 250 250 354 250", to: "ann@ours.example", held: "odd"},
		"rewrite recipient": {f: scripted{pass, pass, pass, mail.Continue(mail.RewriteRecipient{Old: ann, New: eve}), pass, nil}, codes: "220 250 250 250 354 250", to: "eve@ours.example rfc822;ann@ours.example"},
		"add recipient":     {f: scripted{pass, pass, pass, mail.Continue(mail.AddRecipient{Recipient: mail.Recipient{Address: eve}}), pass, nil}, codes: "220 250 250 250 354 250", to: "ann@ours.example eve@ours.example"},
		"add header early":  {f: scripted{pass, pass, mail.Continue(mail.AddHeader{Name: "X-Early", Value: "1"}), pass, pass, nil}, codes: "220 250 250 250 354 250", to: "ann@ours.example", contains: "X-Early: 1\r\n"},
		"add header":        {f: scripted{pass, pass, pass, pass, mail.Continue(mail.AddHeader{Name: "X-Late", Value: "1"}), nil}, codes: "220 250 250 250 354 250", to: "ann@ours.example", contains: "X-Late: 1\r\n"},
		"meta":              {f: scripted{pass, mail.Continue(mail.SetMeta{Key: "k", Value: "v"}), pass, pass, pass, nil}, codes: "220 250 250 250 354 250", to: "ann@ours.example"},
	} {
		t.Run(name, func(t *testing.T) {
			f := test.f
			p := &pipeline.Pipeline{Stages: map[pipeline.Stage][]pipeline.Step{}}
			for _, s := range []pipeline.Stage{pipeline.StageConnect, pipeline.StageHelo, pipeline.StageMail, pipeline.StageRcpt, pipeline.StageMessage} {
				p.Stages[s] = []pipeline.Step{{Plugin: "p", Filter: &f}}
			}
			in(t, func(_ *Config, d *Deps) { d.Pipeline = func() *pipeline.Pipeline { return p } }, func(t *testing.T, r *rig) {
				c := r.dial()
				said := c.hear()
				for _, line := range []string{"HELO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<ann@ours.example>", "DATA", "Subject: x\r\n\r\nbody\r\n."} {
					said += c.say(line + "\r\n")
				}
				if codes(said) != test.codes {
					t.Errorf("said %s\nwant %s", said, test.codes)
				}
				got := r.take()
				if (len(got) > 0) != (test.to != "") {
					t.Fatalf("%d messages were queued", len(got))
				}
				if len(got) == 0 {
					c.conn.Close()
					return
				}
				to := ""
				for _, rcpt := range got[0].Envelope.To {
					to += " " + strings.TrimSpace(rcpt.Address.String()+" "+rcpt.Original)
				}
				if to != " "+test.to || got[0].Held != test.held {
					t.Errorf("queued to%s, held %q", to, got[0].Held)
				}
				if !strings.Contains(got[0].top+got[0].text, test.contains) {
					t.Errorf("content is %q", got[0].text)
				}
				if name == "meta" && got[0].Meta["k"] != "v" {
					t.Errorf("meta is %v", got[0].Meta)
				}
				c.conn.Close()
			})
		})
	}
}

// TestHeloForgets checks that HELO within a transaction ends it before the filters are asked (RFC 5321, 4.1.4).
func TestHeloForgets(t *testing.T) {
	f := &scripted{helo: mail.Continue(), mail: mail.Continue(mail.SetMeta{Key: "k", Value: "v"})}
	p := &pipeline.Pipeline{Stages: map[pipeline.Stage][]pipeline.Step{
		pipeline.StageHelo: {{Plugin: "p", Filter: f}}, pipeline.StageMail: {{Plugin: "p", Filter: f}},
	}}
	in(t, func(_ *Config, d *Deps) { d.Pipeline = func() *pipeline.Pipeline { return p } }, func(t *testing.T, r *rig) {
		c := r.dial()
		c.hear()
		c.expect("HELO one.example", "250")
		c.expect("MAIL FROM:<a@c.example>", "250")
		c.expect("HELO two.example", "250")
		c.expect("RCPT TO:<ann@ours.example>", "503")
		if got := f.seen[len(f.seen)-1]; got != `helo two.example, meta map[], from ""` {
			t.Errorf("the filter saw %s", got)
		}
		c.conn.Close()
	})
}
