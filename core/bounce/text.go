package bounce

import (
	"fmt"
	"strings"

	"github.com/pabal-mta/mta/sdk/mail"
)

// maxListed bounds how many recipients the human part tells of one by one; the machine part has all of them.
const maxListed = 50

// human writes the part for people: a notifier's words, or ours.
func (r *Report) human() part {
	p := part{description: "Notification", contentType: "text/plain; charset=utf-8", encoding: sevenBit}
	text := r.words()
	if n := r.Notice; n.Action == mail.NoticeRender && strings.TrimSpace(n.Text) != "" {
		text = cleanLines(n.Text, maxText)
		p.language = languageTag(n.Language)
	} else {
		p.language = "en"
	}
	p.body = []byte(strings.ReplaceAll(strings.TrimRight(text, "\n")+"\n", "\n", "\r\n"))
	if !isASCII(p.body) || longestLine(p.body) > maxLine {
		p.encoding, p.body = quotedPrintable, asQuotedPrintable(p.body)
	}
	return p
}

// languageTag returns a tag that is made as RFC 5646, 2.1 wants, or "".
func languageTag(s string) string {
	if s == "" || len(s) > 35 {
		return ""
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return ""
		}
	}
	return s
}

// words is the default text.
func (r *Report) words() string {
	var b strings.Builder
	fmt.Fprintf(&b, "This is the mail server %s.\n\n%s\n", r.Failure.Hostname, r.opening())
	for i := range min(len(r.Failure.Recipients), maxListed) {
		r.tell(&b, i)
	}
	if more := len(r.Failure.Recipients) - maxListed; more > 0 {
		fmt.Fprintf(&b, "\nand %d more, listed in the delivery report below.\n", more)
	}
	fmt.Fprintf(&b, "\n%s\n", r.closing())
	if id := clean(r.Failure.ID, 100); id != "" {
		fmt.Fprintf(&b, "\nIf you need help, forward this whole message to %s.\nThe number of your message is %s.\n", r.Failure.Postmaster, id)
	}
	return b.String()
}

func (r *Report) opening() string {
	when := ""
	if !r.Failure.Arrived.IsZero() {
		when = " of " + date(r.Failure.Arrived)
	}
	switch r.Failure.Kind {
	case mail.FailureDelayed:
		return "Your message" + when + "\nhas not been delivered yet to:"
	case mail.FailureDelivered:
		return "As you asked to be told: your message" + when + "\nwas handled for:"
	default:
		return "Your message" + when + "\ncould not be delivered to:"
	}
}

// tell writes what happened to one recipient, in the words of whoever said it.
func (r *Report) tell(b *strings.Builder, i int) {
	f := &r.Failure.Recipients[i]
	fmt.Fprintf(b, "\n  %s\n", f.Recipient.Address)
	switch action := r.action(i); {
	case action == Delivered:
		b.WriteString("    It was put into the mailbox.\n")
		return
	case action == Relayed:
		fmt.Fprintf(b, "    It was passed on to %s, which does not report on delivery.\n", said(f.Host))
		return
	case action == Expanded:
		b.WriteString("    It was passed on to the members of the list.\n")
		return
	case action == Failed && f.Reply.Temporary():
		b.WriteString("    We tried again and again until the time for it was over.\n")
	}
	words := clean(f.Reply.String(), maxDiagnostic)
	switch {
	case f.Reply.Code == 0:
		return
	case f.Host == "":
		b.WriteString("    The reason:\n")
	default:
		fmt.Fprintf(b, "    The server %s answered:\n", said(f.Host))
	}
	wrap(b, "      ", words)
}

func said(host string) string {
	if name := remoteName(host); name != "" {
		return name
	}
	return "the next server"
}

func (r *Report) closing() string {
	switch r.Failure.Kind {
	case mail.FailureDelayed:
		return r.untilWhen()
	case mail.FailureDelivered:
		return "You need not do anything."
	default:
		return "We have given up: the message will not be sent to the addresses above\nunless you send it again."
	}
}

func (r *Report) untilWhen() string {
	text := "You need not do anything: we keep the message and try again."
	if r.Failure.Expires.IsZero() {
		return text
	}
	return text + "\nIf it can't be delivered until " + r.Failure.Expires.Format("Mon, 2 Jan 2006 15:04 -0700") + ",\nwe give up and tell you."
}

// wrap writes text in indented lines, broken at spaces.
func wrap(b *strings.Builder, indent, text string) {
	width := 0
	for word := range strings.SplitSeq(text, " ") {
		if width > 0 && width+1+len(word) > wrapAt-4 {
			b.WriteByte('\n')
			width = 0
		}
		if width == 0 {
			b.WriteString(indent)
			width = len(indent)
		} else {
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += len(word)
	}
	b.WriteByte('\n')
}
