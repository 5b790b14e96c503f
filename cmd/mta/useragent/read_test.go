package useragent

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

func TestReadCharsets(t *testing.T) {
	tests := []struct{ name, head, body, want string }{
		{"utf-8", "Content-Type: text/plain; charset=UTF-8", "안녕\r\n", "안녕\n"},
		{"no label", "X: y", "안녕", "안녕"},
		{"no label, not UTF-8", "X: y", "caf\xe9", "café"},
		{"euc-kr", "Content-Type: text/plain; charset=\"euc-kr\"", "\xbe\xc8\xb3\xe7", "안녕"},
		{"ks_c_5601-1987", "Content-Type: text/plain; charset=ks_c_5601-1987", "\xbe\xc8\xb3\xe7", "안녕"},
		{"iso-2022-kr", "Content-Type: text/plain; charset=ISO-2022-KR", "\x1b$)C\x0e>H3g\x0f ok\r\n\x0e>H\x0f", "안녕 ok\n안"},
		{"shift_jis", "Content-Type: text/plain; charset=Shift_JIS", "\x83\x65\x83\x58\x83\x67", "テスト"},
		{"iso-2022-jp", "Content-Type: text/plain; charset=ISO-2022-JP", "\x1b$B%F%9%H\x1b(B", "テスト"},
		{"big5", "Content-Type: text/plain; charset=big5", "\xa4\xa4\xa4\xe5", "中文"},
		{"gb18030", "Content-Type: text/plain; charset=gb18030", "\xd6\xd0\xce\xc4", "中文"},
		{"koi8-r", "Content-Type: text/plain; charset=koi8-r", "\xf0\xf2", "ПР"},
		{"unknown", "Content-Type: text/plain; charset=klingon", "a\xffb", "a\ufffdb"},
		{"quoted-printable", "Content-Transfer-Encoding: Quoted-Printable\r\nContent-Type: text/plain; charset=utf-8", "=EC=95=88 =\r\nb=\r\n", "안 b"},
		{"broken quoted-printable", "Content-Transfer-Encoding: quoted-printable", "100=%", "100=%"},
		{"base64", "Content-Transfer-Encoding: base64", "aGVs\r\nbG8=\r\n", "hello"},
		{"base64 in two runs", "Content-Transfer-Encoding: base64", "aGVsbG8=IHdvcmxk", "hello world"},
		{"base64 with rubbish", "Content-Transfer-Encoding: base64", "a!G\x00Vs-bG8", "hello"},
		{"flowed", "Content-Type: text/plain; format=flowed", "a \r\nb\r\n", "a b\n"},
		{"html", "Content-Type: text/html", "<p>a<p>b", "a\n\nb\n"},
		{"no body", "Content-Type: image/png", "x", ""},
	}
	for _, test := range tests {
		if got := Read([]byte(test.head + "\r\n\r\n" + test.body)).BodyText(); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestReadHeader(t *testing.T) {
	m := Read([]byte("no field at all\nSubject: =?euc-kr?Q?=BE=C8?=\n =?utf-8?B?64WV?=\nFrom: a <a@x>, b@y, broken <, \"c \x1b\" <c@z>\nTo: team: d@x, e@x;\n" +
		"Content-Type: application/x; name*0*=euc-kr'ko'%BE%C8; name*1=\".txt\"\nContent-Disposition: ATTACHMENT; filename=\"=?utf-8?B?7JWI?=.pdf\"\n\nbody"))
	if got := m.Header.Text("subject"); got != "안녕" {
		t.Errorf("Subject %q", got)
	}
	if got := join(m.Header.Addresses("From")); got != "a@x b@y c@z" {
		t.Errorf("From %q", got)
	}
	if got := join(m.Header.Addresses("To")); got != "d@x e@x" {
		t.Errorf("To %q", got)
	}
	if m.Params["name"] != "안.txt" || m.Name != "안.pdf" || !m.Attached || string(m.Bytes()) != "body" {
		t.Errorf("%+v", m.Part)
	}
}

func TestReadParts(t *testing.T) {
	const nested = "Content-Type: multipart/mixed; boundary=\"a b\"\r\n\r\npreamble\r\n--a bc\r\n--a b \r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n" +
		"--c\r\n\r\nplain\r\n--c\r\nContent-Type: text/html\r\n\r\n<b>x</b>\r\n--c--\r\nepilogue\r\n--a b\r\nContent-Type: image/png\r\nContent-ID: <i>\r\n\r\nPNG\r\n\r\n--a b--\r\nend"
	m := Read([]byte(nested))
	var paths []string
	for _, p := range m.Leaves() {
		paths = append(paths, fmt.Sprintf("%s %s %q", p.Path, p.Type, p.Bytes()))
	}
	if got := strings.Join(paths, ", "); got != `1.1 text/plain "plain", 1.2 text/html "<b>x</b>", 2 image/png "PNG\r\n"` {
		t.Error(got)
	}
	if len(m.Pictures()) != 1 || len(m.Attachments()) != 0 || m.Find("2") == nil || m.Find("3") != nil || m.Find("") != nil {
		t.Error("pictures, attachments or parts are not right")
	}
	if got := Read([]byte("Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nno end")).BodyText(); got != "no end" {
		t.Errorf("without a last boundary: %q", got)
	}
}

// TestBombs are messages made to be expensive.
func TestBombs(t *testing.T) {
	deep := ""
	for i := range 1000 {
		deep += fmt.Sprintf("Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n", i, i)
	}
	for name, raw := range map[string]string{
		"deep":       deep,
		"wide":       "Content-Type: multipart/mixed; boundary=x\r\n\r\n" + strings.Repeat("--x\r\n\r\n", 200_000),
		"fields":     strings.Repeat("a: b\r\n", 200_000),
		"folded":     "a: b\r\n" + strings.Repeat(" c\r\n", 1_000_000),
		"parameters": "Content-Type: text/plain" + strings.Repeat("; a*1=b", 100_000) + "\r\n\r\n",
		"addresses":  "From: " + strings.Repeat("<,", 100_000) + "\r\n\r\n",
		"tags":       "Content-Type: text/html\r\n\r\n" + strings.Repeat("<blockquote><ul><li><a href=x:y>", 50_000),
		"boundary":   "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n--\r\n",
	} {
		t.Run(name, func(t *testing.T) { use(t, []byte(raw)) })
	}
}

// use does with a message everything that a reader can, and holds the output to what a terminal and a disk may see.
func use(t *testing.T, raw []byte) {
	t.Helper()
	m := Read(raw)
	shown := SafeText(m.BodyText()) + SafeLine(m.Header.Text("Subject"))
	for _, f := range m.Header {
		shown += SafeLine(f.Name + f.Text())
	}
	checkShown(t, shown)
	if page := m.Page(); len(page) == 0 {
		t.Error("no page")
	}
	names := map[string]bool{}
	for _, p := range m.Leaves() {
		p.Bytes()
		name := distinctName(p.SaveName(), names)
		if name == "" || name[0] == '.' || len(name) > 255 || filepath.Base(name) != name || !utf8.ValidString(name) {
			t.Errorf("the file name %q", name)
		}
		checkShown(t, name)
	}
	for _, l := range []*Letter{m.Reply(Own{"a@b"}, true), m.Forward(true), m.Forward(false)} {
		l.From = &mail.Address{Address: "me@example.test"}
		l.Text += m.Quoted()
		out, err := l.Bytes(Form{})
		if err != nil {
			continue // an address of a stranger that is none: said, not written
		}
		for line := range bytes.SplitSeq(out, []byte("\r\n")) {
			if len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") {
				t.Fatalf("our own letter holds the line %.80q", line)
			}
		}
	}
}

func checkShown(t *testing.T, s string) {
	t.Helper()
	for _, c := range s {
		if unicode.IsControl(c) && c != '\n' && c != '\t' || isHostile(c) && c != '\n' && c != '\t' {
			t.Fatalf("%U is shown", c)
		}
	}
}

// TestCorpora reads and saves every file of real and of malformed mail.
func TestCorpora(t *testing.T) {
	dir := os.Getenv("MTA_CORPORA")
	if dir == "" {
		t.Skip("MTA_CORPORA names no directory of mail")
	}
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		t.Run(filepath.Base(path), func(t *testing.T) {
			use(t, raw)
			out := t.TempDir()
			m := Read(raw)
			files := []File{{Name: "whole.eml", Data: m.Raw}}
			for _, p := range m.Leaves() {
				files = append(files, File{Name: p.SaveName(), Data: p.Bytes()})
			}
			if err := SaveFiles(out, files, false, func(string, int) {}); err != nil {
				t.Fatal(err)
			}
			if list, err := os.ReadDir(out); err != nil || len(list) != len(files) {
				t.Errorf("%d files of %d, %v", len(list), len(files), err)
			}
		})
		return nil
	})
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("From: a <a@b>\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/html\r\n\r\n<a href='http://x'>y</a>\r\n--x--\r\n"))
	f.Add([]byte("Content-Type: text/plain; charset=iso-2022-kr; name*0*=utf-8''%2e%2e%2f\r\n\r\n\x1b$)C\x0e>H\x0f"))
	f.Add([]byte("Content-Disposition: attachment; filename=\"..\\..\\con\"\r\nContent-Transfer-Encoding: base64\r\n\r\naGVs=bG8="))
	f.Fuzz(func(t *testing.T, raw []byte) { use(t, raw) })
}

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain 안녕\tx\n":             "plain 안녕\tx\n",
		"a\r\nb\rc":                 "a\nb\\x0dc",
		"\x1b[2J\x07\x00\x7f":       `\x1b[2J\x07\x00\x7f`,
		"\u009b31m":                 `\x9b31m`,
		"\x9b31m":                   "\ufffd31m",
		"exe.\u202egnp":             `exe.\u202egnp`,
		"\u2066a\u2069":             `\u2066a\u2069`,
		"a\u200eb\ufeffc\U000e0041": "abc",
		"a\u2028b":                  "a b",
	} {
		if got := SafeText(in); got != want {
			t.Errorf("SafeText(%q) = %q, want %q", in, got, want)
		}
	}
	if got := SafeLine("a\r\nb\tc"); got != "a  b c" {
		t.Errorf("SafeLine: %q", got)
	}
	if got := string(SafeJSON([]byte("{\"a\":\"\u009b\u202e\U000e0041안\"}\n"))); got != `{"a":"\u009b\u202e\udb40\udc41안"}`+"\n" {
		t.Errorf("SafeJSON: %q", got)
	}
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 5, "abc  "}, {"안녕하세요", 6, "안녕… "}, {"abcdef", 4, "abc…"}, {"", 2, "  "}} {
		if got := Column(c.in, c.n); got != c.want || Width(got) != c.n {
			t.Errorf("Column(%q, %d) = %q", c.in, c.n, got)
		}
	}
}

func TestFileName(t *testing.T) {
	for in, want := range map[string]string{
		"report.pdf": "report.pdf", "보고서.pdf": "보고서.pdf", "../../etc/passwd": "passwd", `C:\Windows\x.exe`: "x.exe",
		"/": "", "..": "", ".": "", "": "", ".bashrc": "bashrc", "-rf": "rf", "a\x00b\x1b.txt": "a_b_.txt", "a\nb": "a_b",
		"con": "_con", "NUL.txt": "_NUL.txt", "com1.": "_com1", "comet.txt": "comet.txt", "a:b*?.txt": "a_b__.txt",
		"x.\u202etxt.exe": "x._txt.exe", "trailing. ": "trailing", "dir/": "dir", "~/x": "x",
		strings.Repeat("가", 200) + ".hwp": strings.Repeat("가", 65) + ".hwp",
	} {
		if got := FileName(in); got != want {
			t.Errorf("FileName(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestSaveStays: links do not lead out of the folder, and nothing is overwritten unasked.
func TestSaveStays(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(outside, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	save := func(name string, force bool) error {
		return SaveFiles(dir, []File{{Name: name, Data: []byte("new")}}, force, func(string, int) {})
	}
	if err := save("link", false); err == nil {
		t.Error("a link is written through")
	}
	if err := save("link", true); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "old" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "link")); err != nil || string(b) != "new" {
		t.Errorf("the file inside is %q, %v", b, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := save("mine", false); err == nil {
		t.Error("a file is overwritten unasked")
	}
	if b, err := os.ReadFile(filepath.Join(dir, "mine")); err != nil || string(b) != "old" {
		t.Errorf("a file that was there is %q, %v", b, err)
	}
	if err := save("../escape", false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "escape")); err != nil {
		t.Error(err)
	}
	if err := SaveFiles(dir, []File{{Name: "same", Data: []byte("1")}, {Name: "SAME", Data: []byte("2")}}, false, func(string, int) {}); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "SAME (2)")); err != nil || string(b) != "2" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestHTMLText(t *testing.T) {
	for in, want := range map[string]string{
		"a  b\n c<br>d":                                           "a b c\nd\n",
		"<b>bo</b>ld <i>it</i>, x":                                "bold it, x\n",
		"<ul><li>a<li>b<ol><li>c</ol></ul>d":                      "* a\n* b\n  1. c\n\nd\n",
		"<blockquote>q<p>r</blockquote>s":                         "> q\n\n> r\n\ns\n",
		"<pre>a\n  b</pre>":                                       "a\n  b\n",
		"<script>alert(1)</script><style>x</style>y":              "y\n",
		"<head><title>t</title></head><body>x":                    "x\n",
		"<table><tr><td>a<td>b<tr><td>c</table>":                  "a b\nc\n",
		"&lt;b&gt; &amp;amp; &eacute;":                            "<b> &amp; é\n",
		`<a href="http://x/">one</a> <a href="http://x/">two</a>`: "one[1] two[1]\n\n[1] http://x/\n",
		`<a href="javascript:alert(1)">bad</a>`:                   "bad\n",
		`<a href=mailto:a@b>m</a><img alt="pic">`:                 "m[1][pic]\n\n[1] mailto:a@b\n",
		"": "",
	} {
		if got := HTMLText(in); got != want {
			t.Errorf("HTMLText(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestPage: what could load, run or send anything is not in the page.
func TestPage(t *testing.T) {
	const html = `<html><head><base href="http://evil/"><link rel=stylesheet href="http://evil/"><meta http-equiv=refresh content="0;url=http://evil/">` +
		`<style>@import url(http://evil/)</style><script src="http://evil/"></script></head><body background="http://evil/" onload="evil()">` +
		`<img src="http://evil/track.png"><img src="cid:logo@x" srcset="http://evil/ 2x" onerror=evil()><img src="data:text/html,evil">` +
		`<iframe src="http://evil/"></iframe><object data="http://evil/"></object><video poster="http://evil/"></video><form action="http://evil/"><input type=image src="http://evil/"><button formaction="http://evil/">b</button></form>` +
		`<svg><image href="http://evil/"/></svg><div style="background:url(http://evil/)">d</div><p style="background:u\72l(http://evil/)">e</p><p style="color:red">red</p>` +
		`<a href="javascript:evil()">j</a><a href="https://good.example/" ping="http://evil/">link</a><a href=" JaVaScRiPt:evil()">k</a><math href="http://evil/">` +
		`<p title="&quot;><script>evil()</script>">quoted</p><!-- evil --><textarea></textarea>&lt;script&gt;shown&lt;/script&gt;</body></html>`
	raw := "Subject: a</title><script>evil()</script>\r\nContent-Type: multipart/related; boundary=x\r\n\r\n--x\r\nContent-Type: text/html\r\n\r\n" + html +
		"\r\n--x\r\nContent-Type: image/png\r\nContent-ID: <logo@x>\r\n\r\nPNG\r\n--x\r\nContent-Type: image/svg+xml\r\nContent-ID: <svg@x>\r\n\r\n<svg/>\r\n--x--\r\n"
	got := string(Read([]byte(raw)).Page())
	golden(t, "page.html", []byte(got))
	for _, bad := range []string{"http://evil", "<script", "onload", "onerror", "javascript:", "<iframe", "<form", "<base", "<svg", "srcset", "url(", "<style"} {
		if strings.Contains(strings.ToLower(got), bad) {
			t.Errorf("%s is in the page:\n%s", bad, got)
		}
	}
	for _, good := range []string{`src="data:image/png;base64,UE5H"`, `href="https://good.example/"`, `style="color:red"`, "&lt;script&gt;shown", "default-src 'none'"} {
		if !strings.Contains(got, good) {
			t.Errorf("%s is not in the page", good)
		}
	}
	if plain := string(Read([]byte("Subject: x\r\n\r\n<b>\x1b")).Page()); !strings.Contains(plain, `&lt;b&gt;\x1b`) {
		t.Errorf("a plain text: %s", plain)
	}
}

func TestLater(t *testing.T) {
	if got := later([]imap.UID{9, 3, 7}, 3); !slices.Equal(got, []imap.UID{7, 9}) {
		t.Errorf("after 3: %v", got)
	}
}
