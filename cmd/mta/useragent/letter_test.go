package useragent

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with testdata/name. Line ends are kept as CRLF in the file, because they are what is tested.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", name, got, want)
	}
}

// seen is what an independent reader, the standard library, finds in a message.
type seen struct {
	head  mail.Header
	shape string            // such as mixed(alternative(text/plain text/html) image/png)
	files map[string][]byte // decoded, by file name or else by type
	ids   []string
}

func look(t *testing.T, raw []byte) *seen {
	t.Helper()
	for line := range strings.SplitSeq(string(raw), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n\x00") {
			t.Errorf("a line is not fit for a wire: %.100q", line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	s := &seen{head: m.Header, files: map[string][]byte{}}
	s.shape = s.part(t, m.Header.Get, m.Body)
	return s
}

func (s *seen) part(t *testing.T, head func(string) string, body io.Reader) string {
	t.Helper()
	kind, about, err := mime.ParseMediaType(head("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if sub, ok := strings.CutPrefix(kind, "multipart/"); ok {
		var shapes []string
		r := multipart.NewReader(body, about["boundary"])
		for {
			p, err := r.NextRawPart()
			if err == io.EOF {
				return sub + "(" + strings.Join(shapes, " ") + ")"
			}
			if err != nil {
				t.Fatal(err)
			}
			shapes = append(shapes, s.part(t, p.Header.Get, p))
		}
	}
	switch head("Content-Transfer-Encoding") {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	name := kind
	if _, about, err := mime.ParseMediaType(head("Content-Disposition")); err == nil && about["filename"] != "" {
		name = about["filename"]
	}
	s.files[name] = b
	s.ids = append(s.ids, head("Content-ID"))
	return kind
}

func one(t *testing.T, text string) *mail.Address { t.Helper(); return many(t, text)[0] }

func many(t *testing.T, text string) []*mail.Address {
	t.Helper()
	list, err := ParseAddresses(text)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// form makes boundaries that are the same in each run.
func form(eightBit, bcc bool) Form {
	n := 0
	return Form{EightBit: eightBit, Bcc: bcc, Boundary: func() string { n++; return fmt.Sprintf("=_boundary-%d", n) }}
}

const (
	korean = "안녕하세요. 이 편지는 한글로 쓴 긴 줄을 가지고 있어서, 받는 쪽 화면의 너비에 맞추어 다시 흐를 수 있도록 부드럽게 나뉘어야 합니다.\n\nFrom here on\n> quoted\n>> deeper\n-- \nAnn\n"
	page   = "<html><head><style>p{}</style></head><body><h1>안녕</h1><p>See <a href=\"https://example.test/\">this</a>.</p><img src='cid:logo' alt=Logo></body></html>\n"
)

var when = time.Date(2026, 11, 22, 18, 30, 0, 0, time.FixedZone("KST", 9*3600))

func base(t *testing.T) *Letter {
	return &Letter{From: one(t, "Ann <ann@example.test>"), To: many(t, "bob@example.test"), Subject: "Lunch", Date: when, ID: "<1@example.test>", Text: "At noon?\n"}
}

// composing is a letter, and what an independent reader should find in it.
type composing struct {
	name, shape string
	eightBit    bool
	bcc         bool
	change      func(*Letter)
	files       map[string][]byte
}

func composings(t *testing.T) []composing {
	picture := []byte("\x89PNG\r\n\x1a\n\x00\xff picture")
	binary := bytes.Repeat([]byte{0, 1, 0xfe, '\r', '\n', '.'}, 40)
	return []composing{
		{name: "plain", shape: "text/plain"},
		{name: "korean-8bit", shape: "text/plain", eightBit: true, change: func(l *Letter) {
			l.Text, l.Subject = korean, "점심 같이 먹을까요? 회사 앞 새로 생긴 식당에서 열두 시에 만나요"
		}},
		{name: "korean-7bit", shape: "text/plain", change: func(l *Letter) { l.Text = korean }},
		{name: "html", shape: "alternative(text/plain text/html)", eightBit: true, change: func(l *Letter) {
			l.Text, l.HTML = "", strings.ReplaceAll(page, "<img src='cid:logo' alt=Logo>", "")
		}},
		{name: "nesting", shape: "mixed(related(alternative(text/plain text/html) image/png) application/pdf text/csv)", eightBit: true,
			change: func(l *Letter) {
				l.Text, l.HTML = "", page
				l.Pictures = []File{{Name: "logo.png", Type: "image/png", ID: "logo", Data: picture}}
				l.Attachments = []File{{Name: "report.pdf", Type: "application/pdf", Data: binary}, {Name: "a.csv", Type: "text/csv; charset=utf-8", Data: []byte("a;b\n")}}
			}, files: map[string][]byte{"logo.png": picture, "report.pdf": binary, "a.csv": []byte("a;b\n")}},
		{name: "names", shape: "mixed(text/plain application/octet-stream application/octet-stream application/octet-stream)",
			change: func(l *Letter) {
				l.From = one(t, `"Kim, Ann (Seoul)" <ann@example.test>`)
				l.To = many(t, `김철수 <kim@example.test>, "O'Neil \"Bob\"" <bob@example.test>`)
				l.Attachments = []File{
					{Name: "보고서.pdf", Data: binary}, {Name: `a "b" \c.txt`, Data: nil},
					{Name: "아주 긴 파일 이름은 여러 조각으로 나뉘어 쓰여야 하고 다시 하나가 되어야 합니다.hwp", Data: []byte("x")},
				}
			}, files: map[string][]byte{"보고서.pdf": binary, `a "b" \c.txt`: {}, "아주 긴 파일 이름은 여러 조각으로 나뉘어 쓰여야 하고 다시 하나가 되어야 합니다.hwp": []byte("x")}},
		{name: "bcc-wire", shape: "text/plain", change: func(l *Letter) { l.Bcc = many(t, "carol@example.test") }},
		{name: "bcc-copy", shape: "text/plain", bcc: true, change: func(l *Letter) { l.Bcc = many(t, "carol@example.test") }},
		{name: "bcc-only", shape: "text/plain", change: func(l *Letter) { l.To, l.Bcc = nil, many(t, "carol@example.test") }},
		{name: "smtputf8", shape: "text/plain", change: func(l *Letter) { l.To = many(t, "사람@예시.test") }},
		{name: "long-line", shape: "text/plain", eightBit: true, change: func(l *Letter) { l.Text = strings.Repeat("x", 1200) + "\n" }},
		{name: "many", shape: "text/plain", change: func(l *Letter) {
			for i := range 30 {
				l.To = append(l.To, one(t, fmt.Sprintf("someone.with.a.name%d@example.test", i)))
			}
		}},
	}
}

func TestCompose(t *testing.T) {
	for _, test := range composings(t) {
		t.Run(test.name, func(t *testing.T) {
			l := base(t)
			if test.change != nil {
				test.change(l)
			}
			raw, err := l.Bytes(form(test.eightBit, test.bcc))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, test.name+".eml", raw)
			s := look(t, raw)
			if s.shape != test.shape {
				t.Errorf("shape is %s", s.shape)
			}
			for name, want := range test.files {
				if got, ok := s.files[name]; !ok || !bytes.Equal(got, want) {
					t.Errorf("%s: there is %v, %q", name, ok, got)
				}
			}
			if !test.eightBit && test.name != "smtputf8" && !isASCII(raw) {
				t.Error("there is 8-bit where it was not asked for")
			}
			if subject, err := new(mime.WordDecoder).DecodeHeader(s.head.Get("Subject")); err != nil || subject != l.Subject {
				t.Errorf("subject is %q", subject)
			}
			if to, err := s.head.AddressList("To"); len(l.To) > 0 && (err != nil || len(to) != len(l.To) || to[0].Name != l.To[0].Name) {
				t.Errorf("to: %v, %v", to, err)
			}
			if test.shape == "text/plain" && test.name != "long-line" {
				if got := Unflow(strings.ReplaceAll(string(s.files["text/plain"]), "\r\n", "\n"), false); got != strings.ReplaceAll(l.Text, ">> ", "> > ") {
					t.Errorf("the text comes back as %q", got)
				}
			}
		})
	}
}

// TestPictureIDs: the HTML and the part name the picture alike, and two letters never do.
func TestPictureIDs(t *testing.T) {
	l := base(t)
	l.HTML, l.Pictures = page, []File{{Name: "logo.png", Type: "image/png", ID: "logo", Data: []byte("x")}}
	raw, err := l.Bytes(form(false, false))
	if err != nil {
		t.Fatal(err)
	}
	m := Read(raw)
	_, html := m.Body()
	if p := m.Pictures(); len(p) != 1 || p[0].ID == "logo" || !strings.Contains(html.Text(), "cid:"+p[0].ID) {
		t.Errorf("pictures %v in %s", p, html.Text())
	}
	for name, change := range map[string]func(*Letter){
		"never shown": func(l *Letter) { l.HTML = "<p>none</p>" },
		"missing":     func(l *Letter) { l.Pictures = nil },
		"no HTML":     func(l *Letter) { l.HTML = "" },
		"bad name":    func(l *Letter) { l.Pictures[0].ID = "a b" },
	} {
		l := base(t)
		l.HTML, l.Pictures = page, []File{{Name: "logo.png", ID: "logo"}}
		change(l)
		if _, err := l.Bytes(Form{}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestNoInjection: nothing that a caller gives becomes a line of the header.
func TestNoInjection(t *testing.T) {
	l := base(t)
	l.Subject = "a\r\nBcc: evil@example.test\r\n\r\nbody"
	l.To[0].Name = "b\nX-Evil: 1"
	l.InReplyTo, l.ID = "<a\r\nX-Evil: 2>", "<1@example.test>"
	l.Attachments = []File{{Name: "a\r\nX-Evil: 3", Type: "text/plain\r\nX-Evil: 4", Data: []byte("x")}}
	raw, err := l.Bytes(form(false, false))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(raw), "\r\n") {
		if strings.HasPrefix(line, "X-Evil") || strings.HasPrefix(line, "Bcc") {
			t.Errorf("injected: %q in\n%s", line, raw)
		}
	}
	look(t, raw)
	for _, text := range []string{"a@b\r\nc", "a@", "@b", "<a@b", "a@b c@d", "a b"} {
		if list, err := ParseAddresses(text); err == nil {
			t.Errorf("%q is taken as %v", text, list)
		}
	}
}

const listMail = "From: Carol <carol@lists.test>\r\nTo: dev@lists.test, Ann <ann@example.test>\r\nCc: bob@example.test, BOB@example.test\r\n" +
	"Subject: =?euc-kr?B?vsiz5w==?=\r\nDate: Sun, 22 Nov 2026 10:00:00 +0900\r\nMessage-ID: <m3@lists.test>\r\nReferences: <m1@lists.test>\r\n <m2@lists.test>\r\n" +
	"%sMIME-Version: 1.0\r\nContent-Type: text/plain; charset=euc-kr; format=flowed\r\nContent-Transfer-Encoding: base64\r\n\r\n"

func listMessage(extra string) *Message {
	body := "\xbe\xc8\xb3\xe7 this flows \nhere\n> quoted \n> more\n-- \nCarol\n"
	return Read([]byte(fmt.Sprintf(listMail, extra) + base64.StdEncoding.EncodeToString([]byte(body)) + "\r\n"))
}

func TestReplyRules(t *testing.T) {
	own := Own{"ann@example.test"}
	tests := []struct{ name, extra, to, cc, allTo, allCc string }{
		{"plain", "", "carol@lists.test", "", "carol@lists.test", "dev@lists.test bob@example.test"},
		{"reply-to", "Reply-To: c@home.test\r\n", "c@home.test", "", "c@home.test", "dev@lists.test bob@example.test"},
		{"list that takes replies", "Reply-To: dev@lists.test\r\nList-Post: <mailto:dev@lists.test>\r\n", "carol@lists.test", "", "dev@lists.test", "bob@example.test"},
		{"list that is not in To", "List-Post: <mailto:other@lists.test?subject=x>\r\n", "carol@lists.test", "", "carol@lists.test", "dev@lists.test bob@example.test other@lists.test"},
		{"closed list", "List-Post: NO\r\n", "carol@lists.test", "", "carol@lists.test", "dev@lists.test bob@example.test"},
		{"followup", "Mail-Followup-To: dev@lists.test\r\n", "carol@lists.test", "", "dev@lists.test", ""},
	}
	for _, test := range tests {
		m := listMessage(test.extra)
		one, all := m.Reply(own, false), m.Reply(own, true)
		got := []string{join(one.To), join(one.Cc), join(all.To), join(all.Cc)}
		if want := []string{test.to, test.cc, test.allTo, test.allCc}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", test.name, got, want)
		}
	}
	mine := Read([]byte("From: ANN@example.test\r\nTo: bob@example.test\r\nSubject: RE: x\r\n\r\n"))
	if l := mine.Reply(own, false); join(l.To) != "bob@example.test" || l.Subject != "RE: x" {
		t.Errorf("an answer to our own letter goes to %s, %s", join(l.To), l.Subject)
	}
}

func join(list []*mail.Address) string {
	var out []string
	for _, a := range list {
		out = append(out, a.Address)
	}
	return strings.Join(out, " ")
}

// TestAnswers writes answers and forwards whole.
func TestAnswers(t *testing.T) {
	m := listMessage("Bcc: secret@example.test\r\n")
	finish := func(l *Letter) []byte {
		l.From, l.Date, l.ID = one(t, "ann@example.test"), when, "<4@example.test>"
		if len(l.To) == 0 {
			l.To = many(t, "dave@example.test")
		}
		raw, err := l.Bytes(form(true, false))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	answer := m.Reply(Own{"ann@example.test"}, true)
	answer.Text = m.Quoted() + "\nYes.\n"
	golden(t, "reply.eml", finish(answer))
	if got := Read(finish(answer)).Header.MessageIDs("References"); !slices.Equal(got, []string{"<m1@lists.test>", "<m2@lists.test>", "<m3@lists.test>"}) {
		t.Errorf("References: %v", got)
	}
	golden(t, "forward-inline.eml", finish(m.Forward(true)))
	raw := finish(m.Forward(false))
	golden(t, "forward-attached.eml", raw)
	s := look(t, raw)
	if s.shape != "mixed(text/plain message/rfc822)" || !bytes.Equal(s.files["안녕.eml"], StripField(m.Raw, "Bcc")) || bytes.Contains(raw, []byte("secret")) {
		t.Errorf("%s, %q", s.shape, s.files)
	}
	long := "Message-ID: <last@x>\r\nReferences:"
	for i := range 100 {
		long += fmt.Sprintf(" <%d@x>", i)
	}
	if refs := Read([]byte(long+"\r\n\r\n")).Reply(nil, false).References; len(refs) != maxReferences || refs[0] != "<0@x>" || refs[maxReferences-1] != "<last@x>" {
		t.Errorf("References of a long thread: %v", refs)
	}
}

func TestFlow(t *testing.T) {
	for text, want := range map[string]string{
		"a\n":                            "a\n",
		" indented\n":                    "  indented\n",
		"From x\n":                       " From x\n",
		"trailing  \n":                   "trailing\n",
		"-- \nAnn\n":                     "-- \nAnn\n",
		"> > a\n":                        ">> a\n",
		strings.Repeat("word ", 16):      strings.Repeat("word ", 14) + "\nword word\n",
		"> " + strings.Repeat("q ", 40):  "> " + strings.Repeat("q ", 35) + "\n> q q q q q\n",
		strings.Repeat("가", 50) + " 나\n": strings.Repeat("가", 50) + " \n나\n",
	} {
		if got := Flow(text); got != want {
			t.Errorf("Flow(%q) = %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"a \nb\n":             "a b\n",
		"a \n> b\n":           "a \n> b\n",
		">> a \n>> b\n> c\n":  "> > a b\n> c\n",
		"> a\n>\n":            "> a\n>\n",
		"a \n-- \nAnn\n":      "a \n-- \nAnn\n",
		"  stuffed\n":         " stuffed\n",
		"no end of the line ": "no end of the line \n",
	} {
		if got := Unflow(text, false); got != want {
			t.Errorf("Unflow(%q) = %q, want %q", text, got, want)
		}
	}
	if got := Unflow("가 \n나\n", true); got != "가나\n" {
		t.Errorf("DelSp: %q", got)
	}
}
