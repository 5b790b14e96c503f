package bounce

import (
	"bytes"
	"fmt"
	"mime/quotedprintable"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// encoding is a Content-Transfer-Encoding (RFC 2045, 6).
type encoding string

const (
	sevenBit        encoding = "7bit"
	eightBit        encoding = "8bit"
	quotedPrintable encoding = "quoted-printable"
)

// part is one part of the report, its body encoded already.
type part struct {
	description string // Content-Description
	contentType string
	language    string // Content-Language, RFC 3282; may be ""
	encoding    encoding
	global      bool // a message/global type with UTF-8 in it: needs SMTPUTF8 (RFC 6533)
	body        []byte
}

func (p part) writeTo(b *bytes.Buffer) {
	field(b, "Content-Description", p.description)
	field(b, "Content-Type", p.contentType)
	if p.language != "" {
		field(b, "Content-Language", p.language)
	}
	field(b, "Content-Transfer-Encoding", string(p.encoding))
	b.WriteString("\r\n")
	b.Write(p.body)
}

// Limits of what others said, in bytes.
const (
	maxSubject    = 300
	maxDiagnostic = 800 // with the name of its field it stays one line, even without a space to fold at
	maxText       = 64 << 10
	maxLine       = 998 // RFC 5322, 2.1.1
	wrapAt        = 76
)

// field writes one header field, folded at its spaces (RFC 5322, 2.2.3). Value holds no line break.
func field(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	b.WriteByte(':')
	width := len(name) + 1
	for word := range strings.SplitSeq(value, " ") {
		if word == "" {
			continue // a run of spaces is one: a folded line must not be empty
		}
		if width > len(name)+1 && width+1+len(word) > wrapAt {
			b.WriteString("\r\n")
			width = 0
		}
		b.WriteByte(' ')
		b.WriteString(word)
		width += 1 + len(word)
	}
	b.WriteString("\r\n")
}

// date writes a time as RFC 5322, 3.3 wants it.
func date(t time.Time) string { return t.Format("Mon, 2 Jan 2006 15:04:05 -0700") }

// clean makes one line of UTF-8 without controls of any text, at most limit bytes long.
func clean(s string, limit int) string {
	if len(s) > 4*limit {
		s = s[:4*limit]
	}
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(c rune) rune {
		if unsafe(c) {
			return ' '
		}
		return c
	}, s)
	return cut(strings.Join(strings.Fields(s), " "), limit)
}

// cleanLines is clean for a text of several lines.
func cleanLines(s string, limit int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(cut(s, limit), "?"), "\r\n", "\n")
	return strings.Map(func(c rune) rune {
		if c != '\n' && c != '\t' && unsafe(c) {
			return ' '
		}
		return c
	}, s)
}

// unsafe tells the characters that end lines, steer terminals or turn the direction of what follows.
func unsafe(c rune) bool {
	return unicode.IsControl(c) || c == '\u2028' || c == '\u2029' || c >= '\u202a' && c <= '\u202e' || c >= '\u2066' && c <= '\u2069'
}

// cut shortens s to at most limit bytes, not inside a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// escape writes what is not ASCII, and the characters of special, as \x{HEX}, the form that RFC 6533, 3 has for 7-bit
// reports, at most limit bytes long.
func escape(s, special string, limit int) string {
	var b strings.Builder
	for _, c := range s {
		piece := string(c)
		if c >= utf8.RuneSelf || strings.ContainsRune(special, c) {
			piece = fmt.Sprintf(`\x{%X}`, c)
		}
		if b.Len()+len(piece) > limit {
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}

func isASCII[T ~string | ~[]byte](s T) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// longestLine returns the length of the longest line of b, its end left out.
func longestLine(b []byte) int {
	longest := 0
	for line := range bytes.Lines(b) {
		longest = max(longest, len(bytes.TrimRight(line, "\r\n")))
	}
	return longest
}

// isLines tells content whose lines all end in CRLF and are short enough, without NUL: what 7bit and 8bit mean
// (RFC 2045, 2.7 and 2.8).
func isLines(b []byte) bool {
	if bytes.IndexByte(b, 0) >= 0 {
		return false
	}
	ends := bytes.Count(b, []byte("\r\n"))
	return bytes.Count(b, []byte("\n")) == ends && bytes.Count(b, []byte("\r")) == ends && longestLine(b) <= maxLine
}

// asQuotedPrintable encodes text; whatever ends its lines becomes CRLF.
func asQuotedPrintable(text []byte) []byte {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	// Neither can fail: a bytes.Buffer takes everything.
	_, _ = w.Write(text)
	_ = w.Close()
	return b.Bytes()
}
