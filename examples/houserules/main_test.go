package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/sdk"
	"github.com/pabal-mta/mta/sdk/mail"
	"github.com/pabal-mta/mta/sdk/plugintest"
)

func TestMain(m *testing.M) {
	if os.Getenv(sdk.CookieKey) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const config = `{
	"refuse_clients": ["198.51.100.0/24", "2001:db8:bad::/48"],
	"bad_helo": ["localhost", "*.dyn.example"],
	"blocked_senders": ["Spam@example.org", "@spam.example"],
	"recipients_per_domain": 2,
	"refuse_attachments": ["exe", ".JS"],
	"external_tag": "[external]"
}`

func wantVerdict(t *testing.T, what string, v mail.Verdict, err error, code int) {
	t.Helper()
	if err != nil || v.Reply.Code != code || code == 0 && v.Action != mail.ActionContinue {
		t.Errorf("%s: %v %v, %v; want %d", what, v.Action, v.Reply, err, code)
	}
}

func TestConnect(t *testing.T) {
	p := plugintest.New(t, sdk.Of(plugin()), config)
	for remote, code := range map[string]int{
		"198.51.100.7:1": 554, "[::ffff:198.51.100.7]:1": 554, "[2001:db8:bad::1]:1": 554, "192.0.2.1:1": 0,
	} {
		v, err := p.Connect(t.Context(), &mail.Session{Remote: netip.MustParseAddrPort(remote)})
		wantVerdict(t, remote, v, err, code)
	}
}

func TestHelo(t *testing.T) {
	p := plugintest.New(t, sdk.Of(plugin()), config)
	for helo, code := range map[string]int{"LOCALHOST": 550, "a.dyn.example.": 550, "dyn.example": 0, "mx.example.org": 0, "": 0, "\xff\r\n": 0} {
		v, err := p.Helo(t.Context(), &mail.Session{Helo: helo})
		wantVerdict(t, helo, v, err, code)
	}
	v, err := p.Helo(t.Context(), &mail.Session{Helo: "localhost", User: "ann"})
	wantVerdict(t, "logged in", v, err, 0)
}

func TestMail(t *testing.T) {
	p := plugintest.New(t, sdk.Of(plugin()), config)
	for from, code := range map[string]int{"spam@EXAMPLE.org": 550, "any@spam.example": 550, "any@sub.spam.example": 0, "ann@example.org": 0} {
		v, err := p.Mail(t.Context(), &mail.Session{From: mail.MustParseAddress(from)})
		wantVerdict(t, from, v, err, code)
	}
	v, err := p.Mail(t.Context(), &mail.Session{})
	wantVerdict(t, "the null sender", v, err, 0)
}

func TestRcpt(t *testing.T) {
	p := plugintest.New(t, sdk.Of(plugin()), config)
	s := &mail.Session{}
	for i := range 2 {
		s.To = append(s.To, mail.Recipient{Address: mail.MustParseAddress(fmt.Sprintf("u%d@x.example", i))})
	}
	for to, code := range map[string]int{"third@x.example": 452, "first@y.example": 0} {
		v, err := p.Rcpt(t.Context(), s, mail.Recipient{Address: mail.MustParseAddress(to)})
		wantVerdict(t, to, v, err, code)
	}
}

func message(s string) *mail.Message {
	c := mail.Bytes([]byte(strings.ReplaceAll(s, "\n", "\r\n")))
	h, _, err := mail.ReadHeader(c)
	if err != nil {
		panic(err)
	}
	return &mail.Message{Header: h, Content: c}
}

func TestAttachments(t *testing.T) {
	p := plugintest.New(t, sdk.Of(plugin()), config)
	part := func(header string) string {
		return "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nhello\n--b\n" + header + "\n\nxxx\n--b--\n"
	}
	for name, test := range map[string]struct {
		text string
		code int
	}{
		"none":         {"Subject: x\n\nhello\n", 0},
		"harmless":     {part("Content-Disposition: attachment; filename=a.txt"), 0},
		"exe":          {part("Content-Disposition: attachment; filename=\"a.txt.EXE\""), 552},
		"name":         {part("Content-Type: application/x; name=a.js"), 552},
		"dots":         {part("Content-Disposition: attachment; filename=\"a.exe. .\""), 552},
		"rfc2231":      {part("Content-Disposition: attachment; filename*0*=utf-8''%61.e; filename*1=xe"), 552},
		"rfc2047":      {part("Content-Disposition: attachment; filename=\"=?utf-8?B?YS5leGU=?=\""), 552},
		"nested":       {"Content-Type: multipart/mixed; boundary=o\n\n--o\n" + part("Content-Type: x/y; name=a.exe") + "\n--o--\n", 552},
		"no multipart": {"Content-Disposition: attachment; filename=a.exe\n\nMZ\n", 552},
		"no boundary":  {"Content-Type: multipart/mixed\n\n--\nx\n", 0},
		"in the text":  {"Subject: x\n\nfilename=a.exe\n", 0},
		"bomb":         {"Content-Type: multipart/mixed; boundary=a\n\n" + strings.Repeat("--a\n\n", 100_000), 0},
	} {
		v, err := p.Message(t.Context(), &mail.Session{}, message(test.text))
		wantVerdict(t, name, v, err, test.code)
	}
}

func TestTag(t *testing.T) {
	for _, run := range []struct {
		name string
		p    *plugintest.Plugin
	}{{"memory", plugintest.New(t, sdk.Of(plugin()), config)}, {"process", plugintest.Exec(t, os.Args[0], config)}} {
		t.Run(run.name, func(t *testing.T) {
			for text, want := range map[string][]mail.Edit{
				"From: a\nSubject: hi\n there\n\nx\n":   {mail.ReplaceHeader{ID: 2, Value: " [external] hi\r\n there"}},
				"From: a\n\nx\n":                        {mail.AddHeader{Name: "Subject", Value: " [external]", Bottom: true}},
				"Subject: [external] again\n\nx\n":      nil,
				"Subject:\nTo: b\n\n" + "body" + "\n\n": {mail.ReplaceHeader{ID: 1, Value: " [external] "}},
			} {
				v, err := run.p.Message(t.Context(), &mail.Session{}, message(text))
				if err != nil || fmt.Sprint(v.Edits) != fmt.Sprint(want) {
					t.Errorf("%q: %v, %v; want %v", text, v.Edits, err, want)
				}
			}
		})
	}
}

func TestConfig(t *testing.T) {
	for config, path := range map[string]string{
		`{"blocked_senders": ["a@b.example", "nobody"]}`: "blocked_senders.1",
		`{"refuse_clients": ["198.51.100.0/33"]}`:        "refuse_clients.0",
		`{"recipients_per_domain": -1}`:                  "recipients_per_domain",
		`{"tag": "x"}`:                                   "tag",
		`{}`:                                             "",
	} {
		var got []string
		for _, p := range plugintest.Problems(t, sdk.Of(plugin()), config) {
			got = append(got, strings.Join(p.Path, "."))
		}
		if strings.Join(got, " ") != path {
			t.Errorf("%s: %v", config, got)
		}
	}
}
