package useragent

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	sdkmail "github.com/pabal-mta/mta/sdk/mail"
)

// File is something to attach.
type File struct {
	Name string
	Type string // "" is application/octet-stream
	ID   string // of a picture: what the HTML calls it, "cid:" left out
	Data []byte
}

// Letter is a message to be written.
type Letter struct {
	From, ReplyTo *mail.Address
	To, Cc, Bcc   []*mail.Address
	Subject       string
	Date          time.Time
	ID            string // Message-ID with angle brackets
	InReplyTo     string
	References    []string
	Text          string
	HTML          string
	Pictures      []File
	Attachments   []File
}

// Form is what the next server takes.
type Form struct {
	EightBit bool // 8BITMIME (RFC 6152)
	Bcc      bool // write the Bcc field: for our own copy, never for the wire
	// Boundary returns a word that is in no part; nil takes one by chance.
	Boundary func() string
}

// ParseAddresses reads addresses as people write them: "Ann <ann@example.com>, bob@example.com".
func ParseAddresses(lists ...string) ([]*mail.Address, error) {
	var out []*mail.Address
	for _, text := range lists {
		if strings.TrimSpace(text) == "" {
			continue
		}
		list, err := (&mail.AddressParser{WordDecoder: wordDecoder()}).ParseList(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no address: %w", text, err)
		}
		for _, a := range list {
			if _, err := sdkmail.ParseUnquoted(a.Address); err != nil {
				return nil, err
			}
		}
		out = append(out, list...)
	}
	return out, nil
}

// Recipients returns everyone who shall get the letter, once, as the wire wants it.
func (l *Letter) Recipients() ([]string, error) {
	var out []string
	for _, a := range slices.Concat(l.To, l.Cc, l.Bcc) {
		addr, err := sdkmail.ParseUnquoted(a.Address)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, addr.String()) {
			out = append(out, addr.String())
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the letter has no recipient")
	}
	return out, nil
}

// NeedsUTF8 reports whether an address can be sent only with SMTPUTF8 (RFC 6531).
func (l *Letter) NeedsUTF8() bool {
	for _, a := range slices.Concat(l.To, l.Cc, l.Bcc, []*mail.Address{l.From, l.ReplyTo}) {
		if a == nil {
			continue
		}
		if addr, err := sdkmail.ParseUnquoted(a.Address); err != nil || !addr.IsASCII() {
			return true
		}
	}
	return false
}

// complete fills in what every letter has.
func (l *Letter) complete() error {
	if l.From == nil {
		return errors.New("the letter has no sender")
	}
	if l.Date.IsZero() {
		l.Date = time.Now()
	}
	if l.ID == "" {
		_, domain, _ := strings.Cut(l.From.Address, "@")
		if ascii, err := sdkmail.ParseDomain(domain); err == nil {
			domain = ascii
		}
		l.ID = "<" + rand.Text() + "@" + cmp.Or(domain, "localhost") + ">"
	}
	return nil
}

// Bytes writes the letter in the form that the next server takes. Lines end in CRLF and have at most 998 octets.
func (l *Letter) Bytes(f Form) ([]byte, error) {
	if err := l.complete(); err != nil {
		return nil, err
	}
	if f.Boundary == nil {
		f.Boundary = func() string { return "=_" + rand.Text() } // "=_" is in no quoted-printable and no base64 text
	}
	body, err := l.body(f)
	if err != nil {
		return nil, err
	}
	var w headerWriter
	if err := l.header(&w, f); err != nil {
		return nil, err
	}
	w.field("MIME-Version", "1.0")
	return append(w.b.Bytes(), body.bytes()...), nil
}

func (l *Letter) header(w *headerWriter, f Form) error {
	w.field("Date", l.Date.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	lists := []struct {
		name string
		list []*mail.Address
	}{
		{"From", []*mail.Address{l.From}}, {"Reply-To", []*mail.Address{l.ReplyTo}}, {"To", l.To}, {"Cc", l.Cc},
	}
	if f.Bcc {
		lists = append(lists, struct {
			name string
			list []*mail.Address
		}{"Bcc", l.Bcc})
	}
	for _, field := range lists {
		if err := w.addresses(field.name, field.list); err != nil {
			return err
		}
	}
	if len(l.To)+len(l.Cc) == 0 {
		w.field("To", "undisclosed-recipients:;")
	}
	w.words("Subject", l.Subject)
	w.field("Message-ID", l.ID)
	if isMessageID(l.InReplyTo) {
		w.field("In-Reply-To", l.InReplyTo)
	}
	if len(l.References) > 0 {
		w.field("References", strings.Join(l.References, " "))
	}
	return nil
}

// body nests the parts: mixed (with attachments) > related (with pictures) > alternative (with HTML) > text.
func (l *Letter) body(f Form) (*entity, error) {
	text := l.Text
	if text == "" && l.HTML != "" {
		text = HTMLText(l.HTML)
	}
	body := textEntity("text/plain", `; charset=utf-8; format=flowed`, Flow(text), f)
	if l.HTML != "" {
		source, ids, err := l.pictureIDs()
		if err != nil {
			return nil, err
		}
		shown := textEntity("text/html", "; charset=utf-8", source, f)
		body = nest("alternative", "", f, body, shown)
		if len(l.Pictures) > 0 {
			parts := []*entity{body}
			for i, p := range l.Pictures {
				parts = append(parts, fileEntity(p, "inline", ids[i], f))
			}
			body = nest("related", `; type="multipart/alternative"`, f, parts...)
		}
	} else if len(l.Pictures) > 0 {
		return nil, errors.New("pictures are shown by HTML, and the letter has none")
	}
	if len(l.Attachments) > 0 {
		parts := []*entity{body}
		for _, a := range l.Attachments {
			parts = append(parts, fileEntity(a, "attachment", "", f))
		}
		body = nest("mixed", "", f, parts...)
	}
	return body, nil
}

var cidReference = regexp.MustCompile(`(?i)\bcid:([A-Za-z0-9._@%+-]+)`)

// pictureIDs gives each picture a Content-ID that is its own in the world (RFC 2392), and the HTML the same.
func (l *Letter) pictureIDs() (string, []string, error) {
	ids := make([]string, len(l.Pictures))
	used := make([]bool, len(l.Pictures))
	tail := strings.Trim(l.ID, "<>")
	unknown := ""
	for i, p := range l.Pictures {
		if p.ID == "" || !cidReference.MatchString("cid:"+p.ID) || strings.ContainsAny(p.ID, "@%") {
			return "", nil, fmt.Errorf("%q is no name for a picture: letters, digits, dots and hyphens", p.ID)
		}
		ids[i] = p.ID + "." + tail
	}
	source := cidReference.ReplaceAllStringFunc(l.HTML, func(ref string) string {
		i := slices.IndexFunc(l.Pictures, func(p File) bool { return p.ID == ref[4:] })
		if i < 0 {
			unknown = cmp.Or(unknown, ref)
			return ref
		}
		used[i] = true
		return ref[:4] + ids[i]
	})
	if unknown != "" {
		return "", nil, fmt.Errorf("the HTML shows %s, and there is no picture of that name", unknown)
	}
	if i := slices.Index(used, false); i >= 0 {
		return "", nil, fmt.Errorf("the HTML never shows cid:%s", l.Pictures[i].ID)
	}
	return source, ids, nil
}

// TypeOf returns the media type of a file to attach: by its name where that is known, else by its first bytes. It does
// not ask the machine, so that every machine writes the same letter.
func TypeOf(name string, data []byte) string {
	known := map[string]string{
		".txt": "text/plain", ".md": "text/markdown", ".csv": "text/csv", ".html": "text/html", ".ics": "text/calendar",
		".pdf": "application/pdf", ".zip": "application/zip", ".json": "application/json", ".eml": "message/rfc822",
		".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
		".svg": "image/svg+xml", ".mp3": "audio/mpeg", ".mp4": "video/mp4",
		".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
		".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	}
	found := known[strings.ToLower(path.Ext(name))]
	if found == "" {
		found, _, _ = strings.Cut(http.DetectContentType(data), ";")
	}
	if found == "message/rfc822" || strings.HasPrefix(found, "text/") {
		return fileType(found, data)
	}
	return found
}

// fileType says of text only what is sure: its charset where it is UTF-8. A message file goes as a file, byte for byte.
func fileType(found string, data []byte) string {
	if found == "message/rfc822" {
		return "application/octet-stream"
	}
	if utf8.Valid(data) {
		return found + "; charset=utf-8"
	}
	return found
}
