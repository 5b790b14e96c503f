package mail

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"strings"
)

// MaxHeader bounds a message header, in bytes; a longer one is refused. Postfix's header_size_limit is of this order.
const MaxHeader = 1 << 20

// ErrHeaderTooLong says that a header is longer than MaxHeader. It is the message's fault, not ours.
var ErrHeaderTooLong = fmt.Errorf("the header is longer than %d bytes", MaxHeader)

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
// field ends the header, and the body begins with it, as every mail program takes it. An error is ErrHeaderTooLong, or means
// that the content could not be read.
func ReadHeader(c Content) (h Header, body int64, err error) {
	raw, body, err := RawHeader(c)
	if err != nil {
		return nil, 0, err
	}
	return ParseHeader(raw), body, nil
}

// RawHeader returns the bytes of the header, every line with its CRLF, without the empty line, and where the body begins.
func RawHeader(c Content) (raw []byte, body int64, err error) {
	size := c.Size()
	buf := make([]byte, 0, min(4096, size))
	for {
		whole := int64(len(buf)) >= size
		if n, end, ok := headerEnd(buf, whole); ok {
			if n > MaxHeader {
				return nil, 0, ErrHeaderTooLong
			}
			return buf[:n:n], int64(end), nil
		}
		if len(buf) > MaxHeader {
			return nil, 0, ErrHeaderTooLong
		}
		// Twice as much each time, so that the work stays linear although the search starts again.
		grow := min(int64(max(4096, len(buf))), size-int64(len(buf)))
		old := len(buf)
		buf = append(buf, make([]byte, grow)...)
		n, err := c.ReadAt(buf[old:], int64(old))
		if int64(n) < grow {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, 0, fmt.Errorf("reading the header: %w", err)
		}
	}
}

// headerEnd finds where the header stops: at an empty line, or before a line that can't belong to it. It reports false
// when b ends before that can be told; it never does when b is the whole content.
func headerEnd(b []byte, whole bool) (header, body int, ok bool) {
	at := 0
	for at < len(b) {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 && !whole {
			return 0, 0, false
		}
		if i < 0 {
			i = len(b) - at - 1
		}
		line := b[at : at+i+1]
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return at, at + len(line), true
		}
		if folded := at > 0 && isSpace(line[0]); !folded && fieldColon(line) < 0 {
			return at, at, true
		}
		at += len(line)
	}
	return at, at, whole
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// fieldColon returns where the colon of a field line is, or -1 when the line begins no field.
func fieldColon(line []byte) int {
	i := bytes.IndexByte(line, ':')
	name := bytes.TrimRight(line[:max(i, 0)], " \t")
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

// ParseHeader splits raw header lines into fields, numbered from 1. What is no field is left out; RawHeader returns none.
func ParseHeader(raw []byte) Header {
	h := make(Header, 0, 16)
	for line := range SplitHeader(raw) {
		if i := fieldColon(line); i > 0 {
			value := bytes.TrimSuffix(bytes.TrimSuffix(line[i+1:], []byte("\n")), []byte("\r"))
			h = append(h, Field{ID: uint32(len(h) + 1), Name: string(bytes.TrimRight(line[:i], " \t")), Value: value})
		}
	}
	return h
}

// SplitHeader yields raw header lines field by field, each with its folds and its line ends. Put together again they are
// raw. The n-th of what RawHeader returns is the field that ParseHeader gives the ID n.
func SplitHeader(raw []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(raw) > 0 {
			end := fieldEnd(raw)
			if !yield(raw[:end:end]) {
				return
			}
			raw = raw[end:]
		}
	}
}

// fieldEnd returns where the first field ends, its folds included.
func fieldEnd(raw []byte) int {
	end := 0
	for {
		i := bytes.IndexByte(raw[end:], '\n')
		if i < 0 {
			return len(raw)
		}
		end += i + 1
		if end == len(raw) || !isSpace(raw[end]) {
			return end
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
