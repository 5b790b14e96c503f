package bounces

import (
	"fmt"
	"mime"
	netmail "net/mail"
	"strings"
	"time"
	"unicode"

	"github.com/pabal-mta/mta/sdk/mail"
)

// Limits of the human part; the machine part lists everything.
const (
	maxListed  = 50  // recipients
	maxSubject = 100 // characters of the original's subject
	maxQuote   = 600 // characters of another server's words, for each recipient
	width      = 72  // columns
)

// report is one report being written.
type report struct {
	*mail.Failure
	header   mail.Header
	language *language
}

func (r *report) subject() string {
	l := r.language
	to := ""
	if len(r.Recipients) > 0 {
		to = clean(r.Recipients[0].Recipient.Address.String(), maxSubject)
	}
	if n := len(r.Recipients) - 1; n > 0 {
		to = fill(l.many, "{to}", to, "{n}", fmt.Sprint(n))
	}
	return fill(l.subject[r.Kind], "{to}", to)
}

func (r *report) text() string {
	l := r.language
	var p paragraphs
	p.add("", l.hello)
	p.add("", fill(l.opening[r.Kind], "{host}", r.Hostname, "{expires}", l.time(r.local(r.Expires))))
	r.describe(&p)
	for i, rcpt := range r.Recipients {
		if i == maxListed {
			p.add("  ", fill(l.more, "{n}", fmt.Sprint(len(r.Recipients)-i)))
			break
		}
		r.recipient(&p, rcpt)
	}
	p.add("", fill(l.closing[r.Kind], "{postmaster}", r.Postmaster.String()))
	p.add("", fill(l.signed, "{host}", r.Hostname))
	return p.String()
}

// describe says which message this is about.
func (r *report) describe(p *paragraphs) {
	l := r.language
	p.gap()
	if s := r.originalSubject(); s != "" {
		p.line("  ", fill(l.about, "{subject}", s))
	}
	if !r.Arrived.IsZero() {
		p.line("  ", fill(l.sent, "{time}", l.time(r.local(r.Arrived))))
	}
	if r.Kind == mail.FailureDelayed && !r.Expires.IsZero() {
		p.line("  ", fill(l.expires, "{time}", l.time(r.local(r.Expires))))
	}
}

func (r *report) recipient(p *paragraphs, f mail.FailedRecipient) {
	l := r.language
	p.gap()
	p.line("  ", "<"+clean(f.Recipient.Address.String(), 400)+">")
	if r.Kind == mail.FailureDelivered {
		return
	}
	w := l.cause[causeFor(f)]
	p.line("    ", w.what)
	if r.Kind == mail.FailurePermanent {
		p.line("    ", w.todo)
	}
	said := l.ourQuote
	if f.Host != "" {
		said = fill(l.quote, "{host}", clean(f.Host, 255))
	}
	p.line("    ", said)
	p.line("      ", clean(f.Reply.String(), maxQuote))
}

// local returns a time in the zone that the sender wrote in.
func (r *report) local(t time.Time) time.Time {
	date := r.header.Get("Date")
	if len(date) > 100 {
		return t.UTC()
	}
	sent, err := netmail.ParseDate(date)
	if err != nil {
		return t.UTC()
	}
	return t.In(sent.Location())
}

// originalSubject returns the subject of the message as people read it, or "".
func (r *report) originalSubject() string {
	s := r.header.Get("Subject")
	if len(s) > 2000 { // decoding what nobody reads
		return ""
	}
	decoded, err := new(mime.WordDecoder).DecodeHeader(s)
	if err != nil {
		return ""
	}
	return clean(decoded, maxSubject)
}

// clean makes a stranger's words one line of text: no controls, nothing that turns the direction of writing, not too long.
func clean(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
	}), " ")
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return s
}

// paragraphs writes wrapped text.
type paragraphs struct {
	strings.Builder
}

// gap begins a paragraph.
func (p *paragraphs) gap() {
	if p.Len() > 0 {
		p.WriteByte('\n')
	}
}

// add writes a paragraph of one text.
func (p *paragraphs) add(indent, text string) {
	p.gap()
	p.line(indent, text)
}

// line writes a text as lines of at most width columns; a word that is longer stands alone.
func (p *paragraphs) line(indent, text string) {
	col := 0
	for word := range strings.FieldsSeq(text) {
		n := columns(word)
		switch {
		case col == 0:
			p.WriteString(indent)
			col = len(indent)
		case col+1+n > width:
			p.WriteString("\n" + indent)
			col = len(indent)
		default:
			p.WriteByte(' ')
			col++
		}
		p.WriteString(word)
		col += n
	}
	p.WriteByte('\n')
}

// columns returns how wide a word is shown: East Asian letters take two.
func columns(word string) (n int) {
	for _, r := range word {
		n++
		if r >= 0x1100 {
			n++
		}
	}
	return n
}
