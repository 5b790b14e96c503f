package mail

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
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

// SetMeta sets a value that later steps, conditions (when = meta("key") == "value"), routers and the log can read. It is kept
// with the message. The names that MetaKeys lists are the server's own.
type SetMeta struct{ Key, Value string }

func (e AddHeader) check() error {
	if err := CheckFieldName(e.Name); err != nil {
		return err
	}
	return checkFieldValue(e.Value, len(e.Name)+2)
}
func (e ReplaceHeader) check() error { return checkFieldValue(e.Value, 0) }
func (e RemoveHeader) check() error  { return nil }
func (e SetSender) check() error     { return nil }
func (e AddRecipient) check() error  { return e.Recipient.Check() }
func (e DropRecipient) check() error { return checkRecipientAddress(e.Address) }

func (e RewriteRecipient) check() error {
	if err := checkRecipientAddress(e.Old); err != nil {
		return err
	}
	return checkRecipientAddress(e.New)
}

func (e ReplaceBody) check() error {
	if i := bytes.IndexByte(e.Body, 0); i >= 0 {
		return fmt.Errorf("the body holds a NUL at offset %d", i)
	}
	for at := 0; at < len(e.Body); {
		i := bytes.IndexByte(e.Body[at:], '\n')
		line := e.Body[at:]
		if i >= 0 {
			line = e.Body[at : at+i]
			var ok bool
			if line, ok = bytes.CutSuffix(line, []byte("\r")); !ok {
				return fmt.Errorf("the body holds a bare LF at offset %d; lines end in CRLF", at+i)
			}
		}
		if j := bytes.IndexByte(line, '\r'); j >= 0 {
			return fmt.Errorf("the body holds a bare CR at offset %d; lines end in CRLF", at+j)
		}
		if i < 0 {
			break
		}
		at += i + 1
	}
	return nil
}

// Limits of SetMeta, in bytes. What is set is kept with the message and written to the log.
const (
	maxMetaKey   = 128
	maxMetaValue = 4096
)

// MetaKeys returns the names of what the server itself keeps with a message, and no filter can set: "listener", "remote"
// (address and port), "helo" and "user" (the account that logged in) tell where it came from, "plugin" which plugin
// submitted it, "parent" the ID of the message that a report is about, and "postmaster" is "1" for a report that goes to the
// postmaster.
func MetaKeys() []string {
	return []string{"listener", "remote", "helo", "user", "plugin", "parent", "postmaster"}
}

func (e SetMeta) check() error {
	if slices.Contains(MetaKeys(), e.Key) {
		return fmt.Errorf("the meta key %q is the server's own; take another name", e.Key)
	}
	if e.Key == "" || len(e.Key) > maxMetaKey || len(e.Value) > maxMetaValue {
		return fmt.Errorf("a meta key has 1 to %d bytes and a value at most %d", maxMetaKey, maxMetaValue)
	}
	if !utf8.ValidString(e.Key+e.Value) || strings.IndexFunc(e.Key+e.Value, unicode.IsControl) >= 0 {
		return fmt.Errorf("neither a meta key nor its value holds a control character or what is no UTF-8")
	}
	return nil
}

func checkRecipientAddress(a Address) error {
	if a.IsNull() {
		return fmt.Errorf("a recipient can't be the null address")
	}
	return nil
}

// CheckFieldName returns an error for what is no name of a header field (RFC 5322, 2.2): printable US-ASCII without colon.
func CheckFieldName(name string) error {
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

// maxLine is the longest line of a message, without its CRLF (RFC 5322, 2.1.1).
const maxLine = 998

// checkFieldValue lets a value through that stays one field: every line break in it is CRLF followed by space or tab and
// then something visible. Before is what stands before the value in its line.
func checkFieldValue(value string, before int) error {
	for first := true; ; first = false {
		line, rest, more := strings.Cut(value, "\r\n")
		if i := strings.IndexFunc(line, isForbidden); i >= 0 {
			return fmt.Errorf("header value holds %q where only a fold (CRLF and a space) may stand", line[i])
		}
		if !first && (line == "" || !isSpace(line[0])) {
			return fmt.Errorf("header value holds a line break that is no fold: no space follows it")
		}
		if !first && strings.Trim(line, " \t") == "" {
			return fmt.Errorf("header value holds a folded line that is empty")
		}
		if len(line)+before > maxLine {
			return fmt.Errorf("header value holds a line of %d characters, more than %d; fold it", len(line)+before, maxLine)
		}
		if !more {
			return nil
		}
		value, before = rest, 0
	}
}

// isForbidden tells the controls that no field holds (RFC 5322, 2.2).
func isForbidden(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }
