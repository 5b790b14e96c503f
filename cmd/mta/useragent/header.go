package useragent

import (
	"bytes"
	"cmp"
	"io"
	"mime"
	"net/mail"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
)

// Field is one field of a header, unfolded and otherwise as it came.
type Field struct{ Name, Value string }

// Text returns the value with its charsets decoded (RFC 2047).
func (f Field) Text() string { return decodeWords(f.Value) }

// Header is the fields of a message or a part, in their order.
type Header []Field

// maxFields bounds the header that is read; a message that has more is read as if it ended there.
const maxFields = 10000

// cutHeader reads the fields at the start of b and returns what is behind the empty line. It refuses nothing: a line that
// is no field is left out, and a header without an end is a message without a body.
func cutHeader(b []byte) (Header, []byte) {
	var h Header
	var value strings.Builder // of the last field, which may go on
	finish := func() {
		if len(h) > 0 {
			h[len(h)-1].Value = strings.TrimSpace(value.String())
		}
		value.Reset()
	}
	defer finish()
	for len(b) > 0 {
		line, rest := cutLine(b)
		text := string(trimEOL(line))
		switch name, start, ok := strings.Cut(text, ":"); {
		case text == "":
			return h, rest
		case (text[0] == ' ' || text[0] == '\t') && len(h) > 0:
			value.WriteString(text)
		case !ok || len(h) >= maxFields:
		default:
			finish()
			h = append(h, Field{Name: strings.TrimRight(name, " \t")})
			value.WriteString(start)
		}
		b = rest
	}
	return h, nil
}

func cutLine(b []byte) (line, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i+1], b[i+1:]
	}
	return b, nil
}

func trimEOL(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// Get returns the first field of that name as it came, or "".
func (h Header) Get(name string) string {
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Text returns a field of words with its charsets decoded (RFC 2047).
func (h Header) Text(name string) string { return decodeWords(h.Get(name)) }

// Date returns the time of the Date field, or the zero time.
func (h Header) Date() time.Time {
	t, err := mail.ParseDate(h.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// Addresses returns the mailboxes of all fields of that name. Of a list with mistakes it returns what can be read.
func (h Header) Addresses(name string) []*mail.Address {
	var list []*mail.Address
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			list = append(list, parseAddresses(f.Value)...)
		}
	}
	return list
}

func parseAddresses(value string) []*mail.Address {
	p := mail.AddressParser{WordDecoder: wordDecoder()}
	value = strings.ToValidUTF8(value, "\ufffd")
	if list, err := p.ParseList(value); err == nil {
		return list
	}
	var list []*mail.Address
	for one := range strings.SplitSeq(value, ",") {
		if a, err := p.Parse(strings.TrimSpace(one)); err == nil {
			list = append(list, a)
		} else if a := salvage(one); a != nil {
			list = append(list, a)
		}
	}
	return list
}

// salvage finds an address in angle brackets behind a name that is not right.
func salvage(text string) *mail.Address {
	name, rest, ok := strings.Cut(text, "<")
	inside, _, closed := strings.Cut(rest, ">")
	a, err := mail.ParseAddress(inside)
	if !ok || !closed || err != nil {
		return nil
	}
	a.Name = SafeLine(strings.Trim(decodeWords(name), "\" \t"))
	return a
}

// MessageIDs returns the message ids that a field holds, with their angle brackets.
func (h Header) MessageIDs(name string) []string {
	var ids []string
	rest := h.Get(name)
	for {
		start := strings.IndexByte(rest, '<')
		if start < 0 {
			return ids
		}
		end := strings.IndexByte(rest[start:], '>')
		if end < 0 {
			return ids
		}
		id := rest[start : start+end+1]
		if isMessageID(id) {
			ids = append(ids, id)
		}
		rest = rest[start+end+1:]
	}
}

// isMessageID tells what may be written into our own header: one word of visible ASCII.
func isMessageID(id string) bool {
	for i := range len(id) {
		if id[i] <= ' ' || id[i] >= 0x7f {
			return false
		}
	}
	return len(id) > 2 && len(id) < 900
}

func wordDecoder() *mime.WordDecoder { return &mime.WordDecoder{CharsetReader: charsetReader} }

func decodeWords(s string) string {
	if out, err := wordDecoder().DecodeHeader(s); err == nil {
		s = out
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// charsetReader knows what go-message knows, and ISO-2022-KR (RFC 1557), which is EUC-KR with seven bits.
func charsetReader(name string, r io.Reader) (io.Reader, error) {
	if strings.EqualFold(name, "iso-2022-kr") {
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		return charset.Reader("euc-kr", bytes.NewReader(shiftKorean(b)))
	}
	return charset.Reader(name, r)
}

// shiftKorean sets the eighth bit of what stands between SO and SI; each line starts in ASCII.
func shiftKorean(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte("\x1b$)C"), nil)
	out := b[:0:0]
	shifted := false
	for _, c := range b {
		switch {
		case c == 0x0e:
			shifted = true
		case c == 0x0f:
			shifted = false
		case c == '\n':
			shifted = false
			out = append(out, c)
		case shifted && c > ' ' && c < 0x7f:
			out = append(out, c|0x80)
		default:
			out = append(out, c)
		}
	}
	return out
}

// decodeCharset turns bytes of a charset into UTF-8. An unknown charset is read as UTF-8, and what is none becomes U+FFFD.
func decodeCharset(name string, b []byte) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if (name == "" || name == "us-ascii" || name == "utf-8") && utf8.Valid(b) {
		return string(b)
	}
	if name == "" || name == "us-ascii" {
		name = "windows-1252" // what unlabelled 8-bit text most often is
	}
	if r, err := charsetReader(name, bytes.NewReader(b)); err == nil {
		if out, err := io.ReadAll(r); err == nil {
			return strings.ToValidUTF8(string(out), "\ufffd")
		}
	}
	return strings.ToValidUTF8(string(b), "\ufffd")
}

// params reads a field such as Content-Type: its value in lower case, and its parameters with RFC 2231 and, as many
// programs write against RFC 2047, 5, encoded words decoded.
func params(field string) (string, map[string]string) {
	value, rest, _ := strings.Cut(field, ";")
	type piece struct {
		text    string
		encoded bool
	}
	pieces := map[string]map[int]piece{}
	for len(rest) > 0 && len(pieces) < 100 {
		var name, text string
		name, text, rest = cutParam(rest)
		name, encoded := strings.CutSuffix(name, "*")
		section := 0
		if stem, number, ok := strings.Cut(name, "*"); ok {
			n, err := strconv.Atoi(number)
			if err != nil || n < 0 || n > 1000 {
				continue
			}
			name, section = stem, n
		}
		if name == "" {
			continue
		}
		if pieces[name] == nil {
			pieces[name] = map[int]piece{}
		}
		if old, ok := pieces[name][section]; !ok || encoded && !old.encoded {
			pieces[name][section] = piece{text, encoded}
		}
	}
	out := map[string]string{}
	for name, list := range pieces {
		var raw []byte
		label, anyEncoded := "", false
		for i := 0; ; i++ {
			p, ok := list[i]
			if !ok {
				break
			}
			text := p.text
			if p.encoded {
				anyEncoded = true
				if parts := strings.SplitN(text, "'", 3); i == 0 && len(parts) == 3 {
					label, text = parts[0], parts[2]
				}
				if un, err := url.PathUnescape(text); err == nil {
					text = un
				}
			}
			raw = append(raw, text...)
		}
		if anyEncoded {
			out[name] = decodeCharset(cmp.Or(label, "utf-8"), raw)
		} else {
			out[name] = decodeWords(string(raw))
		}
	}
	return strings.ToLower(strings.TrimSpace(value)), out
}

// cutParam reads one name=value, the value a token or a quoted string.
func cutParam(s string) (name, value, rest string) {
	s = strings.TrimLeft(s, "; \t")
	i := strings.IndexAny(s, "=;")
	if i < 0 {
		return "", "", ""
	}
	if s[i] == ';' {
		return "", "", s[i:]
	}
	name = strings.ToLower(strings.TrimSpace(s[:i]))
	s = strings.TrimLeft(s[i+1:], " \t")
	if !strings.HasPrefix(s, `"`) {
		value, rest, _ = strings.Cut(s, ";")
		return name, strings.TrimSpace(value), rest
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			_, rest, _ = strings.Cut(s[i+1:], ";")
			return name, b.String(), rest
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return name, b.String(), ""
}
