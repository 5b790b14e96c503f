package useragent

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"slices"
	"strings"
	"unicode/utf8"

	sdkmail "github.com/pabal-mta/mta/sdk/mail"
)

// The longest line of a message (RFC 5322, 2.1.1), and where we fold a header.
const (
	maxLine = 998
	foldAt  = 76
)

// headerWriter writes fields, folded.
type headerWriter struct{ b bytes.Buffer }

// field writes a structured field, folded between its words.
func (w *headerWriter) field(name, value string) {
	value = strings.Map(func(c rune) rune {
		if c == '\r' || c == '\n' || c == 0 {
			return -1
		}
		return c
	}, value)
	line := name + ":"
	for word := range strings.SplitSeq(value, " ") {
		if len(line)+1+len(word) > foldAt && strings.TrimSpace(line) != name+":" && word != "" {
			w.b.WriteString(line + "\r\n")
			line = ""
		}
		line += " " + word
	}
	w.b.WriteString(line + "\r\n")
}

// words writes a field of free text (RFC 2047).
func (w *headerWriter) words(name, text string) { w.field(name, encodeWords(text)) }

// encodeWords writes text as ASCII: as it is where that is allowed, else as encoded words, each a whole number of
// characters (RFC 2047, 5).
func encodeWords(text string) string {
	text = strings.ToValidUTF8(strings.Map(func(c rune) rune {
		if c == '\r' || c == '\n' || c == '\t' {
			return ' '
		}
		return c
	}, text), "\ufffd")
	if isPlain(text) {
		return text
	}
	var words []string
	for len(text) > 0 {
		n := 0
		for n < len(text) {
			_, size := utf8.DecodeRuneInString(text[n:])
			if n+size > 39 { // 52 characters of base64: 64 with what is around them
				break
			}
			n += size
		}
		words = append(words, "=?utf-8?B?"+base64.StdEncoding.EncodeToString([]byte(text[:n]))+"?=")
		text = text[n:]
	}
	return strings.Join(words, " ")
}

// isPlain tells text that a header can hold as it is: visible ASCII that looks like no encoded word and can be folded.
func isPlain(s string) bool {
	for word := range strings.SplitSeq(s, " ") {
		if len(word) > 200 {
			return false
		}
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return !strings.Contains(s, "=?") && strings.TrimSpace(s) == s
}

func (w *headerWriter) addresses(name string, list []*mail.Address) error {
	var out []string
	for _, a := range list {
		if a == nil {
			continue
		}
		text, err := formatAddress(a)
		if err != nil {
			return err
		}
		out = append(out, text)
	}
	if len(out) > 0 {
		w.field(name, strings.Join(out, ", "))
	}
	return nil
}

// formatAddress writes an address of a header: the name as encoded words where it must be, the domain as A-labels, the
// local part as it is, which is UTF-8 where SMTPUTF8 carries it (RFC 6532).
func formatAddress(a *mail.Address) (string, error) {
	addr, err := sdkmail.ParseUnquoted(a.Address)
	if err != nil {
		return "", err
	}
	name := strings.Join(strings.Fields(a.Name), " ")
	switch {
	case name == "":
		return addr.String(), nil
	case !isPlain(name):
		name = encodeWords(name)
	case strings.ContainsAny(name, "()<>[]:;@\\,.\""):
		name = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
	}
	return name + " <" + addr.String() + ">", nil
}

// entity is a part as it will be written.
type entity struct {
	head headerWriter
	body []byte
}

func (e *entity) bytes() []byte { return slices.Concat(e.head.b.Bytes(), []byte("\r\n"), e.body) }

// textEntity writes text in the encoding that suits it and the next server best (RFC 2045, 6).
func textEntity(mediaType, rest, text string, f Form) *entity {
	body := []byte(crlf(strings.ToValidUTF8(text, "\ufffd")))
	e := &entity{}
	e.head.field("Content-Type", mediaType+rest)
	switch {
	case fitsLines(body) && isASCII(body):
		e.head.field("Content-Transfer-Encoding", "7bit")
		e.body = body
	case fitsLines(body) && f.EightBit:
		e.head.field("Content-Transfer-Encoding", "8bit")
		e.body = body
	default:
		e.head.field("Content-Transfer-Encoding", "quoted-printable")
		e.body = quotePrintable(body)
	}
	return e
}

func quotePrintable(body []byte) []byte {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	_, err := w.Write(body)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // a bytes.Buffer never fails
	}
	return b.Bytes()
}

// crlf makes every line end CRLF.
func crlf(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.ReplaceAll(s, "\r", "\n")
	return strings.ReplaceAll(s, "\n", "\r\n")
}

// fitsLines reports whether b can go as it is: lines that end in CRLF and are not too long, no NUL, no lone CR or LF.
func fitsLines(b []byte) bool {
	for len(b) > 0 {
		line, rest := cutLine(b)
		text := bytes.TrimSuffix(line, []byte("\r\n"))
		if len(text) > maxLine || bytes.ContainsAny(text, "\r\n\x00") {
			return false
		}
		b = rest
	}
	return true
}

func isASCII(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c >= 0x80 })
}

// fileEntity writes a file in base64, so that it comes out byte for byte as it went in. A message is written as it is,
// because it may not be encoded (RFC 2046, 5.2.1); one that the next server can't take so goes as a file.
func fileEntity(file File, disposition, id string, f Form) *entity {
	e := &entity{}
	mediaType := cmp.Or(file.Type, "application/octet-stream")
	asMessage := mediaType == "message/rfc822"
	if asMessage {
		file.Data = []byte(crlf(string(file.Data)))
		asMessage = fitsLines(file.Data) && (f.EightBit || isASCII(file.Data))
		if !asMessage {
			mediaType = "application/octet-stream"
		}
	}
	e.head.field("Content-Type", cleanType(mediaType, asMessage))
	e.head.field("Content-Disposition", disposition+encodeParam("filename", file.Name))
	if id != "" {
		e.head.field("Content-ID", "<"+id+">")
	}
	switch {
	case asMessage && isASCII(file.Data):
		e.head.field("Content-Transfer-Encoding", "7bit")
		e.body = file.Data
	case asMessage:
		e.head.field("Content-Transfer-Encoding", "8bit")
		e.body = file.Data
	default:
		e.head.field("Content-Transfer-Encoding", "base64")
		e.body = wrapBase64(file.Data)
	}
	return e
}

// cleanType writes a media type anew. The types that may not stand in base64 (RFC 2045, 6.4) become those of a file.
func cleanType(mediaType string, asMessage bool) string {
	const file = "application/octet-stream"
	base, extra, err := mime.ParseMediaType(mediaType)
	if err != nil || !asMessage && (strings.HasPrefix(base, "message/") || strings.HasPrefix(base, "multipart/")) {
		return file
	}
	return cmp.Or(mime.FormatMediaType(base, extra), file)
}

// wrapBase64 writes lines of 76 characters (RFC 2045, 6.8).
func wrapBase64(data []byte) []byte {
	const perLine = 57
	out := make([]byte, 0, len(data)/perLine*78+80)
	for chunk := range slices.Chunk(data, perLine) {
		out = base64.StdEncoding.AppendEncode(out, chunk)
		out = append(out, "\r\n"...)
	}
	return out
}

// encodeParam writes a parameter: quoted where it is short ASCII, else by RFC 2231, in sections where it is long.
func encodeParam(name, value string) string {
	value = strings.ToValidUTF8(value, "\ufffd")
	if value == "" {
		return ""
	}
	if isPlain(value) && len(value) <= 60 {
		return "; " + name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
	}
	var pieces []string
	piece := ""
	for i := range len(value) {
		c := value[i]
		unit := string(c)
		if !isAttributeChar(c) {
			unit = fmt.Sprintf("%%%02X", c)
		}
		if len(piece)+len(unit) > 50 {
			pieces = append(pieces, piece)
			piece = ""
		}
		piece += unit
	}
	pieces = append(pieces, piece)
	if len(pieces) == 1 {
		return "; " + name + "*=utf-8''" + piece
	}
	out := ""
	for i, p := range pieces {
		label := ""
		if i == 0 {
			label = "utf-8''"
		}
		out += fmt.Sprintf("; %s*%d*=%s%s", name, i, label, p)
	}
	return out
}

// isAttributeChar is attribute-char of RFC 2231, 7.
func isAttributeChar(c byte) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune(`*'%()<>@,;:\"/[]?=`, rune(c))
}

// nest puts parts behind each other (RFC 2046, 5.1).
func nest(kind, rest string, f Form, parts ...*entity) *entity {
	boundary := f.Boundary()
	e := &entity{}
	e.head.field("Content-Type", "multipart/"+kind+`; boundary="`+boundary+`"`+rest)
	var b bytes.Buffer
	eightBit := false
	for _, p := range parts {
		b.WriteString("--" + boundary + "\r\n")
		b.Write(p.bytes())
		b.WriteString("\r\n")
		eightBit = eightBit || !isASCII(p.body)
	}
	b.WriteString("--" + boundary + "--\r\n")
	if eightBit {
		e.head.field("Content-Transfer-Encoding", "8bit") // RFC 2045, 6.4: not less than its parts
	}
	e.body = b.Bytes()
	return e
}
