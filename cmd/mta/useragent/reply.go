package useragent

import (
	"bytes"
	"cmp"
	"fmt"
	"mime"
	"net/mail"
	"regexp"
	"slices"
	"strings"
)

// maxReferences keeps the field below what servers take: the first and the last ids say where a message belongs.
const maxReferences = 30

// Own tells our own addresses from others.
type Own []string

// Has reports whether an address is ours.
func (o Own) Has(a *mail.Address) bool {
	return slices.ContainsFunc(o, func(mine string) bool { return strings.EqualFold(mine, a.Address) })
}

// Reply begins an answer (RFC 5322, 3.6.3 to 3.6.5): to Reply-To or else From; with all, also to everyone else that the
// message went to, or to whom Mail-Followup-To names instead. Our own addresses are left out.
func (m *Message) Reply(own Own, all bool) *Letter {
	l := &Letter{Subject: prefixed("Re:", m.Header.Text("Subject"))}
	m.thread(l)
	l.To = m.answerTo(own, all)
	if all {
		m.answerAll(l, own)
	}
	l.To = distinct(l.To, nil, nil)
	l.Cc = distinct(l.Cc, l.To, own)
	return l
}

// answerTo returns the author's address. A list that set Reply-To to itself is not asked when one person is meant, and
// an answer to our own letter goes to whom we wrote.
func (m *Message) answerTo(own Own, all bool) []*mail.Address {
	from := m.Header.Addresses("From")
	if len(from) > 0 && !slices.ContainsFunc(from, func(a *mail.Address) bool { return !own.Has(a) }) {
		if to := m.Header.Addresses("To"); len(to) > 0 && m.Header.Get("Reply-To") == "" {
			return to
		}
	}
	to := m.Header.Addresses("Reply-To")
	if post := m.listPost(); !all && post != nil && len(to) == 1 && strings.EqualFold(to[0].Address, post.Address) {
		return from
	}
	if len(to) == 0 {
		return from
	}
	return to
}

func (m *Message) answerAll(l *Letter, own Own) {
	if follow := m.Header.Addresses("Mail-Followup-To"); len(follow) > 0 {
		l.To = follow
		return
	}
	l.Cc = slices.Concat(m.Header.Addresses("To"), m.Header.Addresses("Cc"))
	if post := m.listPost(); post != nil {
		l.Cc = append(l.Cc, post)
	}
	if others := distinct(l.To, nil, own); len(others) > 0 {
		l.To = others
	}
}

// listPost returns where a mailing list takes letters (RFC 2369, 3.4), or nil.
func (m *Message) listPost() *mail.Address {
	value := m.Header.Get("List-Post")
	_, rest, ok := strings.Cut(value, "<mailto:")
	if !ok {
		return nil
	}
	target, _, _ := strings.Cut(rest, ">")
	target, _, _ = strings.Cut(target, "?")
	a, err := mail.ParseAddress(target)
	if err != nil {
		return nil
	}
	return a
}

// distinct leaves out addresses that came before, that are in others, and that are ours.
func distinct(list, others []*mail.Address, own Own) []*mail.Address {
	var out []*mail.Address
	for _, a := range list {
		same := func(b *mail.Address) bool { return strings.EqualFold(a.Address, b.Address) }
		if !own.Has(a) && !slices.ContainsFunc(out, same) && !slices.ContainsFunc(others, same) {
			out = append(out, a)
		}
	}
	return out
}

// thread says what the letter answers (RFC 5322, 3.6.4).
func (m *Message) thread(l *Letter) {
	ids := m.Header.MessageIDs("Message-ID")
	refs := m.Header.MessageIDs("References")
	if parents := m.Header.MessageIDs("In-Reply-To"); len(refs) == 0 && len(parents) == 1 {
		refs = parents
	}
	if len(ids) > 0 {
		l.InReplyTo = ids[0]
		refs = append(refs, ids[0])
	}
	if over := len(refs) - maxReferences; over > 0 {
		refs = slices.Delete(refs, 1, 1+over)
	}
	l.References = refs
}

var replyPrefix = regexp.MustCompile(`(?i)^\s*(re|fwd?|aw|sv|wg|답장|회신|전달)\s*(\[\d+\])?:\s*`)

// prefixed puts "Re:" or "Fwd:" before a subject that has none of its kind yet.
func prefixed(prefix, subject string) string {
	subject = strings.Join(strings.Fields(subject), " ")
	if found := replyPrefix.FindString(subject); found != "" && strings.EqualFold(strings.TrimSpace(found), prefix) {
		return subject
	}
	return strings.TrimSpace(prefix + " " + subject)
}

// Quoted returns the text of the message as the start of an answer.
func (m *Message) Quoted() string {
	who := "someone"
	if from := m.Header.Addresses("From"); len(from) > 0 {
		who = cmp.Or(from[0].Name, from[0].Address)
	}
	when := ""
	if d := m.Header.Date(); !d.IsZero() {
		when = "On " + d.Format("Mon, 2 Jan 2006 at 15:04 -0700") + ", "
	}
	return fmt.Sprintf("%s%s wrote:\n%s", when, SafeLine(who), Quote(SafeText(m.BodyText())))
}

// Forward begins a letter that passes the message on: with inline, its text and files become ours below a short header;
// else it is attached as it is, as message/rfc822.
func (m *Message) Forward(inline bool) *Letter {
	subject := m.Header.Text("Subject")
	l := &Letter{Subject: prefixed("Fwd:", subject)}
	m.thread(l)
	l.InReplyTo = "" // it is no answer; References keep it in its thread
	if !inline {
		name := cmp.Or(FileName(subject), "message") + ".eml"
		l.Attachments = []File{{Name: name, Type: "message/rfc822", Data: m.withoutBcc()}}
		return l
	}
	var b strings.Builder
	b.WriteString("---------- Forwarded message ----------\n")
	for _, name := range []string{"From", "Date", "Subject", "To", "Cc"} {
		if value := m.Header.Text(name); value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, SafeLine(value))
		}
	}
	b.WriteString("\n" + SafeText(m.BodyText()))
	l.Text = b.String()
	for _, p := range slices.Concat(m.Attachments(), m.Pictures()) {
		l.Attachments = append(l.Attachments, File{Name: p.SaveName(), Type: p.typeAndCharset(), Data: p.Bytes()})
	}
	return l
}

func (p *Part) typeAndCharset() string {
	if label := p.Params["charset"]; label != "" {
		return mime.FormatMediaType(p.Type, map[string]string{"charset": label})
	}
	return p.Type
}

// withoutBcc returns the message as it came, but for its Bcc fields, which are nobody else's business.
func (m *Message) withoutBcc() []byte { return StripField(m.Raw, "Bcc") }

// StripField takes a field out of the header of a message, with its folded lines.
func StripField(raw []byte, name string) []byte {
	var out []byte
	drop := false
	for rest := raw; len(rest) > 0; {
		var line []byte
		line, rest = cutLine(rest)
		if len(trimEOL(line)) == 0 {
			return append(append(out, line...), rest...)
		}
		if line[0] != ' ' && line[0] != '\t' {
			field, _, _ := bytes.Cut(line, []byte(":"))
			drop = strings.EqualFold(strings.TrimRight(string(field), " \t"), name)
		}
		if !drop {
			out = append(out, line...)
		}
	}
	return out
}
