package mime

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pabal-mta/mta/sdk/mail"
)

var (
	sevenBit = mail.Target{}
	eightBit = mail.Target{EightBit: true}
	mailbox  = mail.Target{Mailbox: true}
)

func converter(t testing.TB, cfg Config) *Converter {
	t.Helper()
	if cfg.Mailbox == "" {
		cfg.Mailbox = mailbox8Bit
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run converts, and returns the message itself when nothing had to change.
func run(t testing.TB, c *Converter, msg string, target mail.Target, smtputf8 bool) (string, mail.Converted, error) {
	t.Helper()
	m := &mail.Conversion{Content: mail.Bytes([]byte(msg)), Target: target, Envelope: mail.Envelope{SMTPUTF8: smtputf8}}
	got, err := c.Convert(t.Context(), m)
	if err != nil || got.Content == nil {
		return msg, got, err
	}
	b, readErr := io.ReadAll(mail.Reader(got.Content))
	if readErr != nil {
		t.Fatal(readErr)
	}
	return string(b), got, nil
}

// leaves returns the decoded content of every part that holds no others, and the media types around it. It reads as mail
// programs do, leniently.
func leaves(msg []byte, kinds string) (all []string) {
	raw, _, body := splitEntity(msg)
	h := parseHeader(raw)
	kind, boundary := h.media(defaultKind(place{digest: strings.HasSuffix(kinds, "/multipart/digest")}))
	if strings.Contains(kind, "?") || hasHigh([]byte(kind)) {
		top, _, _ := strings.Cut(kind, "/")
		kind = top + "/odd" // a type that is none may lose its octets
		if strings.Contains(top, "?") || hasHigh([]byte(top)) {
			kind = "odd/odd"
		}
	}
	kinds += "/" + kind
	identity := isIdentity(h.encoding())
	if strings.HasPrefix(kind, "multipart/") && boundary != "" && identity {
		line := []byte("--" + boundary)
		for d, ok := nextDelimiter(body, line, 0); ok && !d.closing; {
			next, more := nextDelimiter(body, line, d.end)
			end := len(body)
			if more {
				end = next.start
			}
			all = append(all, leaves(body[d.end:end], kinds)...)
			d, ok = next, more
		}
		return all
	}
	if kind == "message/rfc822" && identity {
		return leaves(body, kinds)
	}
	return append(all, kinds+":"+string(decodeLeniently(h.encoding(), body)))
}

func decodeLeniently(encoding string, body []byte) []byte {
	switch encoding {
	case "quoted-printable":
		return repairQP(body)
	case "base64":
		packed := bytes.TrimRight(bytes.Map(func(r rune) rune {
			if r < 0x80 && (isBase64(byte(r))) {
				return r
			}
			return -1
		}, body), "=")
		out := make([]byte, len(packed))
		n, _ := base64.RawStdEncoding.Decode(out, packed)
		return out[:n]
	}
	return body
}

func crlf(b []byte) string {
	return strings.ReplaceAll(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n", "\r\n")
}

// checkConversion is what must hold for any message and any target.
func checkConversion(t testing.TB, c *Converter, msg string, target mail.Target, smtputf8 bool) (converted bool) {
	t.Helper()
	got, conv, err := run(t, c, msg, target, smtputf8)
	var r *mail.Reply
	if errors.As(err, &r) {
		if r.Code < 500 || r.Check() != nil {
			t.Errorf("refused with %v", r)
		}
		return false
	}
	if err != nil {
		t.Error(err)
		return false
	}
	s := scanBytes([]byte(got))
	if !target.Mailbox && s.class() > takes(target) && !s.onlyLong(takes(target)) {
		t.Errorf("for %+v the result holds %+v:\n%.2000q", target, s, got)
	}
	if len(got) > maxGrowth*len(msg)+slack {
		t.Errorf("%d bytes became %d", len(msg), len(got))
	}
	was, is := leaves([]byte(msg), ""), leaves([]byte(got), "")
	if !slices.Equal(was, is) {
		t.Errorf("for %+v the parts were\n%.2000q\nand are\n%.2000q\nof\n%.4000q", target, was, is, got)
	}
	again, _, err := run(t, c, got, target, smtputf8)
	if err != nil || again != got {
		t.Errorf("converted again: %v\n%.2000q\nand was\n%.2000q", err, again, got)
	}
	return conv.Content != nil
}

// Each file of testdata is a message; FILE.7bit is what a host without extensions gets, FILE.mailbox what a mailbox does.
// Where such a file is missing, nothing changes; FILE.refused holds the reply instead.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.eml")
	if err != nil || len(files) == 0 {
		t.Fatal("no messages", err)
	}
	c := converter(t, Config{KeepSigned: true})
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			msg := crlf(b)
			for _, x := range []struct {
				target mail.Target
				suffix string
			}{{sevenBit, ".7bit"}, {mailbox, ".mailbox"}} {
				got, _, err := run(t, c, msg, x.target, false)
				suffix := x.suffix
				if err != nil {
					got, suffix = err.Error()+"\n", ".refused"
				}
				golden(t, f+suffix, got, msg)
				checkConversion(t, c, msg, x.target, false)
			}
		})
	}
}

func golden(t *testing.T, file, got, unchanged string) {
	t.Helper()
	if os.Getenv("MTA_UPDATE_GOLDEN") != "" {
		os.Remove(file)
		if got != unchanged {
			if err := os.WriteFile(file, []byte(strings.ReplaceAll(got, "\r\n", "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	want, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		want = []byte(unchanged)
	}
	if crlf(want) != crlf([]byte(got)) {
		t.Errorf("%s should be\n%s\nand is\n%s", file, want, got)
	}
}

// beginsWithField is how a file begins that is a message, where its name does not say so.
var beginsWithField = regexp.MustCompile(`^[!-9;-~]+[ \t]*:`)

// The messages of strangers: whatever is wrong with them, no part of them changes.
func TestCorpora(t *testing.T) {
	dir := os.Getenv("MTA_CORPORA")
	if dir == "" {
		t.Skip("MTA_CORPORA names no folder of messages")
	}
	c := converter(t, Config{Mailbox: mailboxBinary})
	var seen, changed int
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		ext := filepath.Ext(path)
		if ext != "" && ext != ".eml" && ext != ".msg" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil || ext == "" && !beginsWithField.Match(b) {
			return err
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			msg := crlf(b)
			for _, target := range []mail.Target{sevenBit, eightBit, mailbox} {
				seen++
				if checkConversion(t, c, msg, target, true) {
					changed++
				}
			}
			if wire, _, err := run(t, c, msg, sevenBit, true); err == nil {
				checkConversion(t, c, wire, mailbox, true)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d conversions, %d with changes", seen, changed)
	if seen > 0 && changed == 0 {
		t.Error("nothing was ever converted")
	}
}

func TestFastPath(t *testing.T) {
	c := converter(t, Config{})
	ascii := "Subject: x\r\n\r\nhello\r\n"
	for _, x := range []struct {
		msg     string
		target  mail.Target
		utf8    bool
		nothing bool
		body    mail.BodyType
	}{
		{ascii, sevenBit, false, true, mail.Body7Bit},
		{ascii, mail.Target{Mailbox: true}, false, true, mail.Body7Bit},
		{"Subject: x\r\n\r\nhéllo\r\n", sevenBit, false, false, mail.Body7Bit},
		{"Subject: x\r\n\r\nhéllo\r\n", eightBit, false, true, mail.Body8Bit},
		{"Subject: é\r\n\r\nhello\r\n", eightBit, false, true, mail.Body8Bit},
		{"Subject: é\r\n\r\nhello\r\n", eightBit, true, false, mail.Body7Bit},
		{"Subject: é\r\n\r\nhello\r\n", mail.Target{EightBit: true, UTF8: true}, true, true, mail.Body8Bit},
		{"Subject: x\r\n\r\na\x00\nb\r\n", eightBit, false, false, mail.Body7Bit},
		{"Subject: x\r\n\r\na\x00\nb\r\n", mail.Target{Binary: true}, false, true, mail.Body7Bit},
		{"Subject: x\r\n\r\n" + strings.Repeat("x", 999) + "\r\n", eightBit, false, false, mail.Body7Bit},
		{"Subject: x\r\n\r\n" + strings.Repeat("x", 998) + "\r\n", sevenBit, false, true, mail.Body7Bit},
	} {
		_, got, err := run(t, c, x.msg, x.target, x.utf8)
		if err != nil || (got.Content == nil) != x.nothing || got.Body != x.body {
			t.Errorf("%.40q for %+v: %+v, %v", x.msg, x.target, got, err)
		}
	}
}

// countingContent tells how much of it was read.
type countingContent struct {
	mail.Content
	n int64
}

func (c *countingContent) ReadAt(p []byte, at int64) (int, error) {
	n, err := c.Content.ReadAt(p, at)
	c.n += int64(n)
	return n, err
}

func TestFastPathReadsOnce(t *testing.T) {
	c := converter(t, Config{})
	in := &countingContent{Content: mail.Bytes(bytes.Repeat([]byte("A: b\r\n"), 1<<16))}
	if _, err := c.Convert(t.Context(), &mail.Conversion{Content: in}); err != nil || in.n != in.Size() {
		t.Errorf("%d of %d bytes were read, %v", in.n, in.Size(), err)
	}
}

type brokenContent struct{ mail.Content }

func (brokenContent) ReadAt([]byte, int64) (int, error) { return 0, errors.New("the disk is gone") }

// Trouble of ours is an error, never a refusal.
func TestTroubleIsNoRefusal(t *testing.T) {
	c := converter(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	whole := mail.Bytes([]byte("Subject: x\r\n\r\nhéllo\r\n"))
	for _, target := range []mail.Target{sevenBit, mailbox} {
		_, err := c.Convert(t.Context(), &mail.Conversion{Content: brokenContent{whole}, Target: target})
		var r *mail.Reply
		if err == nil || errors.As(err, &r) {
			t.Errorf("an unreadable message for %+v: %v", target, err)
		}
	}
	if _, err := c.Convert(ctx, &mail.Conversion{Content: whole}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the deadline: %v", err)
	}
}

// Messages made to be expensive are refused, or left alone where nothing is to be done, in little time.
func TestBombs(t *testing.T) {
	c := converter(t, Config{Mailbox: mailboxBinary})
	nest := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 100_000) + "\r\né\r\n"
	parts := "Content-Type: multipart/mixed; boundary=a\r\n\r\n" + strings.Repeat("--a\r\n", 1_000_000) + "\r\né\r\n--a--\r\n"
	self := strings.Repeat("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n", 10_000) + "é\r\n"
	params := "Content-Type: text/plain; name=é" + strings.Repeat(";\r\n x*0=é", 50_000) + "\r\n\r\né\r\n"
	comments := "From: " + strings.Repeat("(", 100_000) + "é\r\n\r\né\r\n"
	subject := "Subject: " + strings.Repeat("é ", 100_000) + "\r\n\r\né\r\n"
	rcpts := "To: " + strings.Repeat("é <a@b.example>,\r\n ", 50_000) + "\r\n\r\né\r\n"
	header := "X: " + strings.Repeat("é", 2<<20) + "\r\n\r\né\r\n"
	empty := "Content-Type: multipart/mixed; boundary=\" \"\r\n\r\n--\r\n\r\né\r\n"
	dashes := "Content-Type: multipart/mixed; boundary=-\r\n\r\n" + strings.Repeat("-", 1<<20) + "é\r\n"
	for name, msg := range map[string]string{"nest": nest, "parts": parts, "self": self, "params": params, "comments": comments,
		"subject": subject, "rcpts": rcpts, "header": header, "empty": empty, "dashes": dashes} {
		t.Run(name, func(t *testing.T) {
			for _, target := range []mail.Target{sevenBit, mailbox} {
				got, _, err := run(t, c, msg, target, false)
				if s := scanBytes([]byte(got)); err == nil && !target.Mailbox && s.high {
					t.Error("8-bit octets are left")
				}
				if target.Mailbox && err != nil {
					t.Errorf("for a mailbox: %v", err)
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	c := converter(t, Config{})
	for _, x := range []struct{ name, msg, want string }{
		{"signed", "Content-Type: multipart/signed; boundary=a\r\n\r\n--a\r\n\r\né\r\n--a--\r\n", "554 5.6.3"},
		{"encrypted", "Content-Type: multipart/encrypted; boundary=a\r\n\r\n--a\r\n\r\né\r\n--a--\r\n", "554 5.6.3"},
		{"inside", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/signed; boundary=a\r\n\r\n--a\r\n\r\né\r\n--a--\r\n--b--\r\n", "554 5.6.3"},
		{"partial", "Content-Type: message/partial; id=1\r\n\r\né\r\n", "554 5.6.3"},
		{"no delimiter", "Content-Type: multipart/mixed; boundary=a\r\n\r\né\r\n", "554 5.6.3"},
		{"uuencode", "Content-Transfer-Encoding: x-uuencode\r\n\r\né\r\n", "554 5.6.3"},
		{"boundary", "Content-Type: multipart/mixed; boundary=\"é\"\r\n\r\n--é\r\n\r\nx\r\n--é--\r\n", "554 5.6.3"},
		{"from", "From: é <é@example.com>\r\n\r\nx\r\n", "553 5.6.7"},
		{"bare to", "To: ann@example.com, é@example.com\r\n\r\nx\r\n", "553 5.6.7"},
	} {
		_, _, err := run(t, c, x.msg, sevenBit, false)
		var r *mail.Reply
		if !errors.As(err, &r) || !strings.HasPrefix(r.String(), x.want) {
			t.Errorf("%s: %v, want %s", x.name, err, x.want)
		}
	}
}

// A decoded part must not be able to end the part around it, or begin another.
func TestDecodingCantForgeParts(t *testing.T) {
	forged := base64.StdEncoding.EncodeToString([]byte("x\r\n--a\r\nContent-Type: text/html\r\n\r\n<script>\r\n"))
	msg := "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Transfer-Encoding: base64\r\n\r\n" + forged + "\r\n--a--\r\n"
	for _, form := range []string{mailbox8Bit, mailboxBinary} {
		got, _, err := run(t, converter(t, Config{Mailbox: form}), msg, mailbox, false)
		if err != nil || got != msg {
			t.Errorf("%s: %v\n%s", form, err, got)
		}
	}
	// Nor must a soft line break make one.
	long := "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\né" + strings.Repeat("x", 72-3) + "--a--" + strings.Repeat("\r\n"+strings.Repeat("y", 75)+"--a", 3) + "\r\n--a--\r\n"
	if !checkConversion(t, converter(t, Config{}), long, sevenBit, false) {
		t.Error("nothing was converted")
	}
}

// What goes onto a wire ends with a line end, and that one is not part of the content where none was.
func TestLastLine(t *testing.T) {
	c := converter(t, Config{})
	for _, kind := range []string{"text/plain", "image/png"} {
		for _, body := range []string{"h\u00e9llo", "h\u00e9llo and more ascii words", "h\u00e9llo and more ascii words\r\n"} {
			msg := "Content-Type: " + kind + "\r\n\r\n" + body
			got, _, err := run(t, c, msg, sevenBit, false)
			if err != nil || !strings.HasSuffix(got, "\r\n") || !slices.Equal(leaves([]byte(msg), ""), leaves([]byte(got), "")) {
				t.Errorf("%q became %q, %v", msg, got, err)
			}
		}
	}
}

func TestMailboxForms(t *testing.T) {
	qp := "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nh=C3=A9llo\r\n"
	plain := strings.Replace(strings.Replace(qp, "quoted-printable", "8bit", 1), "=C3=A9", "é", 1)
	picture := "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC/w==\r\n"
	signed := "DKIM-Signature: v=1\r\n" + qp
	for _, x := range []struct {
		cfg       Config
		msg, want string
	}{
		{Config{}, qp, plain},
		{Config{Mailbox: mailboxOff}, qp, qp},
		{Config{}, picture, picture},
		{Config{Mailbox: mailboxBinary}, picture, "Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\x01\x02\xff"},
		{Config{KeepSigned: true}, signed, signed},
		{Config{}, signed, "DKIM-Signature: v=1\r\n" + plain},
	} {
		got, _, err := run(t, converter(t, x.cfg), x.msg, mailbox, false)
		if err != nil || got != x.want {
			t.Errorf("%+v makes of %q\n%q, %v", x.cfg, x.msg, got, err)
		}
	}
	if _, err := New(Config{Mailbox: "7bit"}); err == nil {
		t.Error("a form that is none was taken")
	}
}

func TestScanInPieces(t *testing.T) {
	for _, text := range []string{"", "a", "\r", "\n", "a\r\nb", "a\rb", "\r\n\r\n", "a\r\r\n", "a\n\r\n", strings.Repeat("x", 998) + "\r\n",
		strings.Repeat("x", 999) + "\r\n", strings.Repeat("x", 998), strings.Repeat("x", 998) + "\r", strings.Repeat("y", 40) + "é", "\x00"} {
		want := scanBytes([]byte(text))
		for cut := range len(text) + 1 {
			var s scan
			s.add([]byte(text[:cut]))
			s.add(nil)
			s.add([]byte(text[cut:]))
			s.end()
			if s != want {
				t.Fatalf("%.20q cut at %d: %+v, whole %+v", text, cut, s, want)
			}
		}
	}
	for text, want := range map[string]class{"a\r\n": class7Bit, "é\r\n": class8Bit, "a\n": classBinary, "a\r": classBinary, "\r\r\n": classBinary,
		strings.Repeat("x", 998) + "\r\n": class7Bit, strings.Repeat("x", 999): classBinary} {
		if s := scanBytes([]byte(text)); s.class() != want {
			t.Errorf("%.20q is %v", text, s.class())
		}
	}
}

func FuzzConvert(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.eml")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(crlf(b)), byte(0))
		f.Add([]byte(crlf(b)), byte(5))
	}
	f.Fuzz(func(t *testing.T, msg []byte, bits byte) {
		if len(msg) > 64<<10 {
			return
		}
		target := mail.Target{EightBit: bits&1 != 0, UTF8: bits&2 != 0, Mailbox: bits&4 != 0, Binary: bits&8 != 0}
		form := mailbox8Bit
		if bits&16 != 0 {
			form = mailboxBinary
		}
		checkConversion(t, converter(t, Config{Mailbox: form}), string(msg), target, bits&32 != 0)
	})
}

func BenchmarkFastPath(b *testing.B) {
	c := converter(b, Config{})
	m := &mail.Conversion{Content: mail.Bytes(bytes.Repeat([]byte(strings.Repeat("x", 70)+"\r\n"), 57))}
	b.SetBytes(m.Content.Size())
	for b.Loop() {
		if _, err := c.Convert(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}
