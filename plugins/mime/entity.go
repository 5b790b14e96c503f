package mime

import (
	"bytes"
	"strings"
)

// splitEntity parts a header from a body. A line that is no field ends the header, and the body begins with it, as mail
// programs take it. Blank is the empty line between them, or nothing.
func splitEntity(b []byte) (header, blank, body []byte) {
	for at := 0; at < len(b); {
		end := at + lineLen(b[at:])
		line := b[at:end]
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return b[:at], line, b[end:]
		}
		if folded := at > 0 && isSpace(line[0]); !folded && colon(line) < 0 {
			return b[:at], nil, b[at:]
		}
		at = end
	}
	return b, nil, nil
}

// lineLen returns the length of the first line, its line end included.
func lineLen(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// colon returns where the colon after a field's name is, or -1 if the line begins no field (RFC 5322, 2.2).
func colon(line []byte) int {
	i := bytes.IndexByte(line, ':')
	if i < 0 {
		return -1
	}
	name := bytes.TrimRight(line[:i], " \t")
	if len(name) == 0 {
		return -1
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return -1
		}
	}
	return i
}

// field is one header field, as it stands in the message, with its folds and line end.
type field struct {
	raw   []byte
	colon int
}

func (f field) name() string  { return string(bytes.TrimRight(f.raw[:f.colon], " \t")) }
func (f field) value() []byte { return f.raw[f.colon+1:] }
func (f field) is(name string) bool {
	return len(name) <= f.colon && strings.EqualFold(f.name(), name)
}

// header is the fields of an entity.
type header struct {
	fields  []field
	changed bool
}

func parseHeader(raw []byte) *header {
	h := new(header)
	for len(raw) > 0 {
		end := lineLen(raw)
		for end < len(raw) && isSpace(raw[end]) {
			end += lineLen(raw[end:])
		}
		h.fields = append(h.fields, field{raw: raw[:end], colon: colon(raw[:end])})
		raw = raw[end:]
	}
	return h
}

func (h *header) get(name string) (value []byte, ok bool) {
	for _, f := range h.fields {
		if f.is(name) {
			return f.value(), true
		}
	}
	return nil, false
}

// set gives the first field of that name another value and removes the others; without one it adds one at the end.
func (h *header) set(name, value string) {
	line := field{raw: []byte(name + ": " + value + "\r\n"), colon: len(name)}
	kept, done := make([]field, 0, len(h.fields)+1), false
	for _, f := range h.fields {
		if !f.is(name) {
			kept = append(kept, f)
		} else if !done {
			kept, done = append(kept, line), true
		}
	}
	if !done {
		kept = append(kept, line)
	}
	h.fields, h.changed = kept, true
}

func (h *header) bytes() []byte {
	var b []byte
	for _, f := range h.fields {
		b = append(b, f.raw...)
		if !bytes.HasSuffix(f.raw, []byte("\n")) { // a message that ends inside its header
			b = append(b, "\r\n"...)
		}
	}
	return b
}

// encoding returns the transfer encoding in lower case; "7bit" when nothing is said (RFC 2045, 6.1).
func (h *header) encoding() string {
	v, ok := h.get("Content-Transfer-Encoding")
	if !ok {
		return "7bit"
	}
	return strings.ToLower(strings.TrimSpace(stripComments(string(v))))
}

// isIdentity says whether an encoding is only a label (RFC 2045, 6.2).
func isIdentity(encoding string) bool {
	return encoding == "7bit" || encoding == "8bit" || encoding == "binary" || encoding == ""
}

// maxParams bounds the parameters of a field.
const maxParams = 1000

// media reads a Content-Type: the type in lower case, and its boundary.
func (h *header) media(otherwise string) (kind, boundary string) {
	v, ok := h.get("Content-Type")
	if !ok {
		return otherwise, ""
	}
	segments := splitParams(unfold(v))
	kind = strings.ToLower(strings.TrimSpace(stripComments(segments[0])))
	if !strings.Contains(kind, "/") {
		return "text/plain", "" // as RFC 2045, 5.2 says of a type that can't be read
	}
	for _, s := range segments[1:] {
		name, value, _ := strings.Cut(s, "=")
		if strings.EqualFold(strings.TrimSpace(name), "boundary") {
			return kind, strings.TrimRight(unquote(value), " \t")
		}
	}
	return kind, ""
}

func unfold(v []byte) string {
	s := strings.ReplaceAll(string(v), "\r\n", "")
	return strings.Trim(strings.ReplaceAll(s, "\n", ""), " \t")
}

// splitParams parts a structured value at its semicolons, but for those in quotes and comments. There is at least one
// segment.
func splitParams(v string) (segments []string) {
	start, depth, quoted := 0, 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '\\' && (quoted || depth > 0):
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == ';' && depth == 0 && len(segments) < maxParams:
			segments = append(segments, v[start:i])
			start = i + 1
		}
	}
	return append(segments, v[start:])
}

// unquote returns the value of a parameter, whose quotes and comments are taken off.
func unquote(v string) string {
	v = strings.TrimSpace(v)
	if !strings.HasPrefix(v, `"`) {
		return strings.TrimSpace(stripComments(v))
	}
	var b strings.Builder
	for i := 1; i < len(v) && v[i] != '"'; i++ {
		if v[i] == '\\' && i+1 < len(v) {
			i++
		}
		b.WriteByte(v[i])
	}
	return b.String()
}

// stripComments takes parenthesised comments off a value without quotes.
func stripComments(v string) string {
	if !strings.Contains(v, "(") {
		return v
	}
	var b strings.Builder
	depth := 0
	for _, c := range []byte(v) {
		switch {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String()
}
