package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset"
)

// submitConfig is the sender's server: people log in, and mail for example.net goes to a smarthost.
const submitConfig = `
hostname = "a.example"
domains  = ["example.test"]
data_dir = "var"

listener "submission" {
  address       = ["${SUB}"]
  auth          = plugin.users
  insecure_auth = true
}

plugin "users" {
  source = "builtin:users"
  config {
    file = "var/users"
  }
}

plugin "mime" {
  source = "builtin:mime"
}

route "partner" {
  domains   = ["example.net"]
  smarthost = "${PARTNER}"
  tls       = "none"
  convert   = [plugin.mime]
}

route "rest" {
  mx = true
}

queue {
  retry    = ["1s"]
  min_free = "1MiB"
}
`

// oldConfig is the recipient's server, which takes 7-bit mail only.
const oldConfig = `
hostname = "b.example"
domains  = ["example.net"]
data_dir = "var"

listener "mx" {
  address = ["${MX}"]
  hide    = ["8BITMIME", "CHUNKING", "SMTPUTF8"]
}

plugin "mailboxes" {
  source = "builtin:maildir"
  config {
    path    = "var/mail/{domain}/{user}"
    aliases = {}
  }
}

plugin "mime" {
  source = "builtin:mime"
  config {
    mailbox = "${FORM}"
  }
}

route "plain" {
  domains = domains
  store   = plugin.mailboxes
  convert = [${CONVERT}]
}

queue {
  min_free = "1MiB"
}
`

const letterHead = "From: =?utf-8?B?7JWI?= <ann@example.test>\r\n" +
	"To: <bob@example.net>\r\n" +
	"Subject: 파발이 전하는 편지, 그림과 파일을 함께\r\n" +
	"Date: Mon, 5 Jan 2026 10:00:00 +0900\r\n" +
	"Message-ID: <letter@example.test>\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=outer\r\n\r\n" +
	"for old programs\r\n"

// part is one leaf of a message: its header fields and its content when every encoding is undone.
type part struct {
	header  string
	content []byte
}

// letterOf is a message of ten megabytes with everything in it that old wires can't carry.
func letterOf(long int) (raw []byte, parts []part) {
	chance := rand.NewChaCha8([32]byte{1})
	noise := func(n int) []byte { b := make([]byte, n); _, _ = chance.Read(b); return b }
	korean := []byte(strings.Repeat("가나다라마바사, 이 줄은 한국어로 쓴 글입니다.\r\n", 2000))
	page := []byte("<html><body><p>안녕하세요</p><img src=\"cid:picture@example.test\"></body></html>\r\n")
	latin := bytes.ReplaceAll(noise(3000), []byte{'\r'}, []byte{'a'})
	latin = append(bytes.ReplaceAll(bytes.ReplaceAll(latin, []byte{'\n'}, []byte{'b'}), []byte{0}, []byte{'c'}), '\r', '\n')
	parts = []part{
		{"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit", korean},
		{"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit", page},
		{"Content-Type: image/png\r\nContent-ID: <picture@example.test>\r\nContent-Disposition: inline\r\nContent-Transfer-Encoding: base64", noise(700_000)},
		{"Content-Type: application/pdf; name*=utf-8''%EB%B3%B4%EA%B3%A0%EC%84%9C.pdf\r\nContent-Disposition: attachment; filename*=utf-8''%EB%B3%B4%EA%B3%A0%EC%84%9C.pdf\r\nContent-Transfer-Encoding: base64", noise(long)},
		{"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename*0*=utf-8''%EC%9E%90%EB%A3%8C; filename*1*=%20%EB%AA%A8%EC%9D%8C.bin\r\nContent-Transfer-Encoding: binary", latin},
	}
	var b bytes.Buffer
	b.WriteString(letterHead)
	b.WriteString("\r\n--outer\r\nContent-Type: multipart/related; boundary=inner\r\n")
	for i, p := range parts {
		boundary := "inner"
		if i > 2 {
			boundary = "outer"
		}
		if i == 3 {
			b.WriteString("\r\n--inner--\r\n")
		}
		fmt.Fprintf(&b, "\r\n--%s\r\n%s\r\n\r\n", boundary, p.header)
		if strings.Contains(p.header, "base64") {
			for line := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(p.content)), 76) {
				b.Write(line)
				b.WriteString("\r\n")
			}
		} else {
			b.Write(p.content)
		}
	}
	b.WriteString("\r\n--outer--\r\n")
	return b.Bytes(), parts
}

// leaves returns the parts of a message that hold no others, by their types, every encoding undone.
func leaves(t *testing.T, raw []byte) (list []part, subject string) {
	t.Helper()
	m, err := message.Read(bytes.NewReader(raw))
	if err != nil && !message.IsUnknownCharset(err) {
		t.Fatal(err)
	}
	if subject, err = m.Header.Text("Subject"); err != nil {
		t.Error(err)
	}
	err = m.Walk(func(_ []int, e *message.Entity, err error) error {
		if err != nil || e.MultipartReader() != nil {
			return err
		}
		content, err := io.ReadAll(e.Body)
		kind, params, typeErr := e.Header.ContentType()
		_, disposition, _ := e.Header.ContentDisposition()
		if typeErr != nil {
			return typeErr
		}
		list = append(list, part{strings.Join([]string{kind, params["name"], disposition["filename"], e.Header.Get("Content-Id")}, "|"), content})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list, subject
}

var wantLeaves = []string{
	"text/plain|||", "text/html|||", "image/png|||<picture@example.test>",
	"application/pdf|보고서.pdf|보고서.pdf|", "application/octet-stream||자료 모음.bin|",
}

// TestTenMegabytes sends a letter with text in Korean, a picture, and attachments through two servers of which the second
// takes 7-bit mail only. It crosses the wire as such, and every part arrives as it was, byte for byte, whether the
// mailbox gets the form of the wire or the one that the letter was written in. A plain test sends 10 MiB once, and 1 MiB
// in the other forms.
func TestTenMegabytes(t *testing.T) {
	notShort(t)
	t.Parallel()
	for _, c := range []struct {
		name, convert, form string
		long                int
		bare                []int // the parts that lie in the mailbox without any encoding
	}{
		{"as on the wire", "", "8bit", 6_400_000, nil},
		{"text as written", "plugin.mime", "8bit", 500_000, []int{0, 1}},
		{"everything as written", "plugin.mime", "binary", 500_000, []int{0, 1, 2, 3, 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, parts := letterOf(c.long)
			stored, wire := throughTwo(t, raw, map[string]string{"CONVERT": c.convert, "FORM": c.form})
			checkSevenBit(t, "the wire", wire)
			if c.bare == nil {
				checkSevenBit(t, "the mailbox", stored)
			}
			for i, p := range parts {
				if bytes.Contains(stored, p.content) != slices.Contains(c.bare, i) {
					t.Errorf("part %d lies in the mailbox in another form than was wanted", i)
				}
			}
			checkLeaves(t, stored, parts)
		})
	}
}

// throughTwo sends a message from server A to server B and returns what lies in the mailbox, and what crossed the wire.
func throughTwo(t *testing.T, raw []byte, vars map[string]string) (stored, wire []byte) {
	t.Helper()
	ports := freePorts(t, 2)
	between := openTap(t, ports[1])
	vars = maps.Clone(vars)
	maps.Copy(vars, map[string]string{"SUB": ports[0], "MX": ports[1], "PARTNER": between.address})
	b := newSystem(t, oldConfig, vars)
	a := newSystem(t, submitConfig, vars)
	makeMailbox(t, b, "example.net/bob")
	a.must("secret-of-ann\n", "user", "add", "ann@example.test")
	b.start()
	a.start()

	c := mustDial(t, ports[0])
	if _, err := c.Login(235, "ann@example.test", "secret-of-ann"); err != nil {
		t.Fatal(err)
	}
	if err := c.Send("<ann@example.test> BODY=8BITMIME SMTPUTF8", "bob@example.net", raw); err != nil {
		t.Fatal(err)
	}
	a.emptied()
	b.emptied()
	stored = withCRLF(onlyFile(t, b.path("var/mail/example.net/bob/new/*")))
	a.stop()
	b.stop()
	_, wire, found := bytes.Cut(between.heard(), []byte("DATA\r\n"))
	if !found {
		t.Fatal("no DATA crossed the wire")
	}
	return stored, wire
}

// withCRLF gives a message out of a Maildir the line ends of the wire. One that could not be told from its form with LF is
// kept as it came.
func withCRLF(b []byte) []byte {
	if first, _, _ := bytes.Cut(b, []byte("\n")); bytes.HasSuffix(first, []byte("\r")) {
		return b
	}
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

// checkSevenBit wants ASCII in lines of at most 998 characters (RFC 5321, 4.5.3.1.6; RFC 5322, 2.1.1).
func checkSevenBit(t *testing.T, where string, b []byte) {
	t.Helper()
	if i := bytes.IndexFunc(b, func(r rune) bool { return r >= 0x80 || r == 0 }); i >= 0 {
		t.Errorf("%s: 8-bit at %d: %q", where, i, b[max(0, i-60):min(len(b), i+20)])
	}
	for line := range bytes.SplitSeq(b, []byte("\r\n")) {
		if len(line) > 998 || bytes.ContainsAny(line, "\r\n") {
			t.Errorf("%s: a line of %d characters: %.60q", where, len(line), line)
			return
		}
	}
}

func checkLeaves(t *testing.T, stored []byte, want []part) {
	t.Helper()
	got, subject := leaves(t, stored)
	if subject != "파발이 전하는 편지, 그림과 파일을 함께" {
		t.Errorf("the subject became %q", subject)
	}
	if len(got) != len(want) {
		t.Fatalf("%d parts became %d", len(want), len(got))
	}
	for i, g := range got {
		if g.header != wantLeaves[i] {
			t.Errorf("part %d is %q, want %q", i, g.header, wantLeaves[i])
		}
		if !bytes.Equal(g.content, want[i].content) {
			t.Errorf("part %d, %s: %d bytes became %d others", i, g.header, len(want[i].content), len(g.content))
		}
	}
}
