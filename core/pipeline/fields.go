package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/pabal-mta/mta/sdk/mail"
)

// fields is a header taken apart so that each field keeps the bytes it came in.
type fields struct {
	lines     []line
	separator []byte // the empty line after the header; nothing where the body begins without one
	body      int64  // where the body begins in the old content
}

type line struct {
	field mail.Field
	raw   []byte
}

func readFields(m *mail.Message) (*fields, error) {
	raw, body, err := mail.RawHeader(m.Content)
	if err != nil {
		return nil, err
	}
	f := &fields{body: body, separator: make([]byte, body-int64(len(raw)))}
	if n, err := m.Content.ReadAt(f.separator, int64(len(raw))); n < len(f.separator) && err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	for chunk := range mail.SplitHeader(raw) {
		f.lines = append(f.lines, line{raw: chunk})
	}
	if len(f.lines) != len(m.Header) {
		return nil, fmt.Errorf("the message has %d header fields and its content %d", len(m.Header), len(f.lines))
	}
	for i := range f.lines {
		f.lines[i].field = m.Header[i]
		if !bytes.HasPrefix(f.lines[i].raw, []byte(m.Header[i].Name)) {
			return nil, fmt.Errorf("header field %d of the message is not the one in its content", i+1)
		}
	}
	return f, nil
}

// find returns the line of a field that may be changed.
func (f *fields) find(id uint32) (*line, error) {
	i := slices.IndexFunc(f.lines, func(l line) bool { return l.field.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("there is no header field with the ID %d", id)
	}
	l := &f.lines[i]
	if isProtected(l.field.Name) {
		return nil, fmt.Errorf("a filter can't change a %s field", l.field.Name)
	}
	return l, nil
}

func (f *fields) add(id uint32, e mail.AddHeader) {
	l := line{field: mail.Field{ID: id, Name: e.Name}}
	l.set(e.Value)
	at := 0
	if e.Bottom {
		at = len(f.lines)
	}
	f.lines = slices.Insert(f.lines, at, l)
}

func (f *fields) remove(id uint32) error {
	if _, err := f.find(id); err != nil {
		return err
	}
	f.lines = slices.DeleteFunc(f.lines, func(l line) bool { return l.field.ID == id })
	return nil
}

func (l *line) replace(value string) error {
	first, _, _ := bytes.Cut([]byte(value), []byte("\r\n"))
	if n := len(l.field.Name) + len(": ") + len(first); n > maxLine {
		return fmt.Errorf("the line would have %d characters, more than %d; fold it", n, maxLine)
	}
	l.set(value)
	return nil
}

// maxLine is the longest line of a message, without its CRLF (RFC 5322, 2.1.1).
const maxLine = 998

// set writes the field anew, with a space after the colon where the value has none.
func (l *line) set(value string) {
	space := " "
	if value != "" && (value[0] == ' ' || value[0] == '\t' || value[0] == '\r') {
		space = ""
	}
	l.field.Value = []byte(space + value)
	l.raw = mail.Header{l.field}.AppendTo(nil)
}

// bytes writes the header and the empty line after it. Where there was none, one is put in if a body follows: its first
// line was no field, but after a new field it could be taken for a fold.
func (f *fields) bytes(bodyFollows bool) ([]byte, error) {
	size := len("\r\n\r\n") + len(f.separator)
	for _, l := range f.lines {
		size += len(l.raw)
	}
	head := make([]byte, 0, size)
	for _, l := range f.lines {
		head = append(head, l.raw...)
		if !bytes.HasSuffix(l.raw, []byte("\n")) {
			head = append(head, "\r\n"...)
		}
	}
	if len(head) > mail.MaxHeader {
		return nil, errors.New("the edits make the header too long")
	}
	head = append(head, f.separator...)
	if bodyFollows && len(f.separator) == 0 {
		head = append(head, "\r\n"...)
	}
	return head, nil
}

func (f *fields) header() mail.Header {
	h := make(mail.Header, len(f.lines))
	for i, l := range f.lines {
		h[i] = l.field
	}
	return h
}
