package box

import (
	"bytes"
	"strings"
)

// Bounds on the structure of a message. What goes beyond is shown as one part.
const (
	maxDepth = 30
	maxParts = 1000
)

// Part is a part of a message, as places in its bytes.
type Part struct {
	Header, Body []byte // the header with the empty line after it
	Type         string // lower case, such as "text"
	Subtype      string
	Params       []Param
	Parts        []*Part // of a multipart; of a message/rfc822, the one message in it
}

// Param is a parameter of a header field, its value as it stands there but for quotes.
type Param struct{ Key, Value string }

// Parse finds the parts of a message.
func Parse(b []byte) *Part {
	n := maxParts
	return parsePart(b, "text/plain", maxDepth, &n)
}

func parsePart(b []byte, fallback string, depth int, left *int) *Part {
	*left--
	end := headerEnd(b)
	p := &Part{Header: b[:end], Body: b[end:]}
	value := p.Get("Content-Type")
	if value == "" {
		value = fallback
	}
	var full string
	full, p.Params = ParseParams(value)
	p.Type, p.Subtype, _ = strings.Cut(full, "/")
	if p.Type == "" || p.Subtype == "" || strings.ContainsAny(full, " \t") {
		p.Type, p.Subtype = "text", "plain" // RFC 2045, 5.2
	}
	if depth == 0 {
		p.leaf()
		return p
	}
	switch {
	case p.Type == "multipart":
		p.split(depth, left)
	case p.IsMessage():
		p.Parts = []*Part{parsePart(p.Body, "text/plain", depth-1, left)}
	}
	return p
}

// IsMessage says whether the part is a message of its own.
func (p *Part) IsMessage() bool {
	return p.Type == "message" && (p.Subtype == "rfc822" || p.Subtype == "global")
}

// leaf makes one part of what has parts that we don't look for, or has none.
func (p *Part) leaf() {
	if p.Type == "multipart" {
		p.Type, p.Subtype, p.Params = "text", "plain", nil
	} else if p.IsMessage() {
		p.Type, p.Subtype, p.Params = "application", "octet-stream", nil
	}
	p.Parts = nil
}

// Param returns a parameter of the type.
func (p *Part) Param(key string) string {
	for _, x := range p.Params {
		if x.Key == key {
			return x.Value
		}
	}
	return ""
}

// split finds the parts of a multipart: between lines that begin with its boundary (RFC 2046, 5.1.1).
func (p *Part) split(depth int, left *int) {
	fallback := "text/plain"
	if p.Subtype == "digest" {
		fallback = "message/rfc822"
	}
	line := []byte("--" + p.Param("boundary"))
	start := -1
	for at := 0; at < len(p.Body) && *left > 0; {
		i, next, last := findBoundary(p.Body, line, at)
		if i < 0 {
			break
		}
		if start >= 0 {
			p.Parts = append(p.Parts, parsePart(beforeBoundary(p.Body, start, i), fallback, depth-1, left))
		}
		start, at = next, next
		if last {
			start = -1
			break
		}
	}
	if start >= 0 && start < len(p.Body) && *left > 0 { // cut off
		p.Parts = append(p.Parts, parsePart(p.Body[start:], fallback, depth-1, left))
	}
	if len(p.Parts) == 0 {
		p.leaf()
	}
}

// findBoundary returns where the next boundary line begins, where it ends, and whether it is the last.
func findBoundary(b, line []byte, at int) (start, next int, last bool) {
	for at < len(b) {
		i := bytes.Index(b[at:], line)
		if i < 0 || len(line) == 2 {
			return -1, 0, false
		}
		i += at
		at = i + len(line)
		if i > 0 && b[i-1] != '\n' {
			continue
		}
		rest, next := b[at:], len(b)
		if n := bytes.IndexByte(rest, '\n'); n >= 0 {
			rest, next = rest[:n], at+n+1
		}
		tail := bytes.TrimRight(rest, " \t\r")
		if len(tail) == 0 || string(tail) == "--" {
			return i, next, len(tail) > 0
		}
	}
	return -1, 0, false
}

// beforeBoundary returns a part without the line end that belongs to the boundary after it.
func beforeBoundary(b []byte, start, end int) []byte {
	b = b[start:max(start, end)]
	b = bytes.TrimSuffix(b, []byte("\n"))
	return bytes.TrimSuffix(b, []byte("\r"))
}

// Find returns the part of a number such as 1.2 (RFC 9051, 6.4.5.1). Part 1 of what has no parts is itself.
func (p *Part) Find(path []int) *Part {
	itself := true // the message as a whole, which has a body that is part 1
	for _, n := range path {
		if p.IsMessage() && !itself && len(p.Parts) == 1 {
			p, itself = p.Parts[0], true
		}
		switch {
		case p.Type == "multipart" && n >= 1 && n <= len(p.Parts):
			p = p.Parts[n-1]
		case p.Type != "multipart" && itself && n == 1:
		default:
			return nil
		}
		itself = false
	}
	return p
}

// Get returns the value of the first header field of a name, its lines joined.
func (p *Part) Get(name string) string { return Get(p.Header, name) }

// Get returns the value of the first field of a name in a header, its lines joined.
func Get(header []byte, name string) string {
	for f := range Fields(header) {
		if strings.EqualFold(f.Name, name) {
			return f.Value()
		}
	}
	return ""
}

// Field is a field of a header.
type Field struct {
	Name string
	Raw  []byte // all of it, with its line ends
}

// Value returns what follows the colon, its lines joined.
func (f Field) Value() string {
	_, v, _ := bytes.Cut(f.Raw, []byte(":"))
	v = bytes.ReplaceAll(bytes.ReplaceAll(v, []byte("\r"), nil), []byte("\n"), nil)
	return strings.TrimSpace(strings.ReplaceAll(string(v), "\x00", ""))
}

// Fields iterates over the fields of a header. Lines that are none are left out.
func Fields(header []byte) func(yield func(Field) bool) {
	return func(yield func(Field) bool) {
		for len(header) > 0 {
			n := fieldLen(header)
			raw := header[:n]
			header = header[n:]
			name, _, ok := bytes.Cut(raw, []byte(":"))
			name = bytes.TrimRight(name, " \t")
			if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t\r\n") {
				continue
			}
			if !yield(Field{string(name), raw}) {
				return
			}
		}
	}
}

// fieldLen returns the length of the first field with the lines that continue it.
func fieldLen(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return len(b)
		}
		at += i + 1
		if at == len(b) || b[at] != ' ' && b[at] != '\t' {
			return at
		}
	}
}

// ParseParams reads a value and its parameters (RFC 2045, 5.1), forgiving what mail programs get wrong. Comments go.
func ParseParams(s string) (value string, params []Param) {
	value, rest := cutParam(s)
	value = strings.ToLower(strings.TrimSpace(value))
	for rest != "" && len(params) < 100 {
		var one string
		one, rest = cutParam(rest)
		key, v, ok := strings.Cut(one, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if ok && key != "" {
			params = append(params, Param{key, unquote(strings.TrimSpace(v))})
		}
	}
	return value, params
}

// cutParam cuts at the first semicolon outside of quotes and comments, which are left out.
func cutParam(s string) (first, rest string) {
	var b strings.Builder
	quoted, depth := false, 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && (quoted || depth > 0) && i+1 < len(s):
			if quoted {
				b.WriteString(s[i : i+2])
			}
			i++
			continue
		case quoted:
			quoted = c != '"'
		case c == '(':
			depth++
			continue
		case c == ')' && depth > 0:
			depth--
			continue
		case depth > 0:
			continue
		case c == '"':
			quoted = true
		case c == ';':
			return b.String(), s[i+1:]
		}
		b.WriteByte(c)
	}
	return b.String(), ""
}

func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return strings.Trim(s, `"`)
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
