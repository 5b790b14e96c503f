package imap

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"regexp"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-message/charset"

	"github.com/pabal-mta/mta/plugins/maildir/box"
)

// structure describes a message's parts (RFC 9051, 7.5.2).
func structure(p *box.Part) imap.BodyStructure {
	disposition, language := disposition(p), languages(p)
	if p.Type == "multipart" {
		bs := &imap.BodyStructureMultiPart{Subtype: p.Subtype, Extended: &imap.BodyStructureMultiPartExt{
			Params: params(p.Params), Disposition: disposition, Language: language, Location: p.Get("Content-Location"),
		}}
		for _, child := range p.Parts {
			bs.Children = append(bs.Children, structure(child))
		}
		return bs
	}
	bs := &imap.BodyStructureSinglePart{
		Type: p.Type, Subtype: p.Subtype, Params: params(p.Params), ID: p.Get("Content-Id"), Description: p.Get("Content-Description"),
		Encoding: encoding(p), Size: uint32(len(p.Body)),
		Extended: &imap.BodyStructureSinglePartExt{Disposition: disposition, Language: language, Location: p.Get("Content-Location")},
	}
	lines := int64(bytes.Count(p.Body, []byte("\n")))
	if p.Type == "text" {
		bs.Text = &imap.BodyStructureText{NumLines: lines}
	}
	if p.IsMessage() && len(p.Parts) == 1 {
		inner := p.Parts[0]
		bs.MessageRFC822 = &imap.BodyStructureMessageRFC822{Envelope: envelope(inner.Header), BodyStructure: structure(inner), NumLines: lines}
	}
	return bs
}

func params(list []box.Param) map[string]string {
	out := make(map[string]string, len(list))
	for _, p := range list {
		if _, ok := out[p.Key]; !ok {
			out[p.Key] = p.Value
		}
	}
	return out
}

func encoding(p *box.Part) string {
	e, _, _ := strings.Cut(p.Get("Content-Transfer-Encoding"), ";")
	if e = strings.TrimSpace(e); e == "" || strings.ContainsAny(e, " \t") {
		return "7bit"
	}
	return strings.ToLower(e)
}

func disposition(p *box.Part) *imap.BodyStructureDisposition {
	value, list := box.ParseParams(p.Get("Content-Disposition"))
	if value == "" {
		return nil
	}
	return &imap.BodyStructureDisposition{Value: value, Params: params(list)}
}

func languages(p *box.Part) (out []string) {
	for l := range strings.SplitSeq(p.Get("Content-Language"), ",") {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}

// envelope reads a header (RFC 9051, 7.5.2). Encoded words go as they are: the client decodes them.
func envelope(header []byte) *imap.Envelope {
	e := &imap.Envelope{
		Subject: box.Get(header, "Subject"), MessageID: first(ids(box.Get(header, "Message-Id"))), InReplyTo: ids(box.Get(header, "In-Reply-To")),
		From: addresses(header, "From"), Sender: addresses(header, "Sender"), ReplyTo: addresses(header, "Reply-To"),
		To: addresses(header, "To"), Cc: addresses(header, "Cc"), Bcc: addresses(header, "Bcc"),
	}
	if date, err := mail.ParseDate(box.Get(header, "Date")); err == nil {
		e.Date = date
	}
	return e
}

// sizeOf returns about how many bytes an envelope takes.
func sizeOf(e *imap.Envelope) int64 {
	n := 400 + len(e.Subject) + len(e.MessageID)
	for _, id := range e.InReplyTo {
		n += 16 + len(id)
	}
	for _, list := range [][]imap.Address{e.From, e.Sender, e.ReplyTo, e.To, e.Cc, e.Bcc} {
		for _, a := range list {
			n += 48 + len(a.Name) + len(a.Mailbox) + len(a.Host)
		}
	}
	return int64(n)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// ids returns what stands between angle brackets.
func ids(s string) (out []string) {
	for _, m := range messageID().FindAllString(s, 100) {
		out = append(out, m[1:len(m)-1])
	}
	return out
}

func messageID() *regexp.Regexp { return messageIDs }

var messageIDs = regexp.MustCompile(`<[^<> ]+>`)

// maxAddresses bounds what is shown of one field.
const maxAddresses = 2000

// addresses reads a field of addresses. One that can't be read is shown as well as can be; the others do not suffer.
func addresses(header []byte, name string) (out []imap.Address) {
	value := box.Get(header, name)
	if value == "" {
		return nil
	}
	parser := mail.AddressParser{WordDecoder: wordDecoder()}
	if list, err := parser.ParseList(value); err == nil {
		for _, a := range list[:min(len(list), maxAddresses)] {
			out = append(out, address(a))
		}
		return out
	}
	for _, one := range splitAddresses(value) {
		if a, err := parser.Parse(one); err == nil {
			out = append(out, address(a))
		} else if a, ok := rough(one); ok {
			out = append(out, a)
		}
		if len(out) == maxAddresses {
			break
		}
	}
	return out
}

func address(a *mail.Address) imap.Address {
	at := strings.LastIndexByte(a.Address, '@')
	return imap.Address{Name: a.Name, Mailbox: a.Address[:max(at, 0)], Host: a.Address[at+1:]}
}

// splitAddresses splits at commas and the signs of groups, outside of quotes and angle brackets.
func splitAddresses(s string) (out []string) {
	quoted, angle, start := false, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case angle:
		case c == ',' || c == ';' || c == ':':
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[min(start, len(s)):])
}

// rough finds something with an @ in what is no address by the rules.
func rough(s string) (imap.Address, bool) {
	name, rest, ok := strings.Cut(s, "<")
	if !ok {
		name, rest = "", s
	}
	rest, _, _ = strings.Cut(rest, ">")
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return imap.Address{}, false
	}
	return imap.Address{
		Name: strings.Trim(name, " \t\""), Mailbox: strings.Trim(rest[:at], " \t\""), Host: strings.Trim(rest[at+1:], " \t\""),
	}, true
}

func wordDecoder() *mime.WordDecoder { return &mime.WordDecoder{CharsetReader: charset.Reader} }

// decoder reads a part without its transfer encoding; what has none is read as it is.
func decoder(p *box.Part) io.Reader {
	switch encoding(p) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, &base64Only{p.Body})
	case "quoted-printable":
		return quotedprintable.NewReader(bytes.NewReader(p.Body))
	}
	return bytes.NewReader(p.Body)
}

// base64Only reads bytes, and leaves out what is not base64 (RFC 2045, 6.8).
type base64Only struct{ rest []byte }

// Read reads.
func (b *base64Only) Read(to []byte) (n int, err error) {
	read := 0
	for read < len(b.rest) && n < len(to) {
		c := b.rest[read]
		read++
		if c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '=' {
			to[n] = c
			n++
		}
	}
	if b.rest = b.rest[read:]; n == 0 && len(to) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
