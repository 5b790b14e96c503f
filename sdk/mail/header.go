package mail

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// MaxHeader bounds a message header, in bytes; a longer one is refused. Postfix's header_size_limit is of this order.
const MaxHeader = 1 << 20

// Field is one header field.
type Field struct {
	ID    uint32 // stable within a stage: edits name fields by it
	Name  string // as it was written
	Value []byte // all after the colon, as it was written, folds kept, the last CRLF left out
}

// Header is the fields of a message in their order.
type Header []Field

// Get returns the value of the first field of that name, unfolded and trimmed, or "".
func (h Header) Get(name string) string {
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			return f.Text()
		}
	}
	return ""
}

// Has reports whether a field of that name is there.
func (h Header) Has(name string) bool {
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			return true
		}
	}
	return false
}

// Count returns how many fields have that name.
func (h Header) Count(name string) int {
	n := 0
	for _, f := range h {
		if strings.EqualFold(f.Name, name) {
			n++
		}
	}
	return n
}

// Text returns the value unfolded and trimmed (RFC 5322, 2.2.3).
func (f Field) Text() string {
	v := bytes.ReplaceAll(f.Value, []byte("\r\n"), nil)
	return string(bytes.TrimSpace(v))
}

// ReadHeader reads the header of a content. Body is the offset of the first byte after the empty line. A line that is no
// field ends the header, and the body begins with it, as every mail program takes it. An error means that the content
// could not be read or that the header is longer than MaxHeader.
func ReadHeader(c Content) (h Header, body int64, err error) {
	raw, body, err := RawHeader(c)
	if err != nil {
		return nil, 0, err
	}
	return ParseHeader(raw), body, nil
}

// RawHeader returns the bytes of the header, every line with its CRLF, without the empty line, and where the body begins.
func RawHeader(c Content) (raw []byte, body int64, err error) {
	buf := make([]byte, 0, 4096)
	for {
		if n, end, ok := headerEnd(buf); ok {
			return buf[:n], int64(end), nil
		}
		if int64(len(buf)) >= c.Size() {
			return buf, int64(len(buf)), nil
		}
		if len(buf) > MaxHeader {
			return nil, 0, fmt.Errorf("the header is longer than %d bytes", MaxHeader)
		}
		grow := min(int64(max(4096, len(buf))), c.Size()-int64(len(buf)))
		old := len(buf)
		buf = append(buf, make([]byte, grow)...)
		n, err := c.ReadAt(buf[old:], int64(old))
		if err != nil && (err != io.EOF || int64(n) < grow) {
			return nil, 0, fmt.Errorf("reading the header: %w", err)
		}
	}
}

// headerEnd finds where the header stops: at an empty line, or before a line that can't belong to it. It reports false
// when b ends before that can be told.
func headerEnd(b []byte) (header, body int, ok bool) {
	for at := 0; at < len(b); {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0, 0, false
		}
		line := b[at : at+i+1]
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return at, at + len(line), true
		}
		if folded := at > 0 && (line[0] == ' ' || line[0] == '\t'); !folded && fieldColon(line) < 0 {
			return at, at, true
		}
		at += len(line)
	}
	return 0, 0, false
}

// fieldColon returns where the colon of a field line is, or -1 when the line begins no field.
func fieldColon(line []byte) int {
	i := bytes.IndexByte(line, ':')
	if i <= 0 {
		return -1
	}
	for _, c := range bytes.TrimRight(line[:i], " \t") {
		if c <= ' ' || c >= 0x7f {
			return -1
		}
	}
	return i
}

// ParseHeader splits raw header lines into fields, numbered from 1.
func ParseHeader(raw []byte) Header {
	var h Header
	for len(raw) > 0 {
		line, rest := cutLine(raw)
		raw = rest
		if i := fieldColon(line); i > 0 {
			h = append(h, Field{ID: uint32(len(h) + 1), Name: string(bytes.TrimRight(line[:i], " \t")), Value: line[i+1:]})
		}
	}
	for i := range h {
		h[i].Value = bytes.TrimSuffix(bytes.TrimSuffix(h[i].Value, []byte("\n")), []byte("\r"))
	}
	return h
}

// cutLine returns the first field with its folds, and the rest.
func cutLine(raw []byte) (line, rest []byte) {
	end := 0
	for {
		i := bytes.IndexByte(raw[end:], '\n')
		if i < 0 {
			return raw, nil
		}
		end += i + 1
		if end == len(raw) || (raw[end] != ' ' && raw[end] != '\t') {
			return raw[:end], raw[end:]
		}
	}
}

// AppendTo writes the fields as header lines.
func (h Header) AppendTo(b []byte) []byte {
	for _, f := range h {
		b = append(b, f.Name...)
		b = append(b, ':')
		b = append(b, f.Value...)
		b = append(b, "\r\n"...)
	}
	return b
}
