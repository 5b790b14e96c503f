// Package useragent is what a mail program knows: it reads messages, writes them, answers and forwards them, and speaks
// to a mailbox (IMAP) and a submission server (SMTP) of any make.
//
// It refuses nothing that comes in: a broken message is shown as far as it can be read. It refuses to write what is not
// right: an address that is none, a picture that is not shown. Text of strangers becomes fit for a terminal by SafeText,
// names of strangers fit for a disk by FileName, HTML of strangers fit for a browser by Page. What fails on the way out
// leaves nothing sent; what is sent may lack its copy in Sent, and that is said.
package useragent

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"mime/quotedprintable"
	"strconv"
	"strings"
)

// Part is a message, or a part of one.
type Part struct {
	Path     string // as IMAP counts: "1", "2.1"; "" for the message itself when it has parts
	Header   Header
	Type     string // in lower case, such as "text/plain"
	Params   map[string]string
	Attached bool // Content-Disposition: attachment
	Name     string
	ID       string // Content-ID without its angle brackets
	Parts    []*Part

	raw []byte // the body as it came
}

// Message is a whole message, read.
type Message struct {
	*Part
	Raw []byte
}

// maxDepth and maxParts bound the tree that is made of a message: deeper or more, and the rest is one part.
const (
	maxDepth = 20
	maxParts = 2000
)

// Read reads a message. It always succeeds; the worst message is one text.
func Read(raw []byte) *Message {
	budget := maxParts
	return &Message{Part: readPart(raw, "", 0, "text/plain", &budget), Raw: raw}
}

func readPart(raw []byte, path string, depth int, fallback string, budget *int) *Part {
	header, body := cutHeader(raw)
	p := &Part{Path: path, Header: header, raw: body}
	p.Type, p.Params = params(header.Get("Content-Type"))
	if !strings.Contains(p.Type, "/") {
		p.Type = fallback
	}
	disposition, about := params(header.Get("Content-Disposition"))
	p.Attached = disposition == "attachment"
	p.Name = about["filename"]
	if p.Name == "" {
		p.Name = p.Params["name"]
	}
	p.ID = strings.Trim(header.Get("Content-ID"), "<> \t")
	*budget--
	if strings.HasPrefix(p.Type, "multipart/") && p.Params["boundary"] != "" && depth < maxDepth {
		p.split(depth, budget)
	}
	if len(p.Parts) == 0 && path == "" {
		p.Path = "1"
	}
	return p
}

// split reads the parts of a multipart (RFC 2046, 5.1). A missing last boundary is none that is missed.
func (p *Part) split(depth int, budget *int) {
	delimiter := []byte("--" + p.Params["boundary"])
	fallback := "text/plain"
	if p.Type == "multipart/digest" {
		fallback = "message/rfc822"
	}
	start := -1
	add := func(end int) {
		if start >= 0 && *budget > 0 {
			part := trimEOL(p.raw[start:max(start, end)])
			path := strings.TrimPrefix(p.Path+"."+strconv.Itoa(len(p.Parts)+1), ".")
			p.Parts = append(p.Parts, readPart(part, path, depth+1, fallback, budget))
		}
	}
	for at := 0; at < len(p.raw); {
		line, rest := cutLine(p.raw[at:])
		next := len(p.raw) - len(rest)
		if tail, ok := bytes.CutPrefix(line, delimiter); ok {
			tail = bytes.TrimRight(tail, " \t\r\n")
			if len(tail) == 0 || string(tail) == "--" {
				add(at)
				start = next
				if len(tail) > 0 {
					return
				}
			}
		}
		at = next
	}
	add(len(p.raw))
}

// Walk calls fn for the part and all parts in it, outermost first.
func (p *Part) Walk(fn func(*Part)) {
	fn(p)
	for _, c := range p.Parts {
		c.Walk(fn)
	}
}

// Leaves returns the parts that have no parts.
func (p *Part) Leaves() []*Part {
	var list []*Part
	p.Walk(func(c *Part) {
		if len(c.Parts) == 0 {
			list = append(list, c)
		}
	})
	return list
}

// Bytes returns the content with its transfer encoding taken off: what the sender attached. What can't be decoded is
// left out from there on.
func (p *Part) Bytes() []byte {
	switch strings.ToLower(strings.TrimSpace(p.Header.Get("Content-Transfer-Encoding"))) {
	case "base64":
		return decodeBase64(p.raw)
	case "quoted-printable":
		b, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(p.raw)))
		if err != nil {
			return p.raw // it is not what it says it is
		}
		return b
	default:
		return p.raw
	}
}

// decodeBase64 leaves out what is not of the alphabet (RFC 2045, 6.8), and reads on behind padding in the middle.
func decodeBase64(raw []byte) []byte {
	clean := make([]byte, 0, len(raw))
	out := make([]byte, 0, len(raw)*3/4)
	flush := func() {
		b, _ := base64.RawStdEncoding.AppendDecode(nil, clean[:len(clean)-len(clean)%4])
		out = append(out, b...)
		if rest := clean[len(clean)-len(clean)%4:]; len(rest) > 1 {
			b, _ = base64.RawStdEncoding.AppendDecode(nil, rest)
			out = append(out, b...)
		}
		clean = clean[:0]
	}
	for _, c := range raw {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/':
			clean = append(clean, c)
		case c == '=' && len(clean)%4 != 0:
			flush()
		}
	}
	flush()
	return out
}

// Text returns the content of a text part as UTF-8, with lines that end in LF.
func (p *Part) Text() string {
	s := decodeCharset(p.Params["charset"], p.Bytes())
	return strings.ReplaceAll(s, "\r\n", "\n")
}

// IsText tells a part that is meant to be read, not saved.
func (p *Part) IsText() bool {
	return (p.Type == "text/plain" || p.Type == "text/html") && !p.Attached && len(p.Parts) == 0
}

// Body returns the text/plain and the text/html part that a reader should be shown; either may be nil.
func (m *Message) Body() (text, html *Part) {
	for _, p := range m.Leaves() {
		switch {
		case !p.IsText():
		case p.Type == "text/plain" && text == nil:
			text = p
		case p.Type == "text/html" && html == nil:
			html = p
		}
	}
	return text, html
}

// BodyText returns what a reader should be shown as plain text: the text part, unflowed (RFC 3676), or the HTML part as
// text.
func (m *Message) BodyText() string {
	text, html := m.Body()
	switch {
	case text != nil && strings.EqualFold(text.Params["format"], "flowed"):
		return Unflow(text.Text(), strings.EqualFold(text.Params["delsp"], "yes"))
	case text != nil:
		return text.Text()
	case html != nil:
		return HTMLText(html.Text())
	default:
		return ""
	}
}

// Attachments returns the parts that are no text to be read and no picture of the HTML: what a reader would save.
func (m *Message) Attachments() []*Part {
	text, html := m.Body()
	var list []*Part
	for _, p := range m.Leaves() {
		if p != text && p != html && (html == nil || !p.isPicture()) {
			list = append(list, p)
		}
	}
	return list
}

// Pictures returns the parts that the HTML shows (RFC 2392).
func (m *Message) Pictures() []*Part {
	var list []*Part
	if _, html := m.Body(); html == nil {
		return nil
	}
	for _, p := range m.Leaves() {
		if p.isPicture() {
			list = append(list, p)
		}
	}
	return list
}

func (p *Part) isPicture() bool {
	return p.ID != "" && strings.HasPrefix(p.Type, "image/") && !p.Attached
}

// Find returns the part with that path or name, or nil.
func (m *Message) Find(name string) *Part {
	var found *Part
	for _, p := range m.Leaves() {
		if p.Path == name || found == nil && name != "" && (p.Name == name || p.ID == name || p.SaveName() == name) {
			found = p
		}
	}
	return found
}

// SaveName returns the name to save a part under; it is never empty, and always a name in the folder itself.
func (p *Part) SaveName() string {
	if name := FileName(p.Name); name != "" {
		return name
	}
	if p.Type == "message/rfc822" {
		header, _ := cutHeader(p.Bytes())
		if name := FileName(header.Text("Subject")); name != "" {
			return name + ".eml"
		}
	}
	return fmt.Sprintf("part-%s%s", p.Path, extension(p.Type))
}

// extension returns the usual ending of a type. It does not ask the machine, so that every machine gives the same name.
func extension(mediaType string) string {
	known := map[string]string{
		"text/plain": ".txt", "text/html": ".html", "text/calendar": ".ics", "image/png": ".png", "image/jpeg": ".jpg",
		"image/gif": ".gif", "image/webp": ".webp", "application/pdf": ".pdf", "message/rfc822": ".eml", "application/zip": ".zip",
	}
	if ext, ok := known[mediaType]; ok {
		return ext
	}
	return ".bin"
}
