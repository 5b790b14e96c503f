// Package bounces is the plugin that words reports for people: that a message was not delivered, is late, or has arrived.
//
// It is the builtin "bounces", a BounceNotifier. It writes the human part of a report in a language of the sender's,
// English or Korean; the machine part is the server's own. It can send reports elsewhere, keep some from being sent, and
// tell another system by a webhook. What other servers said is quoted, never followed. When it fails, the server's own
// report goes out. Webhook calls that have not been taken yet are lost when its process ends; the mail is not.
package bounces

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/schema"
)

// Config is the plugin's block in mta.hcl.
type Config struct {
	Languages []string      `mta:"languages,optional" default:"en" doc:"the languages to write in: en, ko; the Accept-Language and Content-Language of the message choose among them, else it is the first"`
	Redirect  mail.Address  `mta:"redirect,optional" doc:"who gets all reports in the sender's place"`
	Suppress  []string      `mta:"suppress,optional" doc:"senders who get no reports, such as *@bulk.example"`
	Webhook   string        `mta:"webhook,optional" doc:"a URL that each report is posted to as JSON; https, or http to a loopback address"`
	Secret    schema.Secret `mta:"secret,optional" doc:"the key of the Mta-Signature header of webhook calls: t=SECONDS,v1=HEX, the HMAC-SHA-256 of SECONDS, a dot and the body"`
	GiveUp    time.Duration `mta:"give_up,optional" default:"24h" doc:"how long a webhook call is tried again"`
}

// Plugin is the builtin "bounces".
func Plugin() sdk.Served {
	return sdk.Of(sdk.Plugin[Config]{
		Name: "bounces", Version: "0.1.0", Doc: "reports in the sender's language, elsewhere, not at all, or to a webhook",
		Kinds: (*Bounces)(nil),
		New: func(_ context.Context, cfg Config, host sdk.Host) (any, error) {
			return New(cfg, host.Logger())
		},
	})
}

// Check finds what is wrong with languages and URL.
func (c Config) Check() (problems []schema.Problem) {
	report := func(err error, path ...string) {
		if err != nil {
			problems = append(problems, schema.Problem{Path: path, Summary: err.Error()})
		}
	}
	if len(c.Languages) == 0 {
		report(errors.New("at least one language is wanted, such as en"), "languages")
	}
	for i, tag := range c.Languages {
		if languageOf(tag) == nil {
			report(fmt.Errorf("%q is not a language that reports are written in; there are en and ko", tag), "languages", fmt.Sprint(i))
		}
	}
	for i, p := range c.Suppress {
		if !strings.Contains(p, "@") {
			report(fmt.Errorf("%q has no @; a pattern is like *@bulk.example", p), "suppress", fmt.Sprint(i))
		}
	}
	if c.Webhook != "" {
		report(checkURL(c.Webhook), "webhook")
	}
	if c.Webhook == "" && c.Secret != "" {
		report(errors.New("a secret without a webhook has no use"), "secret")
	}
	if c.GiveUp < 0 {
		report(errors.New("a time to give up after is not negative"), "give_up")
	}
	return problems
}

// checkURL lets reports leave in the clear only if they stay on this machine.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("%q is not a URL", s)
	}
	host := u.Hostname()
	switch {
	case u.Scheme == "https" && host != "":
		return nil
	case u.Scheme == "http" && isLoopback(host):
		return nil
	}
	return fmt.Errorf("%q is not a URL that begins with https:// (or with http:// and a loopback address)", s)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Bounces words reports.
type Bounces struct {
	cfg       Config
	languages []*language
	hook      *hook // nil without a webhook
}

// New starts to work with a configuration. Close ends it.
func New(cfg Config, log *slog.Logger) (*Bounces, error) {
	if problems := cfg.Check(); len(problems) > 0 {
		return nil, sdk.Problems(problems)
	}
	b := &Bounces{cfg: cfg}
	for _, tag := range cfg.Languages {
		b.languages = append(b.languages, languageOf(tag))
	}
	if cfg.Webhook != "" {
		b.hook = newHook(cfg, log, new(net.Dialer).DialContext)
	}
	return b, nil
}

// Close ends the webhook calls.
func (b *Bounces) Close() error {
	if b.hook != nil {
		b.hook.close()
	}
	return nil
}

// Bounce words one report.
func (b *Bounces) Bounce(_ context.Context, f *mail.Failure) (mail.Notice, error) {
	if kindNames[f.Kind] == "" {
		return mail.Notice{Action: mail.NoticeDefault}, nil
	}
	h := mail.ParseHeader(f.Header)
	suppressed := b.suppressed(f.From)
	if b.hook != nil {
		b.hook.offer(f, h, suppressed)
	}
	if suppressed {
		return mail.Notice{Action: mail.NoticeSuppress}, nil
	}
	l := choose(b.languages, h)
	r := report{Failure: f, header: h, language: l}
	return mail.Notice{
		Action: mail.NoticeRender, Language: l.tag, To: b.cfg.Redirect,
		Subject: r.subject(), Text: r.text(),
	}, nil
}

func (b *Bounces) suppressed(from mail.Address) bool {
	return slices.ContainsFunc(b.cfg.Suppress, func(pattern string) bool {
		return matches(strings.ToLower(pattern), strings.ToLower(from.String()))
	})
}

// matches says whether a text is of a pattern, in which * stands for anything.
func matches(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	text, ok := strings.CutPrefix(text, parts[0])
	if !ok || len(parts) == 1 {
		return ok && text == ""
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return strings.HasSuffix(text, parts[len(parts)-1])
}
