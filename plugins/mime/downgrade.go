package mime

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"
)

// downgrade makes the fields of a header ASCII, if that is wanted (the ways are those of RFC 6857, 3).
func (w *walk) downgrade(h *header, at place) error {
	if !w.ascii {
		return nil
	}
	for i, f := range h.fields {
		if !hasHigh(f.raw) {
			continue
		}
		lines, err := downgradeField(f, at.root)
		if err != nil {
			return err
		}
		h.fields[i] = field{raw: []byte(lines), colon: strings.IndexByte(lines, ':')}
		h.changed = true
	}
	return nil
}

func downgradeField(f field, root bool) (string, error) {
	name, value := f.name(), unfold(f.value())
	switch strings.ToLower(name) {
	case "from", "sender", "reply-to", "to", "cc", "bcc", "resent-from", "resent-sender", "resent-reply-to", "resent-to",
		"resent-cc", "resent-bcc", "return-path", "errors-to", "disposition-notification-to", "delivered-to":
		return downgradeAddresses(name, value, root)
	case "date", "resent-date", "received", "mime-version", "content-transfer-encoding":
		return downgradeAddresses(name, value, false) // outside of comments there is no free text in them
	case "content-type", "content-disposition":
		if highBoundary(value) {
			return "", errUnknown
		}
		return downgradeParams(name, value), nil
	case "message-id", "in-reply-to", "references", "resent-message-id", "content-id", "dkim-signature":
		// An identifier has no other spelling: what stands under its name must be one (RFC 6857, 3.1.10).
		name = "Downgraded-" + name
	}
	l := newLine(name)
	l.unstructured(value)
	return l.String(), nil
}

// highBoundary reports whether a multipart has a boundary that is not ASCII. It has no other spelling: the lines between the parts are made of it.
func highBoundary(value string) bool {
	h := header{}
	h.set("Content-Type", value)
	kind, boundary := h.media("")
	return strings.HasPrefix(kind, "multipart/") && hasHigh([]byte(boundary))
}

// line writes a field, folded (RFC 5322, 2.2.3).
type line struct {
	strings.Builder
	col int
}

func newLine(name string) *line {
	l := &line{col: len(name) + 1}
	l.WriteString(name + ":")
	return l
}

// String ends the field.
func (l *line) String() string { return l.Builder.String() + "\r\n" }

// word writes a word after a space, which becomes a fold when the line would be too long.
func (l *line) word(space, s string) {
	if l.col+len(space)+len(s) > encodedLine && space != "" {
		l.WriteString("\r\n")
		l.col = 0
	}
	l.WriteString(space + s)
	l.col += len(space) + len(s)
}

// encoded writes text as encoded words. The spaces between them are not part of the text (RFC 2047, 6.2).
func (l *line) encoded(space, text string) {
	for i, e := range encodedWords(text) {
		if i > 0 {
			space = " "
		}
		l.word(space, e)
	}
}

// unstructured writes text whose words are encoded where they must be. A run of such words is encoded together with the
// spaces in it.
func (l *line) unstructured(text string) {
	space, at := " ", 0
	from, until, runSpace := 0, 0, "" // text[from:until] is the run
	flush := func() {
		if until > from {
			l.encoded(runSpace, text[from:until])
		}
		from, until = 0, 0
	}
	for at < len(text) {
		word, rest, gap := cutWord(text[at:])
		end := at + len(word)
		switch {
		case !hasHigh([]byte(word)):
			flush()
			l.word(space, word)
		case until > from:
			until = end
		default:
			from, until, runSpace = at, end, space
		}
		space, at = gap, len(text)-len(rest)
	}
	flush()
}

// cutWord returns the first word of a text that begins with one, the space after it, and the rest.
func cutWord(text string) (word, rest, space string) {
	n := strings.IndexAny(text, " \t")
	if n < 0 {
		return text, "", ""
	}
	rest = strings.TrimLeft(text[n:], " \t")
	return text[:n], rest, text[n : len(text)-len(rest)]
}

// encodedWords returns text as words of at most 75 characters (RFC 2047, 2), each of whole characters.
func encodedWords(text string) (words []string) {
	charset := charsetOf([]byte(text))
	high := 0
	for _, c := range []byte(text) {
		if c >= 0x80 {
			high++
		}
	}
	b := high*3 > len(text)
	room := 75 - len("=?"+charset+"?B?"+"?=")
	for text != "" {
		n := 0
		for n < len(text) {
			size := 1
			if charset == "utf-8" {
				_, size = utf8.DecodeRuneInString(text[n:])
			}
			if n > 0 && encodedLen(text[:n+size], b) > room {
				break
			}
			n += size
		}
		if b {
			words = append(words, "=?"+charset+"?B?"+base64.StdEncoding.EncodeToString([]byte(text[:n]))+"?=")
		} else {
			words = append(words, "=?"+charset+"?Q?"+quoteWord(text[:n])+"?=")
		}
		text = text[n:]
	}
	return words
}

func encodedLen(s string, b bool) int {
	if b {
		return base64.StdEncoding.EncodedLen(len(s))
	}
	return len(quoteWord(s))
}

// quoteWord is the Q encoding with the letters that may stand anywhere, in a phrase as well (RFC 2047, 5, 3).
func quoteWord(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == ' ':
			b.WriteByte('_')
		case isAlnum(c) || strings.IndexByte("!*+-/", c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'=', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// downgradeParams writes a field with parameters; those that must be are extended (RFC 2231, 3 and 4).
func downgradeParams(name, value string) string {
	l := newLine(name)
	segments := splitParams(value)
	for i, s := range segments {
		s = strings.TrimSpace(s)
		written := []string{s}
		switch {
		case !hasHigh([]byte(s)):
		case i == 0: // the type itself, also one that looks like a parameter
			written[0] = questionMarks(s)
		default:
			written = extended(s)
		}
		for j, p := range written {
			if i < len(segments)-1 || j < len(written)-1 {
				p += ";"
			}
			l.word(" ", p)
		}
	}
	return l.String()
}

// extended returns a parameter in the pieces that it needs.
func extended(param string) []string {
	key, value, ok := strings.Cut(param, "=")
	key = strings.TrimSpace(key)
	if !ok || hasHigh([]byte(key)) {
		return []string{questionMarks(param)} // no parameter at all
	}
	if strings.HasSuffix(key, "*") { // extended already, though not quite
		return []string{key + "=" + percent(unquote(value), "%'")}
	}
	value = unquote(value)
	if !hasHigh([]byte(value)) { // only a comment had octets; few readers look for an extended boundary
		return []string{key + `="` + quoter.Replace(value) + `"`}
	}
	text := charsetOf([]byte(value)) + "''" + percent(value, "")
	if room := encodedLine - len(key) - 4; len(text) <= room {
		return []string{key + "*=" + text}
	}
	const piece = 54
	var pieces []string
	for n := 0; text != ""; n++ {
		end := min(piece, len(text))
		for end < len(text) && end > 2 && (text[end-1] == '%' || text[end-2] == '%') {
			end-- // not within a %XX
		}
		pieces = append(pieces, key+"*"+strconv.Itoa(n)+"*="+text[:end])
		text = text[end:]
	}
	return pieces
}

// quoter escapes what may not stand in a quoted string as it is (RFC 2045, 5.1).
var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// percent writes an extended value (RFC 2231, 7: attribute-char).
func percent(s, keep string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if isAlnum(c) || strings.IndexByte("!#$&+-.^_`{|}~"+keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

func questionMarks(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 0x80 {
			b[i] = '?'
		}
	}
	return string(b)
}
