package bounces

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pabal-mta/mta/sdk/mail"
)

func address(s string) mail.Address { return mail.MustParseAddress(s) }

func failure(kind mail.FailureKind, header string, recipients ...mail.FailedRecipient) *mail.Failure {
	arrived := time.Date(2026, 11, 22, 20, 18, 0, 0, time.UTC)
	return &mail.Failure{
		ID: "0123456789ABC", Kind: kind, From: address("ann@example.com"), Recipients: recipients, Header: []byte(header),
		Arrived: arrived, Expires: arrived.Add(120 * time.Hour), Hostname: "mx1.example.com", Postmaster: address("postmaster@example.com"),
	}
}

func failed(to, host string, code int, enhanced, text string) mail.FailedRecipient {
	return mail.FailedRecipient{Recipient: mail.Recipient{Address: address(to)}, Reply: mail.NewReply(code, enhanced, text), Host: host}
}

func notifier(t testing.TB, cfg Config) *Bounces {
	t.Helper()
	if cfg.Languages == nil {
		cfg.Languages = []string{"en"}
	}
	b, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestGolden(t *testing.T) {
	header := "Date: Mon, 23 Nov 2026 05:17:58 +0900\r\nSubject: =?utf-8?B?6rKs7KCB7ISc?= 2026\r\n"
	unknown := failed("bob@example.org", "mx.example.org", 550, "5.1.1", "no such user here")
	several := []mail.FailedRecipient{unknown,
		failed("eve@example.net", "mx.example.net", 552, "5.2.2", "over quota\nplease try later, or write to our help desk, which is open from nine to five each day"),
		failed("kim@example.kr", "", 554, "5.4.7", "no answer for 5 days")}
	for name, f := range map[string]*mail.Failure{
		"failed":    failure(mail.FailurePermanent, header, unknown),
		"several":   failure(mail.FailurePermanent, header, several...),
		"delayed":   failure(mail.FailureDelayed, header, failed("bob@example.org", "", 451, "4.4.1", "no answer from mx.example.org")),
		"delivered": failure(mail.FailureDelivered, header, failed("bob@example.org", "mx.example.org", 250, "2.0.0", "ok")),
	} {
		for _, tag := range []string{"en", "ko"} {
			n, err := notifier(t, Config{Languages: []string{tag}}).Bounce(t.Context(), f)
			if err != nil || n.Action != mail.NoticeRender || n.Language != tag {
				t.Fatalf("%s %s: %+v, %v", name, tag, n, err)
			}
			golden(t, filepath.Join("testdata", name+"."+tag+".txt"), "Subject: "+n.Subject+"\n\n"+n.Text)
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("MTA_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || string(want) != got {
		t.Errorf("%s should be, %v\n%s\nand is\n%s", file, err, want, got)
	}
}

func TestLanguageIsTheSenders(t *testing.T) {
	for _, c := range []struct {
		languages []string
		header    string
		want      string
	}{
		{[]string{"ko", "en"}, "", "ko"},
		{[]string{"en", "ko"}, "", "en"},
		{[]string{"ko", "en"}, "Content-Language: en-GB\r\n", "en"},
		{[]string{"en", "ko"}, "Content-Language: de, ko-KR\r\n", "ko"},
		{[]string{"ko", "en"}, "Content-Language: de\r\n", "ko"},
		{[]string{"ko", "en"}, "Accept-Language: en\r\nContent-Language: ko\r\n", "en"},
		{[]string{"en", "ko"}, "Accept-Language: fr;q=1, en;q=0.3, KO;q=0.7\r\n", "ko"},
		{[]string{"en", "ko"}, "Accept-Language: ko;q=0\r\n", "en"},
		{[]string{"en", "ko"}, "Accept-Language: ko;q=NaN, *;q=x, ,;;,\r\n", "en"},
		{[]string{"en"}, "Accept-Language: ko\r\n", "en"},
		{[]string{"en", "ko"}, "Accept-Language: " + strings.Repeat("x,", 100_000) + "ko\r\n", "en"},
	} {
		n, err := notifier(t, Config{Languages: c.languages}).Bounce(t.Context(), failure(mail.FailurePermanent, c.header, failed("b@example.org", "", 550, "", "x")))
		if err != nil || n.Language != c.want {
			t.Errorf("%v with %.60q: %s, %v; want %s", c.languages, c.header, n.Language, err, c.want)
		}
	}
}

// Every language has words for everything.
func TestLanguagesAreWhole(t *testing.T) {
	for _, l := range []*language{&english, &korean} {
		for c, w := range l.cause {
			if w.what == "" || w.todo == "" {
				t.Errorf("%s has no words for cause %d", l.tag, c)
			}
		}
		for kind := range kindNames {
			if l.subject[kind] == "" || l.opening[kind] == "" || l.closing[kind] == "" {
				t.Errorf("%s has no words for kind %d", l.tag, kind)
			}
		}
		for _, s := range []string{l.many, l.about, l.sent, l.expires, l.quote, l.ourQuote, l.more, l.signed, l.hello, l.date} {
			if s == "" {
				t.Errorf("%s lacks words", l.tag)
			}
		}
	}
}

func TestCauses(t *testing.T) {
	for _, c := range []struct {
		code     int
		enhanced string
		want     cause
	}{
		{550, "5.1.1", causeUnknown}, {550, "5.1.2", causeDomain}, {556, "5.1.10", causeDomain}, {550, "5.1.8", causeSender},
		{552, "5.2.2", causeFull}, {452, "4.2.2", causeFull}, {552, "5.3.4", causeTooLarge}, {554, "5.4.7", causeExpired},
		{451, "4.4.1", causeNetwork}, {554, "5.4.6", causeLoop}, {554, "5.6.3", causeContent}, {550, "5.7.26", causeProof},
		{550, "5.7.1", causePolicy}, {550, "5.7.509", causePolicy}, {550, "5.0.0", causeRefused}, {550, "", causeRefused},
		{552, "", causeFull}, {451, "", causeServer}, {450, "4.9.9", causeServer}, {554, "5.5.1", causeRefused},
	} {
		if got := causeOf(mail.NewReply(c.code, c.enhanced, "x")); got != c.want {
			t.Errorf("%d %s is cause %d, not %d", c.code, c.enhanced, got, c.want)
		}
	}
}

// Whatever strangers say, the notice is one that a report can hold.
func TestHostileWords(t *testing.T) {
	reply := mail.Reply{Code: 550, Text: strings.Repeat("click\nhere \u202ereversed\u202c ", 60)}
	header := "Subject: =?utf-8?Q?a=0D=0ABcc:_x@example.org=00=E2=80=A8?=\r\nDate: " + strings.Repeat("(", 500) + "\r\n"
	var many []mail.FailedRecipient
	for range 1000 {
		a, err := mail.NewAddress(strings.Repeat("é ", 20), "example.org")
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, mail.FailedRecipient{Recipient: mail.Recipient{Address: a}, Reply: reply, Host: "mx\r\nX: y"})
	}
	for _, kind := range []mail.FailureKind{mail.FailurePermanent, mail.FailureDelayed, mail.FailureDelivered} {
		n, err := notifier(t, Config{}).Bounce(t.Context(), failure(kind, header, many...))
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(n.Subject, "\r\n\x00") || strings.ContainsAny(n.Text, "\r\x00\u202e\u2028") || !utf8.ValidString(n.Text) {
			t.Errorf("%q\n%q", n.Subject, n.Text)
		}
		for line := range strings.SplitSeq(n.Text, "\n") {
			if len(line) > 900 || strings.HasPrefix(line, "Bcc:") || strings.HasPrefix(line, "X:") {
				t.Errorf("a line is %q", line)
			}
		}
		if len(n.Text) > 128<<10 || len(n.Subject) > 1000 {
			t.Errorf("the text has %d bytes, the subject %d", len(n.Text), len(n.Subject))
		}
	}
	if n, err := notifier(t, Config{}).Bounce(t.Context(), failure(99, "")); err != nil || n.Action != mail.NoticeDefault {
		t.Errorf("a kind that is none: %+v, %v", n, err)
	}
	if _, err := notifier(t, Config{}).Bounce(t.Context(), failure(mail.FailurePermanent, "")); err != nil {
		t.Errorf("no recipients: %v", err)
	}
}

func TestRedirectAndSuppress(t *testing.T) {
	b := notifier(t, Config{Redirect: address("ops@example.com"), Suppress: []string{"*@Bulk.example", "news-*@*.example.com"}})
	for from, want := range map[string]mail.NoticeAction{
		"x@bulk.example": mail.NoticeSuppress, "News-1@a.example.com": mail.NoticeSuppress,
		"ann@example.com": mail.NoticeRender, "x@bulk.example.org": mail.NoticeRender, "news-1@example.com": mail.NoticeRender,
	} {
		f := failure(mail.FailurePermanent, "", failed("b@example.org", "", 550, "", "x"))
		f.From = address(from)
		n, err := b.Bounce(t.Context(), f)
		if err != nil || n.Action != want || want == mail.NoticeRender && n.To != address("ops@example.com") {
			t.Errorf("%s: %+v, %v", from, n, err)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"a@b", "a@b", true}, {"a@b", "a@bc", false}, {"*", "", true}, {"*@b", "@b", true}, {"a*a", "a", false}, {"a*a", "aa", true},
		{"*x*y*", "1x2y3", true}, {"*x*y*", "1y2x3", false}, {"", "", true}, {"", "a", false},
		{strings.Repeat("*a", 1000), strings.Repeat("a", 100_000) + "b", false},
	} {
		if got := matches(c.pattern, c.text); got != c.want {
			t.Errorf("%.20q of %.20q: %v", c.text, c.pattern, got)
		}
	}
}

func TestCheck(t *testing.T) {
	good := Config{Languages: []string{"ko", "EN"}, Webhook: "http://127.0.0.1:8080/x", Secret: "s"}
	if p := good.Check(); len(p) > 0 {
		t.Errorf("%+v: %v", good, p)
	}
	for path, c := range map[string]Config{
		"languages":   {},
		"languages 1": {Languages: []string{"en", "tlh"}},
		"suppress 0":  {Languages: []string{"en"}, Suppress: []string{"bulk.example"}},
		"webhook":     {Languages: []string{"en"}, Webhook: "http://hooks.example/x"},
		"secret":      {Languages: []string{"en"}, Secret: "x"},
		"give_up":     {Languages: []string{"en"}, GiveUp: -1},
	} {
		p := c.Check()
		if len(p) != 1 || strings.Join(p[0].Path, " ") != path {
			t.Errorf("%s: %v", path, p)
		}
	}
	for url, want := range map[string]bool{
		"https://hooks.example/x": true, "http://localhost/": true, "http://[::1]:80/": true, "http://127.0.0.1.evil.example/": false,
		"ftp://127.0.0.1/": false, "https:///x": false, "http://10.0.0.1/": false, "://": false, "http://user@127.0.0.1@evil.example/": false,
	} {
		if err := checkURL(url); (err == nil) != want {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func FuzzBounce(f *testing.F) {
	f.Add("Subject: x\r\nAccept-Language: ko;q=0.5, en\r\nDate: Mon, 23 Nov 2026 05:17:58 +0900\r\n", "5.1.1 no", "mx.example.org")
	f.Add("Subject: =?utf-8?B?////?=\r\n", "\u2028\x1b[31m", "")
	b := notifier(f, Config{Languages: []string{"en", "ko"}})
	f.Fuzz(func(t *testing.T, header, text, host string) {
		r := failed("b@example.org", host, 550, "", "x")
		r.Reply.Text = text
		n, err := b.Bounce(t.Context(), failure(mail.FailurePermanent, header, r))
		if err != nil || !utf8.ValidString(n.Text) || strings.ContainsAny(n.Text, "\r\x00\x1b") || strings.ContainsAny(n.Subject, "\r\n") {
			t.Errorf("%+v, %v", n, err)
		}
	})
}

func TestRangesAreSorted(t *testing.T) {
	if got := ranges("a;q=0.1, b, c;q=0.5,d"); !slices.Equal(got, []string{"b", "d", "c", "a"}) {
		t.Errorf("%v", got)
	}
}
