package mail

import (
	"bytes"
	"fmt"
	"strings"
)

// Edit is one change that a filter wants made to the message. The kinds below are all there are.
type Edit interface {
	check() error
}

// AddHeader adds a header field, at the top unless Bottom is set. Value may be folded (CRLF followed by space or tab).
type AddHeader struct {
	Name   string
	Value  string
	Bottom bool
}

// ReplaceHeader gives the field with this ID another value.
type ReplaceHeader struct {
	ID    uint32 // from Field.ID; stable within a stage, so that an edit can't hit the wrong one of two equal names
	Value string
}

// RemoveHeader removes the field with this ID.
type RemoveHeader struct{ ID uint32 }

// SetSender changes the reverse-path.
type SetSender struct{ Address Address }

// AddRecipient adds a forward-path.
type AddRecipient struct{ Recipient Recipient }

// DropRecipient removes a forward-path.
type DropRecipient struct{ Address Address }

// RewriteRecipient replaces one forward-path by another, keeping its parameters.
type RewriteRecipient struct{ Old, New Address }

// ReplaceBody replaces everything after the empty line that ends the header. Lines end in CRLF.
type ReplaceBody struct{ Body []byte }

// SetMeta sets a value that later steps and the log can read.
type SetMeta struct{ Key, Value string }

func (e AddHeader) check() error {
	if err := checkFieldName(e.Name); err != nil {
		return err
	}
	return checkFieldValue(e.Value)
}
func (e ReplaceHeader) check() error    { return checkFieldValue(e.Value) }
func (e RemoveHeader) check() error     { return nil }
func (e SetSender) check() error        { return nil }
func (e AddRecipient) check() error     { return checkRecipientAddress(e.Recipient.Address) }
func (e DropRecipient) check() error    { return checkRecipientAddress(e.Address) }
func (e RewriteRecipient) check() error { return checkRecipientAddress(e.New) }

func (e ReplaceBody) check() error {
	if i := bytes.IndexByte(e.Body, 0); i >= 0 {
		return fmt.Errorf("the body holds a NUL at offset %d", i)
	}
	for i, c := range e.Body {
		if c == '\n' && (i == 0 || e.Body[i-1] != '\r') {
			return fmt.Errorf("the body holds a bare LF at offset %d; lines end in CRLF", i)
		}
		if c == '\r' && (i+1 == len(e.Body) || e.Body[i+1] != '\n') {
			return fmt.Errorf("the body holds a bare CR at offset %d; lines end in CRLF", i)
		}
	}
	return nil
}

func (e SetMeta) check() error {
	if e.Key == "" || strings.ContainsAny(e.Key+e.Value, "\r\n\x00") {
		return fmt.Errorf("a meta key is not empty, and neither key nor value holds CR, LF or NUL")
	}
	return nil
}

func checkRecipientAddress(a Address) error {
	if a.IsNull() {
		return fmt.Errorf("a recipient can't be the null address")
	}
	return nil
}

// checkFieldName obeys RFC 5322, 2.2: printable US-ASCII without colon.
func checkFieldName(name string) error {
	if name == "" || len(name) > 200 {
		return fmt.Errorf("a header name has 1 to 200 characters")
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return fmt.Errorf("header name %q holds %q", name, c)
		}
	}
	return nil
}

// checkFieldValue lets a value through that stays one field: every line break in it is CRLF followed by space or tab and
// then something visible.
func checkFieldValue(value string) error {
	rest := value
	for {
		i := strings.IndexAny(rest, "\r\n\x00")
		if i < 0 {
			return nil
		}
		tail := rest[i:]
		if !strings.HasPrefix(tail, "\r\n ") && !strings.HasPrefix(tail, "\r\n\t") {
			return fmt.Errorf("header value holds %q where only a fold (CRLF and a space) may stand", tail[:min(len(tail), 3)])
		}
		rest = tail[3:]
		line, _, _ := strings.Cut(rest, "\r\n")
		if strings.TrimSpace(line) == "" {
			return fmt.Errorf("header value holds a folded line that is empty")
		}
	}
}
