package smtpd

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/pabal-mta/mta/sdk/mail"
)

// facts is what the core reads of a header. It parses no MIME.
type facts struct {
	received  int
	date      bool
	messageID bool
	headless  bool // the content begins with something that is neither a field nor the empty line
}

// facts looks through the header of a body.
func (b *body) facts() (facts, error) {
	if b.file == nil {
		return readFacts(b.mem[min(headroom, len(b.mem)):]), nil
	}
	c, err := b.plain()
	if err != nil {
		return facts{}, err
	}
	raw, text, err := mail.RawHeader(c)
	if errors.Is(err, mail.ErrHeaderTooLong) {
		return facts{}, refusal(552, "5.3.4", "the header is too long")
	}
	f := readFacts(raw)
	f.headless = text == 0
	return f, err
}

// readFacts looks through a header, as mail.ReadHeader would find it.
func readFacts(raw []byte) facts {
	var f facts
	for at := 0; at < len(raw); {
		i := bytes.IndexByte(raw[at:], '\n')
		if i < 0 {
			i = len(raw) - at - 1
		}
		line := raw[at : at+i+1]
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return f
		}
		name, ok := fieldName(line)
		switch {
		case at == 0 && !ok:
			f.headless = true
			return f
		case line[0] == ' ' || line[0] == '\t':
		case !ok:
			return f
		case isField(name, "received"):
			f.received++
		case isField(name, "date"):
			f.date = true
		case isField(name, "message-id"):
			f.messageID = true
		}
		at += i + 1
	}
	return f
}

// fieldName returns the name of the field that a line begins, and false when it begins none (RFC 5322, 2.2).
func fieldName(line []byte) ([]byte, bool) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 {
		return nil, false
	}
	name := bytes.TrimRight(line[:i], " \t")
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return nil, false
		}
	}
	return name, len(name) > 0
}

func isField(name []byte, want string) bool {
	return len(name) == len(want) && strings.EqualFold(string(name), want)
}

// protocol is the word after "with" in a Received field (RFC 3848; RFC 6531, 4.3; RFC 8314, 7.4).
func (d *desk) protocol() string {
	word := "SMTP"
	switch {
	case d.server.cfg.LMTP:
		word = "LMTP"
	case d.info.ESMTP && !d.tx.env.SMTPUTF8:
		word = "ESMTP"
	}
	if d.tx.env.SMTPUTF8 {
		word = "UTF8" + word
	}
	if d.info.TLS != nil {
		word += "S"
	}
	if d.info.User != "" {
		word += "A"
	}
	return word
}

// topFields writes the fields that go on top of a message: Received (RFC 5321, 4.4), and those that a submission lacks
// (RFC 6409, 8).
func (d *desk) topFields(id string, now time.Time, f facts) []byte {
	b := make([]byte, 0, 512)
	b = append(b, "Received: from "...)
	b = d.appendClient(b)
	b = append(b, "\r\n\tby "...)
	b = append(b, d.server.cfg.Hostname...)
	b = append(b, " with "...)
	b = append(b, d.protocol()...)
	b = append(b, " id "...)
	b = append(b, id...)
	if t := d.info.TLS; t != nil {
		b = append(append(append(append(append(b, "\r\n\t("...), t.Version...), ' '), t.Cipher...), ')')
	}
	if len(d.tx.env.To) == 1 && d.tx.env.To[0].Address.IsASCII() {
		b = append(append(append(b, "\r\n\tfor <"...), d.tx.env.To[0].Address.String()...), '>')
	}
	if p := d.tx.env.Priority; p != 0 { // RFC 6710
		b = strconv.AppendInt(append(b, "\r\n\tpriority "...), int64(p), 10)
	}
	b = append(b, ";\r\n\t"...)
	b = now.AppendFormat(b, time.RFC1123Z)
	b = append(b, "\r\n"...)
	if d.server.cfg.Submission && !f.date {
		b = append(b, "Date: "...)
		b = append(now.AppendFormat(b, time.RFC1123Z), "\r\n"...)
	}
	if d.server.cfg.Submission && !f.messageID {
		b = append(append(b, "Message-ID: <"...), newToken()...)
		b = append(append(append(b, '@'), d.server.cfg.Hostname...), ">\r\n"...)
	}
	if f.headless {
		// Else the first line of the body would be taken for the end of our field.
		b = append(b, "\r\n"...)
	}
	return b
}

// appendClient writes who the message comes from: what the client called itself, if that is a name, and its address.
func (d *desk) appendClient(b []byte) []byte {
	literal := ""
	if a := d.info.Remote.Addr(); a.Is4() {
		literal = "[" + a.String() + "]"
	} else if a.IsValid() {
		literal = "[IPv6:" + a.String() + "]"
	}
	if _, err := mail.ParseDomain(d.info.Helo); err != nil {
		if literal == "" {
			literal = "unknown"
		}
		return append(append(append(append(b, literal...), " (HELO "...), commentText(d.info.Helo)...), ')')
	}
	b = append(b, d.info.Helo...)
	if literal != "" {
		b = append(append(append(b, " ("...), literal...), ')')
	}
	return b
}

// commentText keeps of a client's word what can't be more than a word in a comment (RFC 5322, 3.2.2).
func commentText(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".-_:", c) {
			return c
		}
		return '?'
	}, s[:min(len(s), 64)])
}

var tokens = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// newToken makes a word that nobody else makes.
func newToken() string {
	var b [15]byte
	binary.BigEndian.PutUint64(b[:8], uint64(time.Now().UnixMilli())<<24)
	_, _ = rand.Read(b[5:]) // it never fails (Go 1.24)
	return tokens.EncodeToString(b[:])
}
