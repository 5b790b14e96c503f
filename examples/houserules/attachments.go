package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Bounds of what is looked through: a message built to be endless is read no further. What lies beyond them, or is no
// proper MIME, is not looked at: these are house rules, not a virus scanner.
const (
	maxDepth = 10
	maxParts = 1000
)

// findAttachment returns the first file name in a message that is refused, or "".
func findAttachment(c mail.Content, refused func(string) bool) (string, error) {
	h, body, err := mail.ReadHeader(c)
	if err != nil {
		return "", fmt.Errorf("reading the message: %w", err)
	}
	w := walk{refused: refused}
	header := textproto.MIMEHeader{"Content-Type": {h.Get("Content-Type")}, "Content-Disposition": {h.Get("Content-Disposition")}}
	w.part(header, io.NewSectionReader(c, body, c.Size()-body), 0)
	return w.found, nil
}

// walk goes through the parts of a message.
type walk struct {
	refused func(string) bool
	parts   int
	found   string
}

// part looks at one part and those in it, and reports whether the walk goes on.
func (w *walk) part(h textproto.MIMEHeader, body io.Reader, depth int) bool {
	if w.parts++; w.parts > maxParts || depth > maxDepth {
		return false
	}
	for _, name := range fileNames(h) {
		if w.refused(name) {
			w.found = name
			return false
		}
	}
	kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(kind, "multipart/") || params["boundary"] == "" {
		return true
	}
	r := multipart.NewReader(body, params["boundary"])
	p, err := r.NextRawPart()
	for err == nil { // until the end, or until it is no MIME any more
		if !w.part(p.Header, p, depth+1) {
			return false
		}
		p, err = r.NextRawPart()
	}
	return true
}

// fileNames returns the names that a part goes by, with RFC 2231 and RFC 2047 undone, controls taken out.
func fileNames(h textproto.MIMEHeader) (names []string) {
	for field, param := range map[string]string{"Content-Disposition": "filename", "Content-Type": "name"} {
		_, params, err := mime.ParseMediaType(h.Get(field))
		if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
			continue
		}
		name := params[param]
		if decoded, err := new(mime.WordDecoder).DecodeHeader(name); err == nil {
			name = decoded
		}
		name = string(bytes.Map(func(r rune) rune {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				return -1
			}
			return r
		}, []byte(name)))
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// matches tells a name that a pattern stands for: the name itself, or *.x for all names below x.
func matches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(strings.TrimSuffix(name, "."))
	if below, ok := strings.CutPrefix(pattern, "*"); ok && strings.HasPrefix(below, ".") {
		return strings.HasSuffix(name, below)
	}
	return pattern == name
}

// sample makes an address of @domain, so that both kinds of sender are checked in one way.
func sample(sender string) string {
	if strings.HasPrefix(sender, "@") {
		return "any" + sender
	}
	return sender
}

func index(i int) string { return strconv.Itoa(i) }
